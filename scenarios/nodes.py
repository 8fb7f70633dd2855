"""Booted systems that give jobs to each other."""

from dataclasses import dataclass
from pathlib import Path

from lab.net.segment import Segment
from lab.qemu.vm import VM
from lab.shell import Shell
from phase.identity import Identity
from phase.jobs import receipt as receipts
from scenarios.images import CHANNEL
from scenarios.loop import MEMORY, Loop

#: A node's port, of UDP and of TCP.
PORT = 8470
OTHER = {"x86_64": "arm64", "arm64": "x86_64"}
HELLO = "/usr/share/phase/hello.wasm"
_LOG = "/run/phase/peers.log"
_STATE = "/var/lib/phase"


@dataclass(frozen=True)
class Node:
    """A machine that takes jobs.

    Attributes:
        vm: the machine.
        key: its public key, which clients pin.
    """

    vm: VM
    key: str

    @property
    def log(self) -> str:
        """What the node has written so far."""
        return self.vm.shell().succeed(f"cat {_LOG}")

    def logs(self, text: str, *, times: int = 1, timeout: float = 60) -> None:
        """Wait until the node has written lines with a text, so many."""
        written = f"[ $(grep -c '{text}' {_LOG}) -ge {times} ]"
        self.vm.shell().wait_until_succeeds(written, timeout=timeout)


@dataclass(frozen=True)
class Client:
    """A machine that gives jobs.

    Attributes:
        vm: the machine.
        key: its public key.
        shell: on its console.
    """

    vm: VM
    key: str
    shell: Shell

    def submit(self, where: str, *, timeout: float = 90) -> str:
        """Run the hello job at a node; what came out.

        Args:
            where: options that say at which, such as `--node KEY@HOST:PORT`.
            timeout: seconds.
        """
        return self.shell.succeed(self.command(where), timeout=timeout)

    def begin(self, where: str) -> None:
        """Begin a hello job whose input goes on once `end` is called."""
        half = "(printf 'Hello, '; until [ -e /tmp/go ]; do sleep 0.2; done; printf World)"
        job = self.command(where, stdin=half)
        self.shell.succeed(
            f"rm -f /tmp/go /tmp/code; ({job} >/tmp/out 2>&1; echo $? >/tmp/code) </dev/null &"
        )

    def end(self, *, timeout: float = 90) -> str:
        """Give the rest of the input; what came out."""
        self.shell.succeed(": >/tmp/go")
        self.shell.wait_until_succeeds("[ -s /tmp/code ]", timeout=timeout)
        said = self.shell.succeed("cat /tmp/out")
        assert self.shell.succeed("cat /tmp/code") == "0", said
        return said

    def command(self, where: str, *, stdin: str = "printf 'Hello, World'") -> str:
        """The hello job in words of a shell.

        Args:
            where: options that say at which node.
            stdin: what prints its input.
        """
        words = f"--receipt /tmp/receipt {where} {HELLO}"
        return f"{stdin} | python3 -s -m phase job submit {words}"


def identity(directory: Path, name: str) -> Identity:
    """The key of a client, known before its machine starts."""
    (directory / name).mkdir(mode=0o700)
    return Identity.load_or_create(directory / name / "identity.json")


def system(
    loop: Loop, name: str, arch: str, words: str, segment: Segment | None = None, *, dht: str = "off"
) -> VM:
    """A booted system on a segment, switched on. It neither hears nor answers multicast DNS.

    Args:
        loop: whose release it boots.
        name: of the machine.
        arch: of the machine.
        words: for its command line.
        segment: the loop's own when left out.
        dht: a node of the DHT that it is told, `HOST:PORT`.
    """
    work = loop.work / name
    work.mkdir(exist_ok=True)
    line = f"phase.channel={CHANNEL} phase.mdns=off phase.dht={dht} {words}".strip()
    # No provider beside what is looked at: under emulation, its start takes most of the processor.
    kernel, initrd, line = loop.release.system(arch, work, line, serves=())
    vm = loop.lab.vm(
        name, arch=arch, memory=MEMORY, kernel=kernel, initrd=initrd, append=line,
        segments=(segment or loop.lan,),
    )  # fmt: skip
    vm.start()
    return vm


def takes_jobs(vm: VM) -> Node:
    """Wait until a machine takes jobs; its key is what it says on its console."""
    said = vm.console.wait_line(r"phase: node ([0-9a-f]{64})\b", timeout=120)
    return Node(vm, said[1])


def gives_jobs(vm: VM, own: Identity, file: Path) -> Client:
    """Wait until a machine has booted, and give it its key."""
    vm.wait_mark("system", timeout=120)
    shell = vm.shell()
    shell.put(f"{_STATE}/identity.json", file.read_bytes())
    shell.succeed(f"chmod 600 {_STATE}/identity.json; chmod 700 {_STATE}")
    return Client(vm, own.public_key, shell)


def proves(client: Client, node: Node) -> receipts.Receipt:
    """The receipt that a client has kept verifies against the node's pinned key; what it says."""
    envelope = client.shell.succeed("cat /tmp/receipt").encode()
    return receipts.verify(envelope, key=node.key, stdout=b"dlroW ,olleH", requester=client.key)


def owners(node: Node) -> set[str]:
    """The users whose processes are the node and its workers."""
    each = 'stat -c %U /proc/$pid; tr "\0" " " </proc/$pid/cmdline; echo'
    loop = "for file in /sys/fs/cgroup/jobs/*/cgroup.procs; do while read -r pid; do"
    told = node.vm.shell().succeed(f"{loop} {each}; done <$file; done")
    lines = told.splitlines()
    return {user for user, line in zip(lines[::2], lines[1::2], strict=True) if "python3" in line}
