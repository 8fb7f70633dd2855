"""A DHT of a thousand nodes of ours against one of the library kademlia: calm, then with churn and liars.

    python -m bench.dht [--nodes N] [--seconds S] [--seed N] [--only ours|library]

Real nodes with UDP sockets on loopback, each on an address of its own, in four processes; both kinds on the
same addresses, with the same providers, liars and lookups. Twenty providers announce a channel each.

First nine hundred honest nodes, and nothing happens. Then a hundred liars of three kinds join
(`bench/_dht_liars.py`), most of them around the place of one channel. Twenty other providers announce; a
fifth of all nodes end without a word, evenly over the time, and as many new ones join, while half of the
lookups are for the channel under attack. At last, machines look that know three honest nodes and nothing
else, as a seed does that boots.

A lookup succeeds when it brings the true announcement of the one provider of its channel. Hops: 1 where a
node that the asker knew has it, 2 where one has it that such a node named. Messages: all datagrams that the
asker sends and gets, until it has the announcement; and until its search ends, which for ours goes on for
more providers. On two cores, times are for comparison only.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bench._dht_nodes import Looked, Wanted
from bench._dht_town import Town, town

#: Least success of ours: calm, and in trouble; and its share of the library's messages, hops and time.
CALM, TROUBLE = 0.995, 0.95
PROVIDERS, CHURN, LIARS = 20, 0.2, 0.1


class Row(NamedTuple):
    """What a series of lookups came to; times in ms."""

    success: float
    hops: float
    messages: float
    whole: float
    p50: float
    p99: float

    @classmethod
    def of(cls, looked: Sequence[Looked]) -> "Row":
        """Of those that found it, except for `success` and `whole`."""
        found = [each for each in looked if each.found]
        times = sorted(each.ms for each in found) or [0.0]
        return cls(
            len(found) / len(looked),
            statistics.fmean(each.hops for each in found) if found else 0.0,
            statistics.fmean(each.messages for each in found) if found else 0.0,
            statistics.fmean(each.all for each in looked),
            statistics.median(times),
            times[int(len(times) * 0.99)],
        )

    def __str__(self) -> str:
        return (
            f"success {self.success:.3f}  hops {self.hops:4.2f}  messages {self.messages:6.1f}"
            f"  to the end {self.whole:6.1f}  p50 {self.p50:7.1f} ms  p99 {self.p99:7.1f} ms"
        )


class _Asked(NamedTuple):
    nodes: int
    seconds: float
    lookups: int
    seed: int


async def _series(
    look: Callable[[Wanted], Awaitable[Looked]], wanted: Sequence[Wanted], seconds: float
) -> list[Looked]:
    """Lookups one after the other, evenly over a time, whether or not those before have ended."""
    tasks = []
    for each in wanted:
        tasks.append(asyncio.ensure_future(look(each)))
        await asyncio.sleep(seconds / len(wanted))
    return list(await asyncio.gather(*tasks))


async def _measure(kind: str, asked: _Asked) -> dict[str, Row]:
    rows: dict[str, Row] = {}

    def tell(name: str, looked: Sequence[Looked]) -> None:
        rows[name] = Row.of(looked)
        print(f"{kind:8} {name:24} {rows[name]}", flush=True)

    liars = round(asked.nodes * LIARS)
    async with town(kind, asked.seed) as here:
        begun = time.monotonic()
        await here.build(asked.nodes - liars)
        print(f"{kind:8} {len(here.honest)} nodes after {time.monotonic() - begun:.0f} s", flush=True)
        here.choose("calm", PROVIDERS)
        _costs(kind, "announcing", await here.publish())
        calm = [here.wanted[n % PROVIDERS] for n in range(asked.lookups)]
        tell("calm", await _series(here.look, calm, asked.seconds))
        # Others: what is announced before an attack is found until it expires.
        here.choose("trouble", PROVIDERS)
        await here.attack(liars)
        _costs(kind, "announcing, attacked", await here.publish())
        await _trouble(here, asked, tell)
        _costs(kind, "joining", here.joined)
    return rows


async def _trouble(here: Town, asked: _Asked, tell: Callable[[str, Sequence[Looked]], None]) -> None:
    others = here.wanted[1:]
    mixed = [here.attacked if n % 2 else others[n % len(others)] for n in range(asked.lookups)]
    churn = asyncio.ensure_future(here.churn(round(asked.nodes * CHURN), asked.seconds))
    looked = await _series(here.look, mixed, asked.seconds)
    await churn
    tell("trouble", looked)
    tell("  the place attacked", looked[1::2])
    tell("  other places", looked[::2])
    looked = await _series(here.boot, mixed[: asked.lookups // 2], asked.seconds / 2)
    tell("a machine that boots", looked)


def _costs(kind: str, what: str, each: Sequence[Sequence[float]]) -> None:
    known, messages, size = (statistics.fmean(one[n] for one in each) for n in range(3))
    print(f"{kind:8} {what}: {known:.1f} nodes, {messages:.0f} messages, {size / 1000:.1f} kB", flush=True)


def _compare(ours: dict[str, Row], library: dict[str, Row]) -> None:
    for name, row in ours.items():
        other = library[name]
        ratios = [
            f"{word} {mine / theirs:.2f}x" if theirs else f"{word} -"
            for word, mine, theirs in zip(Row._fields, row, other, strict=True)
        ]
        print(f"ours / library: {name:24} {'  '.join(ratios)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=100.0, help="of each series of lookups")
    parser.add_argument("--lookups", type=int, default=300, help="of each series")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("ours", "library"))
    given = parser.parse_args()
    asked = _Asked(given.nodes, given.seconds, given.lookups, given.seed)
    kinds = [given.only] if given.only else ["ours", "library"]
    rows = {kind: asyncio.run(_measure(kind, asked)) for kind in kinds}
    if len(rows) == 2:
        _compare(rows["ours"], rows["library"])
    ours = rows.get("ours")
    if ours is None:
        return 0
    least = min(row.success for name, row in ours.items() if name != "calm")
    print(f"success of ours: calm {ours['calm'].success:.3f} (budget {CALM}), least {least:.3f} ({TROUBLE})")
    return 0 if ours["calm"].success >= CALM and least >= TROUBLE else 1


if __name__ == "__main__":
    sys.exit(main())
