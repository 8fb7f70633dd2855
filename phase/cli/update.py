"""`phase update`: a system that runs becomes the next release."""

import os

import click

from phase.cli import _options
from phase.cli._tell import Out


@click.command("update")
@_options.option("--now", is_flag=True, once=True, help="Fetch it, and hand this machine over to it.")
@_options.timeout(300.0, 1, 86_400)
@_options.as_json
def command(now: bool, timeout: float, as_json: bool) -> None:
    """Look for a newer release of the system that runs here.

    Only in a system that a seed has started. With --now, what is new of it is fetched, verified and
    started, as the seed did it; no program is asked to end first. If anything fails, this system runs on.
    """
    from phase.boot.update import RELEASE, Running, Update
    from phase.cli.facts import Updated

    if os.geteuid() == 0:
        # As in a boot: what happens is told on the consoles, where the next system goes on telling.
        os.environ.setdefault("PHASE_MARKS", "kmsg")
    update = Update(Running(RELEASE), RELEASE, timeout=timeout)
    out = Out(as_json)
    if now:
        # Where there is a newer one, this does not come back.
        update.start_newer()
    found = None if now else update.newer()
    if found is None:
        out.facts(Updated(newer=False))
        out.line(update.standing)
        return
    out.facts(Updated(newer=True, version=found.version, release=found.release))
    out.line(f"release {found.release} (version {found.version}) is newer; `phase update --now` starts it")
