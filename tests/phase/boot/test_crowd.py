"""When a seed shares what it fetches, and with whom."""

import threading
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from fixtures.socks import Socks
from phase.boot import assembly, main
from phase.boot.fake import FakeMachine, StartedError
from phase.boot.machine import Kernel
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


@dataclass
class Held(FakeMachine):
    """A machine that has its release, and takes long to load it."""

    there: threading.Event = field(default_factory=threading.Event)
    goes: threading.Event = field(default_factory=threading.Event)

    def load(self, kernel: Kernel) -> None:
        """See `FakeMachine`."""
        self.there.set()
        self.goes.wait(60)
        super().load(kernel)

    def boot(self) -> None:
        """Boot to the handoff."""
        with suppress(StartedError):
            main.main(self)


def test_a_seed_takes_the_release_from_another(
    boot: Boot, publish: Publish, serve: Serve, crowds: list[Crowd], capfd: pytest.CaptureFixture[str]
) -> None:
    """Both ask a real provider, which names the one to the other."""
    publish()
    url = serve()
    later = boot.prepared(url)
    first = Held(later.arch, line=later.line, etc=later.etc)
    thread = threading.Thread(target=first.boot)
    thread.start()
    assert first.there.wait(60)
    capfd.readouterr()
    assert boot(url)[0] == 0
    said = capfd.readouterr().err
    first.goes.set()
    thread.join(60)
    assert first.did[-1] == "start"
    port = crowds[0]._sharing and crowds[0]._sharing.port
    assert f"http://127.0.0.1:{port}=" in said
    assert first.loaded[0][1] == boot.machine.loaded[0][1]
