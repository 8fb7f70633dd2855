"""`phase node`: take jobs of peers, or run the booted system's own job."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from phase import modes, node
from phase.cli import _options
from phase.cli._dht import dht_option
from phase.cli._options import option
from phase.cli._relay import relay_for_option
from phase.cli._tell import Out

#: A node's port, where nobody says: of UDP, and of TCP.
PORT = 8470


@click.command("node")
@_options.mode
@_options.state
@option(
    "--listen",
    multiple=True,
    metavar="HOST:PORT",
    standard=f"port {PORT} of all addresses",
    help="Address to listen on, numeric; at most one of IPv4 and one of IPv6.",
)
@option(
    "--allow",
    multiple=True,
    metavar="KEY|FILE",
    standard="no client",
    help="Take jobs from this key, or from the keys in this file; repeat for more.",
)
@dht_option
@option("--no-dht", is_flag=True, help="Take no part in the DHT, whatever --dht says.")
@option("--no-mdns", is_flag=True, help="Do not use multicast DNS.")
@option("--open", "anyone", is_flag=True, help="Take jobs from every client.")
@option(
    "--relay",
    multiple=True,
    metavar="URL",
    help="Relay by which peers may reach this node; repeat for more.",
)
@relay_for_option
@option(
    "--slots",
    type=click.IntRange(1, 256),
    metavar="N",
    standard="one for each processor",
    help="Jobs at a time.",
)
@option("--queue", type=click.IntRange(0, 10_000), default=64, metavar="N", help="Jobs that may wait.")
@option(
    "--quota",
    type=click.IntRange(1, 10_000),
    default=64,
    metavar="N",
    help="Jobs that one client may have here at a time.",
)
@option(
    "--job-memory",
    type=click.IntRange(1, 4096),
    metavar="MIB",
    standard="by the machine's memory",
    help="Most memory that one job may ask for.",
)
@option(
    "--job-wall",
    type=_options.Seconds(0.1, 86_400),
    default=3600.0,
    unit="s",
    metavar="SECONDS",
    help="Longest time that one job may ask for.",
)
@option("--job", type=click.Choice(node.JOBS), help="Run this job of the system's own, and end.")
@option(
    "--module",
    type=_options.PLACE,
    metavar="FILE",
    default=node.MODULE,
    help="WebAssembly module of --job.",
)
@option(
    "--receipts",
    type=_options.PLACE,
    metavar="DIRECTORY",
    default=node.RECEIPTS,
    help="Directory for the receipt of --job.",
)
@option("--ephemeral", is_flag=True, help="Sign the receipt of --job with a key that is never written down.")
@_options.as_json
def command(
    mode: str,
    state: Path | None,
    job: str | None,
    module: Path,
    receipts: Path,
    ephemeral: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Take jobs from peers, within limits, and sign receipts for them.

    No client may bring jobs unless --allow names its key or --open admits all.
    """
    from phase.cli.init import default_state

    place = state or default_state()
    if job is not None:
        ephemeral = ephemeral or not modes.of(mode).lasting
        passed = node.run_job(job, state=place, module=module, receipts=receipts, ephemeral=ephemeral)
        sys.exit(0 if passed else 1)
    if ephemeral:
        raise click.UsageError("--ephemeral is for --job: a node that takes jobs is known by its key")
    if not modes.of(mode).serves:
        raise node.NodeError(f"{mode} mode answers nobody: no job is taken")
    _serve(place, modes.of(mode), as_json=as_json, **given)


def _serve(state: Path, mode: modes.Mode, *, as_json: bool, **given: Any) -> None:
    from phase.cli.init import identity_in
    from phase.cli.serve import end_in_time, log_to_stderr
    from phase.jobs.limits import MIB
    from phase.node import daemon
    from phase.node.admission import Admission, read_keys
    from phase.node.capacity import Capacity

    log_to_stderr()
    identity_in(state)
    memory = given["job_memory"]
    options = daemon.Options(
        state=state,
        listen=given["listen"] or (f"0.0.0.0:{PORT}", f"[::]:{PORT}"),
        relays=given["relay"],
        dht=given["dht"] if mode.dht and not given["no_dht"] else (),
        mdns=mode.mdns and not given["no_mdns"],
        relay_for=given["relay_for"],
        admission=Admission(read_keys(given["allow"]), anyone=given["anyone"]),
        capacity=Capacity.of_this_machine(
            slots=given["slots"],
            queue=given["queue"],
            client_jobs=given["quota"],
            memory_bytes=None if memory is None else memory * MIB,
            wall_seconds=given["job_wall"],
        ),
    )

    def ready(address: str) -> None:
        from phase.cli.facts import NodeReady

        out = Out(as_json)
        key, _, hosts = address.partition("@")
        out.facts(NodeReady(node=key, address=address, hosts=hosts.split(",") if hosts else []))
        out.line(f"node {address}")
        if not options.admission.keys and not options.admission.anyone:
            out.line("no client may bring jobs: --allow KEY, or --open")

    asyncio.run(daemon.run(options, ready=ready, stopping=end_in_time))
