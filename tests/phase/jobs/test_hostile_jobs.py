"""Attacks on the worker: each ends within its limits, is named, and its receipt says the truth."""

import os
import time
from collections.abc import Iterator

import pytest

from fixtures.components import COMPONENTS
from fixtures.hostile_jobs import HOSTILE, LIMITS, Hostile
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.cache import Cache
from phase.jobs.flow import Descriptor, Streams
from phase.jobs.pool import Pool
from phase.jobs.runner import Job
from phase.jobs.status import LimitHit, Rejected, Status, Trapped, explain

#: What ends late may be killed: the grace, and a machine that is busy.
_LATE = 20.0
_HELLO = b'(module (func (export "_start")))'


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(1, cache=Cache(memory_bytes=64 << 20)) as made:
        yield made


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity.ephemeral()


def _kind(status: Status) -> str:
    return status.limit if isinstance(status, LimitHit) else type(status).__name__.lower()


@pytest.mark.parametrize("hostile", [*HOSTILE, *COMPONENTS], ids=lambda hostile: hostile.name)
def test_an_attack_ends_within_its_limits_and_is_named(
    pool: Pool, identity: Identity, hostile: Hostile
) -> None:
    job, streams = hostile.job(), None
    reader, writer = os.pipe()
    if hostile.idle:
        streams = Streams(stdin=Descriptor(reader))
    began = time.monotonic()
    done = pool.run(job, streams)
    took = time.monotonic() - began
    os.close(reader)
    os.close(writer)
    assert _kind(done.status) in hostile.ends, explain(done.status)
    if isinstance(done.status, Rejected | Trapped):
        assert done.status.reason
    assert took < LIMITS.wall_seconds + _LATE
    assert done.memory_bytes is None or done.memory_bytes <= LIMITS.memory_bytes
    assert done.fuel_used is None or done.fuel_used <= LIMITS.fuel
    assert len(done.stdout) + len(done.stderr) <= LIMITS.output_bytes
    said = receipts.describe(job, done, node=identity.public_key, job_id="j", nonce="n")
    found = receipts.verify(receipts.issue(said, identity), key=identity.public_key, stdout=done.stdout)
    assert (found.status, found.fuel_used, found.memory_bytes) == (
        done.status,
        done.fuel_used,
        done.memory_bytes,
    )
    assert found.module.length == len(job.module)
    # The next job finds the pool as it was.
    assert str(pool.run(Job(_HELLO)).status) == "Exited(code=0)"
    assert pool.counts == {"worker replaced": 0, "zygote restarted": 0}


def test_there_are_enough_attacks_of_different_names() -> None:
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE) >= 40
