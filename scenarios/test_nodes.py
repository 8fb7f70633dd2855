"""Nodes: a machine takes jobs of another one, which is of the other architecture, and signs for them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

import pytest

from lab.net.firewall import Rule
from lab.net.hostport import refusal
from lab.net.nat import SYMMETRIC, Nat
from lab.net.packet import UDP
from lab.net.segment import Segment
from lab.plugin import Record
from lab.topology import Lab
from scenarios import nodes
from scenarios.images import Release
from scenarios.loop import Loop
from scenarios.nodes import OTHER, PORT
from scenarios.serving import serving

#: The port of a relay.
RELAY = 8080

pytestmark = pytest.mark.images("x86_64", "arm64")


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(memory=1024, vcpus=0.5, seconds=90)
def test_a_job_of_the_other_architecture(loop: Loop, tmp_path: Path) -> None:
    """By `KEY@HOST:PORT`, from a client whose key the node was told; another one is refused by name."""
    own = nodes.identity(tmp_path, "ada")
    node_vm = nodes.system(loop, "node", loop.arch, f"phase.node={own.public_key}")
    client_vm = nodes.system(loop, "client", OTHER[loop.arch], "")
    client = nodes.gives_jobs(client_vm, own, tmp_path / "ada/identity.json")
    node = nodes.takes_jobs(node_vm)
    where = f"{node.key}@{loop.address(node.vm)}:{PORT}"
    assert client.submit(where) == "dlroW ,olleH"
    receipt = nodes.proves(client, node)
    assert receipt.engine.arch == loop.arch
    assert nodes.owners(node) == {"node"}
    # A key of its own, which the node was not told.
    client.shell.succeed("rm -r /var/lib/phase; python3 -s -m phase init")
    said = client.shell.fail(f"{client.command(where)} 2>&1")
    assert "not authorised" in said


class Apart:
    """A node and a client of the other architecture, each behind its own NAT, and a relay between them.

    Args:
        loop: the machines'.
        work: where keys are kept.
        client_nat: of the client's box; None where it is behind none.
        rules: of the node's box, whose NAT is symmetric.
    """

    def __init__(
        self, loop: Loop, work: Path, *, client_nat: Nat | None, rules: Sequence[Rule] = ()
    ) -> None:
        if why := refusal():
            pytest.skip(why)
        self.loop = loop
        home, self.world = loop.lan, loop.lab.segment("world")
        self.box = loop.lab.router("box", home, self.world, nat=SYMMETRIC, rules=rules)
        away = self.world
        if client_nat is not None:
            away = loop.lab.segment("away")
            loop.lab.router("away-box", away, self.world, nat=client_nat)
        self.port = loop.lab.host_port("relay", self.world)
        self.url = f"http://{self.port.address.ip}:{RELAY}"
        self._relay = ExitStack()
        self._relay.enter_context(self.relay())
        try:
            self._boot(work, home, away)
        except BaseException:
            self.close()
            raise

    def _boot(self, work: Path, home: Segment, away: Segment) -> None:
        loop = self.loop
        own = nodes.identity(work, "ada")
        words = f"phase.node={own.public_key} phase.relay={self.url}"
        node_vm = nodes.system(loop, "node", loop.arch, words, home)
        client_vm = nodes.system(loop, "client", OTHER[loop.arch], "", away)
        self.client = nodes.gives_jobs(client_vm, own, work / "ada/identity.json")
        self.node = nodes.takes_jobs(node_vm)
        self.where = f"{self.node.key}@{self.url}"

    def relay(self) -> AbstractContextManager[str]:
        """`phase serve` on a third machine, as long as this lasts: a relay for everybody."""
        words = ("--port", str(RELAY), "--no-mdns", "--no-dht", "--relay-for", "open")
        return serving(self.loop.release.directory, *words, port=self.port)

    def restart_relay(self) -> None:
        """End the relay, and start it again."""
        self._relay.close()
        self._relay.enter_context(self.relay())

    def close(self) -> None:
        """End the relay."""
        self._relay.close()


@pytest.mark.lab(memory=1024, vcpus=0.5, seconds=120)
def test_over_a_relay(loop: Loop, tmp_path: Path) -> None:
    """Each is behind its own symmetric NAT; the relay dies and comes back while a job runs."""
    with closing(Apart(loop, tmp_path, client_nat=SYMMETRIC)) as apart:
        client, node = apart.client, apart.node
        assert client.submit(apart.where) == "dlroW ,olleH"
        nodes.proves(client, node)
        assert "is direct by" not in node.log
        client.begin(apart.where)
        node.logs("is taken", times=2)
        apart.restart_relay()
        assert client.end() == "dlroW ,olleH"
        nodes.proves(client, node)
        assert "is direct by" not in node.log


@pytest.mark.lab(memory=1024, vcpus=0.5, seconds=150)
def test_from_the_relay_to_a_direct_way(loop: Loop, tmp_path: Path) -> None:
    """UDP is blocked; then it begins to get through while a job runs: its path moves, and it is not lost."""
    blocked = (Rule("drop", protocol=UDP),)
    with closing(Apart(loop, tmp_path, client_nat=None, rules=blocked)) as apart:
        client, node = apart.client, apart.node
        assert client.submit(apart.where) == "dlroW ,olleH"
        nodes.proves(client, node)
        client.begin(apart.where)
        node.logs("is taken", times=2)
        assert "is direct by" not in node.log
        apart.box.firewall.rules = ()
        # The library has tried that way when it connected, and tries it once more 5 s later.
        node.logs("is direct by", timeout=120)
        assert client.end() == "dlroW ,olleH"
        nodes.proves(client, node)
