"""A crowd of machines that boot from `phase serve`, against nginx serving the exported tree.

    python -m bench.crowd [ROUNDS]

What a machine asks for is what `phase.fetch` asks: a client of it fetches a release once, and the access
log of that is played back by wrk. Each of three ways: a machine knows one provider, and reads whole files;
it knows three, and reads ranges; and a range for every chunk, which is more than any machine asks. A
hundred machines, 8 or 64 of them at the same time; one process of each server, by turns, and the best of
the rounds counts: a busy neighbour only ever slows.

Prints machines per second and core, where the time of the server and of the readers counts (on loopback
either may do the network's work), and of the server alone; machines per second; and the time within which
ninety-nine of a hundred had everything.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import _serving, _wrk
from bench._wrk import Load, Question
from phase.fetch import fetch_artifact
from phase.fetch.release import refresh_from
from phase.release.export import export
from phase.release.manifest import CHUNK_SIZE
from phase.release.repository import Repository

#: Of nginx's: machines per second and core at least, the time of the slowest of a hundred at most.
CORE, SLOWEST = {"whole": 1.0, "shared": 1.0, "chunks": 0.9}, 1.0
#: Machines of a round, and how many of them at the same time.
MACHINES = 100
CONNECTIONS = (8, 64)
#: MiB of the release.
ARTIFACTS = {"kernel": 12, "initramfs": 7, "rootfs": 28}


class _Answer(NamedTuple):
    """An answer of a provider, as its access log has it; and whether its connection ended with it."""

    path: str
    range: str
    status: int
    bytes: int
    last: bool


class Way(NamedTuple):
    """How a machine fetches.

    Attributes:
        questions: that one machine asks, in order.
        bytes: that answer them.
        missing: how many of them are for a file that is not there.
    """

    name: str
    questions: list[Question]
    bytes: int
    missing: int

    @classmethod
    def of(cls, name: str, answers: Sequence[_Answer]) -> "Way":
        """From what was answered once."""
        return cls(
            name,
            [Question(each.path, each.range, each.last) for each in answers],
            sum(each.bytes for each in answers),
            sum(each.status == 404 for each in answers),
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd")
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    count = parser.parse_args().rounds
    _wrk.required()
    missed = []
    with tempfile.TemporaryDirectory(dir=_serving.memory()) as temporary:
        root = Path(temporary)
        # nginx reads as another user when root starts it.
        root.chmod(0o755)
        repository = _serving.publish_release(root, ARTIFACTS)
        export(Repository.open(repository), root / "exported")
        ways = list(_ways(repository, root))
        with _serving.nginx(root / "exported", root / "nginx") as peer, _serving.phase(repository) as ours:
            _serving.settle(ours)
            print(_HEAD)
            for way in ways:
                for connections in CONNECTIONS:
                    ask = partial(
                        _wrk.boots,
                        questions=way.questions,
                        connections=connections,
                        each=-(-MACHINES // connections),
                        missing=way.missing,
                    )
                    missed += _row(way.name, connections, _wrk.rounds((peer, ours), ask, count))
    print(f"load of this machine {os.getloadavg()[0]:.1f}; budgets missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


_HEAD = (
    f"{'':8}{'at the':7}{'machines/s and core':>32}   {'and the server alone':>25}   {'machines/s':>25}"
    f"   {'p99 of a boot, s':>32}\n{'way':8}{'same':7}"
    + f"{'nginx':>8} {'phase':>8} {'ratio':>7}        "
    + 2 * f"   {'nginx':>8} {'phase':>8} {'ratio':>7}"
    + f"   {'nginx':>8} {'phase':>8} {'ratio':>7}"
)


def _row(way: str, connections: int, found: Sequence[Sequence[Load]]) -> list[str]:
    """Print a row; returns what is over budget."""
    core = [max(each.answered / each.both for each in loads) for loads in found]
    alone = [max(each.answered / each.cpu for each in loads) for loads in found]
    rate = [max(each.answered / each.wall for each in loads) for loads in found]
    slowest = [min(each.p99 for each in loads) for loads in found]
    machines, waited = core[1] / core[0], slowest[1] / slowest[0]
    print(
        f"{way:8}{connections:<7}{_three(core)} (>= {CORE[way]})   {_three(alone)}   {_three(rate)}"
        f"   {_three(slowest)} (<= {SLOWEST})",
        flush=True,
    )
    where = f"{way} at {connections}"
    return [f"machines, {where}"] * (machines < CORE[way]) + [f"p99, {where}"] * (waited > SLOWEST)


def _three(values: Sequence[float]) -> str:
    return f"{values[0]:8.2f} {values[1]:8.2f} {values[1] / values[0]:7.2f}"


def _ways(repository: Path, root: Path) -> Iterator[Way]:
    whole = _recorded(repository, root, providers=1)
    yield Way.of("whole", whole)
    yield Way.of("shared", _recorded(repository, root, providers=3))
    small = [each for each in whole if each.bytes <= CHUNK_SIZE]
    chunks = [
        _Answer(each.path, f"bytes={first}-{first + CHUNK_SIZE - 1}", each.status, CHUNK_SIZE, False)
        for each in whole
        if each not in small
        for first in range(0, each.bytes, CHUNK_SIZE)
    ]
    yield Way.of("chunks", [*small, *chunks[:-1], chunks[-1]._replace(last=True)])


def _recorded(repository: Path, root: Path, providers: int) -> list[_Answer]:
    """Fetch the release as a seed does; what was asked for, and answered."""
    log = root / f"access-{providers}"
    with _serving.phase(repository, "--access-log", str(log)) as server:
        # One provider under several names: what is asked is the same.
        _boot(repository, [server.url + "/" * number for number in range(providers)])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    # A client has one connection for metadata, and one to each provider for each artifact.
    kinds = [line["path"] if line["path"].startswith("/blobs/") else "metadata" for line in lines]
    left = Counter(kinds)
    answers = []
    for line, kind in zip(lines, kinds, strict=True):
        last = left[kind] <= (1 if kind == "metadata" else providers)
        left[kind] -= 1
        answers.append(_Answer(line["path"], line.get("range", ""), line["status"], line["bytes"], last))
    return answers


def _boot(repository: Path, providers: list[str]) -> None:
    root = (repository / "metadata" / "1.root.json").read_bytes()
    end = time.monotonic() + 60
    found = refresh_from(
        providers[:1], root, channel="stable", arch="x86_64", now=datetime.now(UTC), deadline=end
    )
    for artifact in found.release.manifest.artifacts.values():
        with tempfile.TemporaryFile(dir=_serving.memory()) as out:
            fetch_artifact(artifact, providers, out.fileno(), deadline=end)


if __name__ == "__main__":
    sys.exit(main())
