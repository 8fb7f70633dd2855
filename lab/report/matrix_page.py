"""The matrix and the timelines as one HTML page: no script, nothing from outside, narrow screens too."""

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from lab.report.drawing import draw
from lab.report.history import Run
from lab.report.matrix import Line, failures
from lab.report.records import Record

#: Nothing may be loaded, and nothing may run.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'"
#: Outcomes shown of each row, newest last.
SHOWN = 12
_SIGNS = {"passed": ("ok", "●", "passed"), "flaky": ("meh", "▲", "flaky")}
_STYLE = """
:root{color-scheme:light dark;--ink:#1f2937;--dim:#4b5563;--paper:#fff;--card:#f3f4f6;--rule:#d1d5db;
--ok:#15803d;--meh:#b45309;--bad:#b91c1c;--line:#1d4ed8}
@media (prefers-color-scheme:dark){:root{--ink:#e5e7eb;--dim:#9ca3af;--paper:#111827;--card:#1f2937;
--rule:#374151;--ok:#4ade80;--meh:#fbbf24;--bad:#f87171;--line:#60a5fa}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.5rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
h1{font-size:1.6rem;margin:0}h2{font-size:1.25rem;margin:2.5rem 0 .75rem}
h3{font-size:1rem;margin:1.5rem 0 .5rem}
.about,.dim{color:var(--dim)}.about{margin:.25rem 0 0}
.ok{color:var(--ok)}.meh{color:var(--meh)}.bad{color:var(--bad)}
table{border-collapse:collapse;width:100%}
th,td{padding:.4rem .75rem;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600;color:var(--dim);font-size:.875rem}
tbody th{color:var(--ink);font-size:1rem}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tbody th small{display:block;font-weight:400;color:var(--dim)}
.runs span{letter-spacing:.1em;white-space:nowrap}
.spark{vertical-align:middle;margin-left:.5rem}.spark path{fill:none;stroke:var(--line);stroke-width:1.5}
.spark circle{fill:var(--line)}
.phases{display:grid;grid-template-columns:repeat(auto-fill,minmax(21rem,1fr));gap:0 2.5rem}
.phases th,.phases td{padding:.15rem .5rem}.phases tbody th{font-weight:400}
.picture{overflow-x:auto}.picture svg{display:block;max-width:none}
.failure{border-left:4px solid var(--bad);background:var(--card);padding:.5rem .75rem;margin:.5rem 0;
overflow-wrap:anywhere}
.failure.meh{border-color:var(--meh);color:inherit}
@media (max-width:46rem){body{padding:1rem}.matrix thead{display:none}
.matrix,.matrix tbody,.matrix tr,.matrix th,.matrix td{display:block;border:0;padding:0}
.matrix tr{background:var(--card);border-radius:.5rem;padding:.75rem;margin:.75rem 0}
.matrix td{display:flex;justify-content:space-between;text-align:right}
.matrix td::before{content:attr(data-name);color:var(--dim)}
.phases{grid-template-columns:1fr}}
"""


def page(matrix: Sequence[Line], records: Sequence[Record], facts: Mapping[str, str]) -> str:
    """The page.

    Args:
        matrix: over the history.
        records: of the last run.
        facts: what is said of the last run as a whole.
    """
    runs = max((len(line.runs) for line in matrix), default=0)
    told = ", ".join([*(f"{name} {value}" for name, value in facts.items()), f"up to {runs} runs of a row"])
    body = [f'<h1>Boot-success matrix</h1><p class="about">{escape(told)}</p>']
    body += [_failures(failures(records)), _matrix(matrix), _phases(matrix), _timelines(records)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>Boot-success matrix</title><style>{_STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _failures(failed: Sequence[Record]) -> str:
    if not failed:
        return ""
    parts = []
    for record in failed:
        kind = "meh" if record.outcome == "flaky" else ""
        owner = f" Owner: {escape(record.owner)}." if record.owner else ""
        parts.append(
            f'<div class="failure {kind}"><strong>{escape(record.scenario)}</strong> {escape(record.arch)}: '
            f"{escape(record.outcome)}.{owner}<br>{escape(record.what)}</div>"
        )
    return f"<section><h2>Not green in the last run</h2>{''.join(parts)}</section>"


def _matrix(matrix: Iterable[Line]) -> str:
    heads = (
        "scenario",
        "architecture",
        "firmware",
        "mode",
        "success",
        "last runs",
        "median",
        "p95",
        "trend",
    )
    numbers = ("success", "median", "p95", "trend")
    head = "".join(f"<th{' class=n' if name in numbers else ''}>{name}</th>" for name in heads)
    rows = "".join(_row(line) for line in matrix)
    return (
        "<section><h2>Success over the history of runs</h2>"
        f'<table class="matrix"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        '<p class="dim"><span class="ok">●</span> passed <span class="meh">▲</span> only when tried again '
        '<span class="bad">✕</span> failed, newest last. Times are whole boots that went well, in seconds; '
        "trend is the last one against the median of those before.</p></section>"
    )


def _row(line: Line) -> str:
    row = line.row
    level = "ok" if line.rate == 1 else "meh" if line.rate >= 0.9 else "bad"
    signs = "".join(_sign(run) for run in line.runs[-SHOWN:])
    whole = line.whole
    cells = [
        ("architecture", "", escape(row.arch)),
        ("firmware", "", escape(row.firmware) or "-"),
        ("mode", "", escape(row.mode) or "-"),
        ("success", "n", f'<span><strong class="{level}">{percent(line)}</strong> {count(line)}</span>'),
        ("last runs", "runs", f"<span>{signs}</span>"),
        ("median", "n", f"{whole.median:.2f}" if whole else "-"),
        ("p95", "n", f"{whole.p95:.2f}" if whole else "-"),
        ("trend", "n", f"<span>{trend(line)}{_spark(line.boots)}</span>"),
    ]
    made = "".join(f'<td class="{kind}" data-name="{name}">{text}</td>' for name, kind, text in cells)
    return f"<tr><th>{escape(row.scenario)}<small>{escape(row.topology)}</small></th>{made}</tr>"


def _sign(run: Run) -> str:
    kind, sign, word = _SIGNS.get(run.record.outcome, ("bad", "✕", run.record.outcome))
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.record.ended)) if run.record.ended else ""
    told = escape(f"{word} {when} {run.commit}".strip())
    return f'<span class="{kind}" title="{told}" role="img" aria-label="{told}">{sign}</span>'


def _spark(boots: Sequence[float]) -> str:
    seconds = boots[-SHOWN:]
    if len(seconds) < 2:
        return ""
    low, high = min(seconds), max(seconds)
    step, reach = 72 / (len(seconds) - 1), high - low or 1.0
    points = [(4 + step * place, 20 - 16 * (value - low) / reach) for place, value in enumerate(seconds)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return (
        f'<svg class="spark" viewBox="0 0 80 24" width="80" height="24" role="img" '
        f'aria-label="{low:.2f} to {high:.2f} s"><path d="{path}"/>'
        f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.5"/></svg>'
    )


def _phases(matrix: Iterable[Line]) -> str:
    blocks = []
    for line in matrix:
        if not line.phases:
            continue
        rows = "".join(
            f'<tr><th>{escape(name)}</th><td class="n">{took.median:.2f}</td>'
            f'<td class="n">{took.p95:.2f}</td></tr>'
            for name, took in line.phases.items()
        )
        blocks.append(
            f"<div><h3>{title(line)}</h3><table><thead><tr><th>phase</th>"
            f'<th class="n">median</th><th class="n">p95</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    if not blocks:
        return ""
    return f'<section><h2>Phases, seconds</h2><div class="phases">{"".join(blocks)}</div></section>'


def _timelines(records: Iterable[Record]) -> str:
    parts = [
        f"<h3>{escape(record.scenario)} {escape(record.arch)}: {escape(record.outcome)}</h3>"
        f'<div class="picture" tabindex="0">{draw(record.tracks)}</div>'
        for record in records
        if record.tracks
    ]
    return f"<section><h2>Timelines of the last run</h2>{''.join(parts)}</section>" if parts else ""


def title(line: Line) -> str:
    """A row in one line, escaped for HTML (Markdown takes that too)."""
    row = line.row
    words = [row.scenario, row.arch, row.firmware, row.mode, f"({row.topology})" if row.topology else ""]
    return escape(" ".join(word for word in words if word))


def percent(line: Line) -> str:
    """The success rate; never rounded up to all."""
    return f"{100 * line.passed // len(line.runs)} %"


def count(line: Line) -> str:
    """How many of how many."""
    return f"{line.passed}/{len(line.runs)}"


def trend(line: Line) -> str:
    """The last boot against the earlier ones."""
    return "-" if line.trend is None else f"{line.trend:+.0%}"
