"""`phase job`: give jobs to nodes, and ask for them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phase.cli import _options, peers, run
from phase.cli._dht import dht_option
from phase.cli._options import option
from phase.cli._tell import Out

if TYPE_CHECKING:
    from phase.client import Client

#: Options that `phase run` has, too.
_SHARED = (
    *("env", "fuel", "wall", "memory", "compile", "max_output", "receipt", "job_id", "nonce", "no_stdin"),
    *("deterministic", "seed", "input", "output", "scratch"),
)


@click.group("job")
def command() -> None:
    """Give jobs to nodes, and ask for them."""


_node = option(
    "--node",
    metavar="KEY[@HOST:PORT]",
    help="The node: its public key, and where it is; commas between several addresses and relays.",
)


class _Submit(run.Coded):
    """Has the options of `phase run` that say what a job is."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += [each for each in run.command.params if each.name in _SHARED]


@command.command("submit", cls=_Submit, context_settings={"allow_interspersed_args": False})
@click.argument("module", type=_options.PLACE)
@click.argument("args", nargs=-1, type=click.UNPROCESSED, callback=run.own)
@option(
    "--node",
    "nodes",
    multiple=True,
    metavar="KEY[@HOST:PORT]",
    help="The node: its public key, and where it is; commas between several addresses and relays. Repeat it "
    "for more nodes: the first that takes the job runs it.",
)
@option(
    "--copies",
    metavar="K/N",
    help="Run a deterministic job on N of the nodes; K must give the same result, else the code is 165.",
)
@peers.wanted_arch
@peers.wanted_runtime
@dht_option
@option("--detach", is_flag=True, help="Leave the job to the node; `phase job result` has its result later.")
@_options.state
@_options.as_json
def submit(module: Path, args: tuple[str, ...], **given: Any) -> None:
    """Run MODULE with ARGS at a node; its output and exit code become this command's.

    Output arrives while the job runs. It counts once the receipt is verified against the node's key: where
    that fails, the exit code is 164. Options of Phase come before MODULE. The exit codes 0 to 125 are the
    module's own.

    \b
    126 rejected      134 trapped        142 wall limit    129 wrong usage
    127 not found     137 memory limit   152 fuel limit    160 refused by the node
    128 failed        141 output lost    153 output limit  161 no node reached
    162 job lost      163 did not run    164 untrue receipt 165 nodes disagree
    """  # noqa: D301  click wants the character
    from phase.cli import _submit

    sys.exit(_submit.submit(_submit.Options(module=module, args=args, **given)))


def _about_one(function: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options of a command about one job."""
    for decorate in reversed((click.argument("job"), _node, _options.state, _options.as_json)):
        function = decorate(function)
    return function


@command.command("result", cls=run.Coded)
@_about_one
@option("--receipt", once=True, type=_options.PLACE, metavar="FILE", help="Write the receipt there.")
@option(
    "--output",
    once=True,
    multiple=True,
    metavar="NAME[=FILE]",
    help="Bring back /output/NAME, of those named when it was submitted, as FILE; repeat for more.",
)
def result(
    job: str,
    node: str | None,
    state: Path | None,
    as_json: bool,
    receipt: Path | None,
    output: tuple[str, ...],
) -> None:
    """Wait for a detached job; print its output, and end with its exit code.

    JOB is its id. The node need not be named where the job was submitted from here.
    """
    from phase.cli import _submit

    sys.exit(_submit.result(job, node, state, as_json=as_json, receipt=receipt, output=output))


@command.command("status", cls=run.Coded)
@_about_one
def status(job: str, node: str | None, state: Path | None, as_json: bool) -> None:
    """Say how far a job is."""
    from phase.cli import _submit

    address = _submit.where(job, node, state)
    _submit.tell(address, state, lambda client: client.status(address, job), Out(as_json))


@command.command("cancel", cls=run.Coded)
@_about_one
def cancel(job: str, node: str | None, state: Path | None, as_json: bool) -> None:
    """End a job, whatever it does."""
    from phase.cli import _submit

    address = _submit.where(job, node, state)
    _submit.tell(address, state, lambda client: client.cancel(address, job), Out(as_json))


@command.command("list", cls=run.Coded)
@_node
@_options.state
@_options.as_json_lines
def listed(node: str | None, state: Path | None, as_json: bool) -> None:
    """List your jobs: at a node, or those that were detached from here."""
    from phase.cli import _submit
    from phase.peer.transport import Address

    out = Out(as_json)
    if node is None:
        _submit.tell_remembered(state, out)
        return
    address = Address.parse(node)

    async def ask(client: "Client") -> None:
        for each in await client.jobs(address):
            _submit.show(each, out)

    sys.exit(_submit.with_client(state, ask))
