"""Jobs of a pool of warm workers: how many a second, how long one takes, and what of it is what.

    python -m bench.pool [JOBS] [SLOTS]

Runs hello again and again, kept compiled, from as many threads as there are slots. Prints jobs a second and
the time from submission to the signed receipt (budgets: at least 300 a second with two slots, half of them
within 5 ms), and the processor time of each process for a job. On a busy machine only the processor times
mean something.
"""

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench._modules import large
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.cache import Cache
from phase.jobs.pool import Pool
from phase.jobs.runner import Job, execute

_RATE, _MIDDLE_MS = 300, 5.0
_HELLO = Path(__file__).parents[1] / "fixtures/hello.wat"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pool")
    parser.add_argument("jobs", type=int, nargs="?", default=1000)
    parser.add_argument("slots", type=int, nargs="?", default=2)
    given = parser.parse_args()
    job = Job(_HELLO.read_bytes(), stdin=b"Hello, World")
    with Pool(given.slots, cache=Cache(memory_bytes=64 << 20)) as pool:
        pool.wait_ready()
        _many(pool, job, 20, given.slots)
        before = _processor(pool)
        rate, times = _many(pool, job, given.jobs, given.slots)
        spent = [
            (after - was) / given.jobs * 1000 for was, after in zip(before, _processor(pool), strict=True)
        ]
        middle, late = statistics.median(times) * 1000, sorted(times)[len(times) * 99 // 100] * 1000
        print(
            f"{rate:.0f} jobs a second (budget {_RATE}); half within {middle:.2f} ms "
            f"(budget {_MIDDLE_MS}), 99 of 100 within {late:.2f} ms"
        )
        print("processor time of a job: caller {:.2f} ms, zygote {:.2f} ms, worker {:.2f} ms".format(*spent))
        _compared(pool)
    return 0 if rate >= _RATE and middle <= _MIDDLE_MS else 1


def _many(pool: Pool, job: Job, jobs: int, slots: int) -> tuple[float, list[float]]:
    """Jobs a second, and the seconds of each."""
    identity, times = Identity.ephemeral(), list[float]()

    def submit() -> None:
        for number in range(jobs // slots):
            begun = time.perf_counter()
            done = pool.run(job)
            assert done.stdout == b"dlroW ,olleH", done
            said = receipts.describe(job, done, node=identity.public_key, job_id=f"{number}", nonce="")
            receipts.issue(said, identity)
            times.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=submit) for _ in range(slots)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(times) / (time.perf_counter() - begun), times


def _compared(pool: Pool) -> None:
    """A small and a large module: by a worker of its own, and by the pool, compiled anew and kept."""
    for name, module in (("5 kB", large(5_000)), ("2 MB", large(2_000_000))):
        job = Job(module)
        alone = _median(partial(execute, job))
        first = _took(partial(pool.run, job))
        kept = _median(partial(pool.run, job))
        print(f"{name}: worker of its own {alone:.1f} ms, pool {first:.1f} ms, kept compiled {kept:.1f} ms")


def _median(run: Callable[[], object]) -> float:
    return statistics.median(_took(run) for _ in range(5))


def _took(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1000


def _processor(pool: Pool) -> tuple[float, float, float]:
    """Processor seconds so far: of this process, of the zygote, of its workers that have ended."""
    own = os.times()
    fields = Path(f"/proc/{pool.zygote}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    user, system, workers_user, workers_system = (int(field) / tick for field in fields[11:15])
    return own.user + own.system, user + system, workers_user + workers_system


if __name__ == "__main__":
    sys.exit(main())
