"""When the seed takes its machine for connected, on machines made of files; tests/boot has real cards."""

import time
from pathlib import Path

import pytest

from phase.boot import network
from phase.boot.errors import NetworkError
from phase.boot.machine import Address
from phase.boot.network import Network

GLOBAL = "fd4c4142000000000000000000000005 02 40 00 {flags} eth0\n"
LOCAL = "fe800000000000005054004c00010001 02 40 20 80 eth0\n"


class Box:
    """A machine made of files.

    Args:
        directory: where they are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        run, sys, proc = (str(directory / name) for name in ("run", "sys", "proc"))
        self.network = Network(run=run, sys=sys, proc=proc, script="/bin/true")
        (directory / "proc/net").mkdir(parents=True)
        (directory / "run").mkdir()
        (directory / "run/mode").write_text("internet\n")

    def card(self, name: str, **known: str) -> None:
        (self.directory / "run/cards" / name).mkdir(parents=True, exist_ok=True)
        for what, text in known.items():
            (self.directory / "run/cards" / name / what.replace("_", "-")).write_text(f"{text}\n")

    def inet6(self, text: str) -> None:
        (self.directory / "proc/net/if_inet6").write_text(text)

    def device(self, bus: str, name: str, **known: str) -> Path:
        path = self.directory / "sys/bus" / bus / "devices" / name
        path.mkdir(parents=True)
        for what, text in known.items():
            (path / what).write_text(f"{text}\n")
        return path

    def wait(self, seconds: float) -> Address | None:
        end = time.monotonic() + seconds
        while (found := self.network.address()) is None and time.monotonic() < end:
            time.sleep(0.01)
        return found


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    for name in ("_CARD_SECONDS", "_IPV4_SECONDS"):
        monkeypatch.setattr(network, name, 0.1)
    return Box(tmp_path)


def test_the_card_with_a_lease_connects(box: Box) -> None:
    box.card("eth0", waits="no cable")
    assert box.wait(0.05) is None
    box.card("eth1", lease="10.0.0.2")
    assert box.wait(1) == Address("eth1", "10.0.0.2")


def test_ipv6_only_connects_when_ipv4_does_not_come(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(box.network, "learn_name_servers", asked.append)
    box.card("eth0", waits="no DHCP server has answered yet")
    box.inet6(LOCAL + GLOBAL.format(flags="40"))
    assert box.wait(0.2) is None, "tentative: it may be another machine's"
    box.inet6(LOCAL + GLOBAL.format(flags="80"))
    assert box.wait(2) == Address("eth0", "fd4c:4142::5")
    assert asked == [["eth0"]]


def test_ipv6_waits_for_ipv4(box: Box) -> None:
    box.card("eth0", waits="no DHCP server has answered yet")
    box.inet6(GLOBAL.format(flags="80"))
    assert box.network.address() is None
    box.card("eth0", lease="10.0.0.2")
    assert box.network.address() == Address("eth0", "10.0.0.2")


def test_an_address_of_its_own_connects(box: Box) -> None:
    box.card("eth0", waits="no DHCP server answers", link_local="169.254.1.2")
    assert box.wait(1) == Address("eth0", "169.254.1.2")


def test_an_address_by_a_router_reaches_further_than_one_of_its_own(box: Box) -> None:
    """Whoever asks first may ask late, on a slow machine."""
    (box.directory / "run/resolv").write_text("nameserver 10.0.0.1\n")
    box.card("eth0", waits="no DHCP server answers", link_local="169.254.1.2")
    box.inet6(GLOBAL.format(flags="00"))
    assert box.network.address() == Address("eth0", "fd4c:4142::5")


def test_what_is_waited_for_is_known_for_each_card(box: Box) -> None:
    assert box.network.waits() == ""
    box.card("eth0", waits="no cable")
    box.card("eth1", waits="no DHCP server answers")
    box.card("eth2")
    assert box.network.waits() == "eth0: no cable; eth1: no DHCP server answers; eth2: starting"


def test_no_driver_no_card_is_known_soon_and_said(box: Box) -> None:
    with pytest.raises(NetworkError, match="card that this seed can drive: this machine shows none"):
        box.wait(60)
    box.device("pci", "0000:00:01.0", **{"class": "0x060000"}, vendor="0x8086", device="0x1237")
    driven = box.device("pci", "0000:00:02.0", **{"class": "0x020000"}, vendor="0x1af4", device="0x1000")
    (driven / "driver").mkdir()
    box.device("pci", "0000:00:03.0", **{"class": "0x020000"}, vendor="0x8086", device="0x100e")
    box.device("usb", "1-1", idVendor="0bda", idProduct="8153")
    box.device("usb", "1-1:1.0", bInterfaceClass="ff")
    box.device("usb", "1-1:1.1", bInterfaceClass="03")
    with pytest.raises(NetworkError, match=r": no driver for PCI 8086:100e, USB 0bda:8153") as caught:
        box.wait(60)
    assert "driver" in caught.value.hint


def test_a_card_that_comes_late_is_taken(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    assert box.wait(0.05) is None
    box.card("eth0", lease="10.0.0.2")
    time.sleep(0.1)
    assert box.wait(1) == Address("eth0", "10.0.0.2")


def test_foreign_files_do_not_stop_it(box: Box) -> None:
    """The script quotes a server's own words; names of interfaces may hold nearly everything."""
    box.card("e*th\x1b[0", waits="the DHCP server refused: \x1b[31m\xff" + "z" * 9000)
    box.inet6("nonsense\n" + "z" * 70_000)
    box.card("eth1", waits="the DHCP server refused: x\nphase-mark y")
    assert box.wait(0.15) is None
    assert len(box.network.waits()) < 300
    assert box.network.waits().isprintable()
    assert "phase-mark" not in box.network.waits()


def test_name_servers_that_dhcp_told_of_are_enough(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.card("eth0")
    (box.directory / "run/resolv").write_text("nameserver 10.0.0.1\n")
    from phase.boot import advertisement

    monkeypatch.setattr(advertisement, "ask", lambda names: pytest.fail("routers were asked"))
    box.network.learn_name_servers(["eth0"])


@pytest.mark.parametrize("written", [None, "", "local", "intern"])
def test_routers_are_asked_for_name_servers_only_where_the_mode_says_so(
    box: Box, monkeypatch: pytest.MonkeyPatch, written: str | None
) -> None:
    box.card("eth0")
    mode = box.directory / "run/mode"
    mode.unlink() if written is None else mode.write_text(written)
    from phase.boot import advertisement

    monkeypatch.setattr(advertisement, "ask", lambda names: pytest.fail("routers were asked"))
    box.network.learn_name_servers(["eth0"])


def test_name_servers_that_routers_told_of_are_written_for_the_script(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phase.boot import advertisement

    script = box.directory / "script"
    script.write_text(f'#!/bin/sh\necho "$*" "$(env | grep -c HOME)" >> {box.directory}/ran\n')
    script.chmod(0o755)
    box.network = Network(run=str(box.directory / "run"), script=str(script))
    asked: list[list[str]] = []

    def ask(names: list[str]) -> dict[str, advertisement.Told]:
        asked.append(names)
        return {"eth1": advertisement.Told(("fe80::1", "2001:db8::1"), ("lab.example",))}

    monkeypatch.setattr(advertisement, "ask", ask)
    box.card("eth0")
    box.card("eth1")
    box.network.learn_name_servers(["eth0", "eth1"])
    assert asked == [["eth0", "eth1"]]
    card = box.directory / "run/cards/eth1"
    assert (card / "names6").read_text() == (
        "nameserver fe80::1%eth1\nnameserver 2001:db8::1\nsearch lab.example\n"
    )
    assert [path.name for path in card.iterdir()] == ["names6"]
    # With nothing of this process's surroundings, and it has ended.
    assert (box.directory / "ran").read_text() == "names 0\n"


def test_name_servers_of_two_interfaces_take_turns(box: Box) -> None:
    """Where the first says that there is no such name, a resolver asks no other."""
    first = box.directory / "run/first"
    box.card("eth0", names="nameserver 10.0.0.1")
    box.card("eth1")
    box.network.turn_name_servers()
    assert not first.exists(), "there is nobody else to ask"
    box.card("eth2", names6="nameserver 2001:db8::1")
    turns = []
    for _ in range(3):
        box.network.turn_name_servers()
        turns.append(first.read_text().strip())
    assert turns == ["eth2", "eth0", "eth2"]


def test_a_card_that_is_pulled_out_while_routers_are_asked_does_not_end_the_boot(
    box: Box, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from phase.boot import advertisement

    told = {"eth1": advertisement.Told(("2001:db8::1",))}
    monkeypatch.setattr(advertisement, "ask", lambda names: told)
    box.card("eth0", waits="no DHCP server answers", link_local="169.254.1.2")
    box.inet6(GLOBAL.format(flags="00"))
    assert box.network.address() == Address("eth0", "fd4c:4142::5")
    assert "network: no name server is known: No such file or directory" in capfd.readouterr().err
