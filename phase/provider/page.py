"""The status page for a browser: one file, no script, nothing loaded from elsewhere."""

from html import escape

from phase.provider.status import DhtStatus, Status

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1c; background: #fff; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid #ccc; vertical-align: top } .bad { color: #a40000 }
ul { padding-left: 1.2rem }
@media (max-width: 40rem) { tr:first-child { display: none } tr { display: block; padding: .6rem 0;
  border-bottom: 1px solid #ccc } td { display: block; border: 0; padding: .1rem 0 }
  td::before { content: attr(data-name) ": "; opacity: .75 } }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #181818 } .bad { color: #ff8a80 }
  a { color: #8ab4f8 } }
"""
_COLUMNS = ("Release", "Name", "Version", "Expires", "Artifacts")


def render(status: Status) -> str:
    """Write the page.

    Args:
        status: the status report; every text in it is escaped.
    """
    rows = "".join(
        _row(
            f'<a href="{escape(release.manifest)}">{escape(release.channel)}/{escape(release.arch)}</a>',
            escape(release.release),
            str(release.version),
            escape(release.expires),
            ", ".join(f"{escape(name)}\u00a0{_size(length)}" for name, length in release.artifacts.items()),
        )
        for release in status.releases
    )
    trouble = "".join(
        f'<p class="bad">{escape(problem.part)}: {escape(problem.text)}</p>' for problem in status.problems
    )
    found = (
        "<br>".join(escape(name) for name in status.mdns.instances)
        or f"not advertised: {escape(status.mdns.problem)}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Phase provider</title>'
        f"<style>{_STYLE}</style><h1>Phase provider</h1>{trouble}"
        f"<table><tr><th>{'<th>'.join(_COLUMNS)}{rows}</table>"
        f"<h2>On the network</h2><p>This provider: {found}</p>"
        f"<p>Other providers seen: {len(status.mdns.seen) or 'none'}</p>"
        f"<ul>{''.join(f'<li>{escape(name)}' for name in status.mdns.seen)}</ul><p>{_dht(status.dht)}</p>"
        f"<h2>This provider</h2><p>Version {escape(status.version)}, up for {status.uptime_seconds:.0f} s, "
        f"{status.active_requests - 1} transfers now, {status.requests} requests, "
        f"{_size(status.bytes_sent)} sent. "
        '<a href="/status">status</a> <a href="/metrics">metrics</a> <a href="/health">health</a></p></html>'
    )


def _dht(dht: DhtStatus) -> str:
    if not dht.running:
        return f"DHT: off, {escape(dht.problem)}"
    where = f"announced as {escape(dht.address)}, kept by {dht.keepers}"
    return (
        f"DHT: {dht.nodes} other nodes, {escape(dht.problem) or where}; {dht.held} announcements kept here"
    )


def _row(*cells: str) -> str:
    named = zip(_COLUMNS, cells, strict=True)
    return "<tr>" + "".join(f'<td data-name="{name}">{cell}' for name, cell in named)


def _size(length: int) -> str:
    return f"{length / 1e6:.1f} MB" if length >= 100_000 else f"{length} bytes"
