"""When a seed shares what it fetches, and with whom."""

import pytest

from fixtures.socks import Socks
from phase.boot import assembly
from phase.fetch.crowd import Crowd
from tests.phase.boot.conftest import Boot, Publish, Serve


@pytest.fixture
def crowds(monkeypatch: pytest.MonkeyPatch) -> list[Crowd]:
    """Every crowd that a boot has looked for."""
    made: list[Crowd] = []

    class Noted(Crowd):
        def start(self) -> None:
            made.append(self)
            super().start()

    monkeypatch.setattr(assembly, "Crowd", Noted)
    return made


@pytest.mark.parametrize("words", ["", "phase.mode=local", "phase.share=on"])
def test_a_seed_shares_until_the_handoff(
    boot: Boot, publish: Publish, serve: Serve, crowds: list[Crowd], words: str
) -> None:
    publish()
    assert boot(serve(), words=words)[0] == 0
    (crowd,) = crowds
    assert crowd._closed
    assert crowd._sharing is not None
    assert not crowd._sharing._thread.is_alive()
    assert len(crowd._transfers) == 3


def test_a_seed_that_may_not_share_does_not(
    boot: Boot, publish: Publish, serve: Serve, crowds: list[Crowd]
) -> None:
    publish()
    assert boot(serve(), words="phase.share=off")[0] == 0
    assert crowds == []


def test_in_private_mode_nobody_is_told(
    boot: Boot, publish: Publish, serve: Serve, proxy: Socks, tor: str, crowds: list[Crowd]
) -> None:
    publish()
    assert boot(serve(), words=f"phase.mode=private phase.tor={tor}")[0] == 0
    assert crowds == []
    # Nor in another mode, through Tor: nobody is near there.
    assert boot(serve(), words="phase.share=on")[0] == 0
    assert len(crowds) == 1


def test_a_boot_that_fails_shares_no_more_than_it_has(
    boot: Boot, publish: Publish, serve: Serve, crowds: list[Crowd]
) -> None:
    """A second attempt begins anew: there is one crowd at a time."""
    made = publish()
    rootfs = made.manifest("stable", boot.machine.arch).artifacts["rootfs"].sha256
    (boot.directory / "r/blobs/sha256" / rootfs).unlink()
    assert boot(serve(), words="phase.timeout=5")[0] == 1
    assert len(crowds) > 1
    assert all(crowd._closed for crowd in crowds[:-1])
