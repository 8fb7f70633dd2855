"""Nodes: a machine takes jobs of another one, which is of the other architecture, and signs for them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from lab.net.firewall import Rule
from lab.net.hostport import refusal
from lab.net.nat import SYMMETRIC, Nat
from lab.net.packet import UDP
from lab.net.segment import Segment
from lab.plugin import Record
from lab.topology import Lab
from phase.jobs import receipt as receipts
from scenarios import nodes
from scenarios.images import Release
from scenarios.loop import Loop, mark
from scenarios.nodes import OTHER, PORT, Client, Node
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
    where = f"--node {node.key}@{loop.address(node.vm)}:{PORT}"
    assert client.submit(where) == "dlroW ,olleH"
    receipt = nodes.proves(client, node)
    assert receipt.engine.arch == loop.arch
    assert nodes.owners(node) == {"node"}
    # A key of its own, which the node was not told.
    client.shell.succeed("rm -r /var/lib/phase; python3 -s -m phase init")
    said = client.shell.fail(f"{client.command(where)} 2>&1")
    assert "not authorised" in said


@pytest.mark.lab(memory=1024, vcpus=0.5, seconds=90)
def test_a_node_is_found_by_what_it_can_do(loop: Loop, tmp_path: Path) -> None:
    """All that both machines know is a node of the DHT; the client asks for an architecture."""
    if why := refusal():
        pytest.skip(why)
    port = loop.lab.host_port("dht", loop.lan)
    dht = f"{port.address.ip}:{RELAY}"
    own = nodes.identity(tmp_path, "ada")
    with serving(loop.release.directory, "--port", str(RELAY), "--no-mdns", port=port):
        node_vm = nodes.system(loop, "node", loop.arch, f"phase.node={own.public_key}", dht=dht)
        client_vm = nodes.system(loop, "client", OTHER[loop.arch], "")
        client = nodes.gives_jobs(client_vm, own, tmp_path / "ada/identity.json")
        node = nodes.takes_jobs(node_vm)
        _listed(client, node, dht)
        assert client.submit(f"--dht {dht} --arch {loop.arch}") == "dlroW ,olleH"
        receipt = nodes.proves(client, node)
        assert receipt.engine.arch == loop.arch
        said = client.shell.fail(f"{client.command(f'--dht {dht} --arch {OTHER[loop.arch]}')} 2>&1")
        assert "no node with wasi-preview1" in said


def _listed(client: Client, node: Node, dht: str) -> None:
    """Wait until the client finds the node in the DHT, and under its key alone."""
    search = f"python3 -s -m phase peers --no-mdns --dht {dht} --json"
    client.shell.wait_until_succeeds(f"{search} >/tmp/peers", timeout=120)
    found = [json.loads(line)["node"] for line in client.shell.succeed("cat /tmp/peers").splitlines()]
    assert found == [node.key]


@pytest.mark.lab(memory=1024, seconds=120)
def test_a_machine_that_was_booted_takes_jobs(loop: Loop, tmp_path: Path) -> None:
    """`phase.node=` is given to the seed, and goes with it through kexec."""
    if why := refusal():
        pytest.skip(why)
    own = nodes.identity(tmp_path, "ada")
    with loop.provided():
        booted = loop.boot_vm(f"phase.node={own.public_key}")
        loop.reaches_job(booted)
    node = nodes.takes_jobs(booted)
    loop.handed_over(booted)
    laptop = loop.lab.host_port("laptop", loop.lan)
    module, receipt = tmp_path / "hello.wasm", tmp_path / "receipt"
    module.write_bytes(wat2wasm((Path(__file__).parents[1] / "fixtures/hello.wat").read_text()))
    where = f"{node.key}@{loop.address(booted)}:{PORT}"
    words = ("--state", str(tmp_path / "ada"), "--receipt", str(receipt), "--node", where, str(module))
    done = subprocess.run(
        laptop.command(sys.executable, "-m", "phase", "job", "submit", *words),
        input=b"Hello, World",
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, b"dlroW ,olleH"), done.stderr
    said = receipts.verify(
        receipt.read_bytes(), key=node.key, stdout=b"dlroW ,olleH", requester=own.public_key
    )
    assert said.engine.arch == loop.arch
    # It is the node that has signed for the boot's own job.
    assert mark(booted, "job").facts["node"] == node.key


class Apart:
    """A node and a client of the other architecture, each behind its own NAT, and a relay between them.

    Args:
        loop: the machines'.
        work: where keys are kept.
        client_nat: of the client's box; None where it is behind none.
        rules: of the node's box, whose NAT is symmetric.
        dht: whether the relay is a node of the DHT, too, and the machines know it.
    """

    def __init__(
        self,
        loop: Loop,
        work: Path,
        *,
        client_nat: Nat | None,
        rules: Sequence[Rule] = (),
        dht: bool = False,
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
        self.dht = f"{self.port.address.ip}:{RELAY}" if dht else ""
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
        node_vm = nodes.system(loop, "node", loop.arch, words, home, dht=self.dht or "off")
        client_vm = nodes.system(loop, "client", OTHER[loop.arch], "", away)
        self.client = nodes.gives_jobs(client_vm, own, work / "ada/identity.json")
        self.node = nodes.takes_jobs(node_vm)
        self.where = f"--node {self.node.key}@{self.url}"

    def relay(self) -> AbstractContextManager[str]:
        """`phase serve` on a third machine, as long as this lasts: a relay for everybody."""
        words = ["--port", str(RELAY), "--no-mdns", "--relay-for", "open"]
        words += [] if self.dht else ["--no-dht"]
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


@pytest.mark.lab(memory=1024, vcpus=0.5, seconds=120)
def test_a_node_behind_a_relay_is_found(loop: Loop, tmp_path: Path) -> None:
    """The DHT is all that UDP reaches. The node's record names its relay, and the client goes over that."""
    rules = (Rule("accept", protocol=UDP, port=RELAY), Rule("drop", protocol=UDP))
    with closing(Apart(loop, tmp_path, client_nat=None, rules=rules, dht=True)) as apart:
        client, node = apart.client, apart.node
        _listed(client, node, apart.dht)
        assert client.submit(f"--dht {apart.dht} --arch {loop.arch}") == "dlroW ,olleH"
        receipt = nodes.proves(client, node)
        assert receipt.engine.arch == loop.arch
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
