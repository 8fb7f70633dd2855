"""`phase serve` against nginx: the same files, one process each, on loopback.

    python -m bench.provider [MEGABYTES]

Bytes per second of a large file and answers per second of a small one over 1, 8 and 64 connections, the
processor time of both ends (on loopback either may do the network's work), and memory. wrk reads, from both
by turns, and the best of five rounds counts: a busy neighbour only ever slows.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import _serving, _wrk
from bench._wrk import Load

BYTES, SMALL, CPU = 1.0, 0.7, 1.2
#: MB by which memory may grow from one connection to sixty-four: what is served must not pass through it.
FLAT = 16.0
CONNECTIONS = (1, 8, 64)
ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.provider")
    parser.add_argument("megabytes", type=int, nargs="?", default=64)
    megabytes = parser.parse_args().megabytes
    _wrk.required()
    missed: list[str] = []
    warm = 0.0
    with tempfile.TemporaryDirectory(dir=_serving.memory()) as temporary:
        root = Path(temporary)
        # nginx reads as another user when root starts it.
        root.chmod(0o755)
        repository, blob, _ = _serving.publish(root, megabytes)
        manifest = "/metadata/1.stable-x86_64.json"
        with (
            _serving.nginx(repository, root / "nginx") as peer,
            _serving.phase(repository) as ours,
        ):
            _serving.settle(ours)
            print(_HEAD)
            for connections in CONNECTIONS:
                ask = partial(_wrk.load, path=blob, connections=connections)
                found = _wrk.rounds((peer, ours), ask, ROUNDS)
                missed += _row("GB/s", connections, found, lambda load: load.bytes / 1e9, BYTES)
                warm = warm or ours.peak()
            for connections in CONNECTIONS:
                ask = partial(_wrk.load, path=manifest, connections=connections)
                found = _wrk.rounds((peer, ours), ask, ROUNDS)
                missed += _row(
                    "thousand small/s", connections, found, lambda load: load.answered / 1e3, SMALL
                )
            grown = ours.peak() - warm
            print(
                f"memory at most: nginx {peer.peak():.0f} MB, phase {ours.peak():.0f} MB, "
                f"{grown:.1f} MB of it since it served one connection (budget {FLAT:.0f})"
            )
            missed += ["memory"] * (grown >= FLAT)
    print(f"load of this machine {os.getloadavg()[0]:.1f}; budgets missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


_HEAD = (
    f"{'':18} {'connections':>11} {'nginx':>10} {'phase':>10}  ratio {'CPU, nginx':>17} {'phase':>7}  ratio"
)


def _row(
    name: str,
    connections: int,
    found: Sequence[Sequence[Load]],
    work: Callable[[Load], float],
    budget: float,
) -> list[str]:
    """Print a row: so much a second, and what that costs both ends, seconds; returns what is over budget."""
    rates = [max(work(each) / each.wall for each in loads) for loads in found]
    costs = [min(each.both / work(each) for each in loads) for loads in found]
    ratio, cost = rates[1] / rates[0], costs[1] / costs[0]
    print(
        f"{name:18} {connections:11} {rates[0]:10.2f} {rates[1]:10.2f} {ratio:6.2f} (>= {budget}) "
        f"{costs[0]:8.3f} {costs[1]:7.3f} {cost:6.2f} (<= {CPU})",
        flush=True,
    )
    what = f"{name} over {connections}"
    return [what] * (ratio < budget) + [f"CPU, {what}"] * (budget == BYTES and cost > CPU)


if __name__ == "__main__":
    sys.exit(main())
