"""However much a network tells, there is room for what another one does."""

from collections.abc import Iterable
from time import monotonic
from typing import Literal

import pytest

from phase import discovery
from phase.discovery import MAX_PROVIDERS, Provider
from phase.discovery.records import Heard

Source = Literal["dht", "mdns"]


class Told:
    """What comes from all that were asked, without asking anybody."""

    problem = ""

    def __init__(self, heard: Iterable[tuple[str, Source]]) -> None:
        self._heard = [
            Heard(Provider(url, "stable", "x86_64", None, source, ""), 0) for url, source in heard
        ]

    def next(self, end: float) -> Heard | None:
        return self._heard.pop(0) if self._heard else None


def _found(heard: Iterable[tuple[str, Source]], *, mdns: bool = True) -> list[str]:
    sifter = discovery._Sifter(set(), (), mdns=mdns, gather=None)
    # It has the one method that is called.
    return [each.url for each in sifter.sift(Told(heard), monotonic() + 5)]  # type: ignore[arg-type]


FAR: list[tuple[str, Source]] = [(f"http://192.0.2.{number}:8080", "dht") for number in range(40)]
NEAR: list[tuple[str, Source]] = [(f"http://10.0.0.{number}:8080", "mdns") for number in range(40)]


def test_sixteen_answers_of_the_dht_leave_room_for_mdns() -> None:
    found = _found([*FAR, *NEAR])
    assert len(found) == MAX_PROVIDERS
    assert found == [url for url, _ in (*FAR[:8], *NEAR[:8])]


def test_where_nobody_nearby_is_asked_the_dht_has_all_the_room() -> None:
    assert _found(FAR, mdns=False) == [url for url, _ in FAR[:MAX_PROVIDERS]]


@pytest.mark.parametrize("source", ["dht", "mdns"])
def test_one_host_is_not_all_there_is(source: Source) -> None:
    many: list[tuple[str, Source]] = [(f"http://192.0.2.1:{port}", source) for port in range(1000, 1040)]
    assert _found([*many, ("http://192.0.2.2:1", source)]) == [
        *(url for url, _ in many[:2]),
        "http://192.0.2.2:1",
    ]
