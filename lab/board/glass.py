"""Glass boards: QEMU behind a serial line and a power switch, and nothing else to hold it by.

For trying out and proving what the lab does with boards, on a desk without one. `python -m lab.board.glass
DIR --arch arm64` puts one on, writes `DIR/board.toml` for it, and serves its line and its switch until it is
ended. The line runs at its speed, and drops and garbles bytes as told.
"""

import argparse
import contextlib
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import serial
from serial.rfc2217 import PortManager

from lab.children import dies_with_us

CONSOLES = {"x86_64": "ttyS0,115200", "arm64": "ttyAMA0,115200"}
#: Where distributions put U-Boot for QEMU's ARM64 machine.
_UBOOT = ("/usr/lib/u-boot/qemu_arm64/u-boot.bin", "/usr/share/u-boot/qemu_arm64/u-boot.bin")
#: Bytes per second at 115200 bits, eight of ten carrying data.
_RATE = 11_520
_SLICE = 115
_MACHINES = {
    "x86_64": ["qemu-system-x86_64", "-machine", "q35", "-cpu", "max"],
    "arm64": ["qemu-system-aarch64", "-machine", "virt,gic-version=2", "-cpu", "cortex-a57"],
}
_COMMANDS = (
    "load virtio 0 ${kernel_addr_r} kernel",
    "load virtio 0 ${ramdisk_addr_r} initrd",
    "setenv bootargs {cmdline}",
    "booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdtcontroladdr}",
)


class Noise:
    """Drops and garbles bytes, one in so many, by a seed."""

    def __init__(self, rate: float, seed: str) -> None:
        self._rate = rate
        self._random = random.Random(seed)  # noqa: S311  repeatable, not secret

    def __call__(self, data: bytes) -> bytes:
        """What arrives of it."""
        if not self._rate:
            return data
        arrived = bytearray()
        for byte in data:
            draw = self._random.random()
            if draw >= self._rate:
                arrived.append(byte)
            elif draw < self._rate / 2:
                arrived.append(byte ^ 1 << self._random.randrange(8))
        return bytes(arrived)


class Glass:
    """One glass board: the process that is its desk.

    Args:
        directory: for its files.
        arch: its architecture.
        memory: MiB.
        loader: whether it stops at a boot loader's prompt; its firmware loads the medium otherwise.
        noise: one byte in so many is dropped or garbled, each way: 0 to 1.
        seed: what the noise comes from.
    """

    def __init__(
        self, directory: Path, arch: str, *, memory: int, loader: bool, noise: float, seed: str
    ) -> None:
        self._directory = directory
        self._arch = arch
        self._memory = memory
        self._loader = loader
        self._process: subprocess.Popen[bytes] | None = None
        self._uart: socket.socket | None = None
        self._noise = (Noise(noise, f"{seed}/in"), Noise(noise, f"{seed}/out"))
        self._medium = directory / "medium"
        self._medium.mkdir(exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "uart"))
        self._listener.listen(1)

    def argv(self, cable: tuple[str, str] | None) -> list[str]:
        """QEMU's command line: a UART, a card, a medium, and no monitor."""
        words = [*_MACHINES[self._arch], "-accel", "tcg,tb-size=96", "-m", f"{self._memory}M"]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-name", "glass,process=lab-glass"]
        words += ["-chardev", f"socket,id=uart,path={self._directory / 'uart'}", "-serial", "chardev:uart"]
        words += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
        if cable:
            board, lab = cable
            sockets = f"local.type=unix,local.path={board},remote.type=unix,remote.path={lab}"
            words += ["-netdev", f"dgram,id=net,{sockets}"]
            words += ["-device", "virtio-net-pci,netdev=net,mac=52:54:00:b0:a4:d0,romfile="]
        if self._loader:
            words += ["-bios", next((path for path in _UBOOT if Path(path).exists()), _UBOOT[0])]
            words += ["-drive", f"if=none,id=medium,format=raw,readonly=on,file=fat:{self._medium}"]
            return [*words, "-device", "virtio-blk-pci,drive=medium"]
        line = (self._medium / "cmdline").read_text().strip()
        return [*words, "-kernel", str(self._medium / "kernel"), "-initrd", str(self._medium / "initrd"),
                "-append", line]  # fmt: skip

    def on(self, cable: tuple[str, str] | None) -> None:
        """Give it power."""
        if self._process is not None:
            return
        with (self._directory / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(cable),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=dies_with_us(),
            )
        self._listener.settimeout(30)
        self._uart = self._listener.accept()[0]
        self._uart.settimeout(0.05)

    def off(self) -> None:
        """Take its power away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._uart is not None:
            self._uart.close()
            self._uart = None

    def receive(self) -> bytes:
        """What came over the line from the board; nothing when it is off, or silent for a moment."""
        uart = self._uart
        try:
            data = uart.recv(_SLICE) if uart is not None else b""
        except OSError:
            data = b""
        # The line's own speed; a board that is off is asked again in a while.
        time.sleep(len(data) / _RATE if data else 0.01)
        return self._noise[0](data)

    def transmit(self, data: bytes) -> None:
        """Send to the board; who is off hears nothing."""
        for start in range(0, len(data), _SLICE):
            piece = data[start : start + _SLICE]
            time.sleep(len(piece) / _RATE)
            uart = self._uart
            if uart is not None:
                with contextlib.suppress(OSError):
                    uart.sendall(self._noise[1](piece))


def pty_line(glass: Glass, path: Path) -> str:
    """Offer the line as a terminal; returns its path."""
    master, slave = os.openpty()
    tty.setraw(slave)
    path.unlink(missing_ok=True)
    path.symlink_to(os.ttyname(slave))
    os.set_blocking(master, False)

    def outward() -> None:
        while True:
            data = glass.receive()
            # Without a reader it does not wait: a UART has no buffer.
            with contextlib.suppress(BlockingIOError):
                os.write(master, data)

    def inward() -> None:
        while True:
            try:
                data = os.read(master, _SLICE)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            glass.transmit(data)

    _both(outward, inward)
    return str(path)


def rfc2217_line(glass: Glass) -> str:
    """Offer the line to one client after another over RFC 2217, on loopback; returns its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    # What a client sets is answered from here; the line itself has one speed.
    settings: Any = serial.serial_for_url("loop://", baudrate=115_200)
    # One client after another, and who left is waited for only until the next byte.
    current: list[tuple[socket.socket, PortManager]] = []

    def outward() -> None:
        while True:
            data = glass.receive()
            for client, manager in current[-1:]:
                with contextlib.suppress(OSError):
                    client.sendall(b"".join(manager.escape(data)))

    def inward() -> None:
        while True:
            client = listener.accept()[0]
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client, contextlib.suppress(OSError):
                current.append((client, PortManager(settings, cast(Any, _Replies(client)))))
                while data := client.recv(_SLICE):
                    glass.transmit(b"".join(current[-1][1].filter(data)))
            current.clear()

    _both(outward, inward)
    return f"rfc2217://127.0.0.1:{listener.getsockname()[1]}"


class _Replies:
    """Where pyserial writes what the protocol answers."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._client.sendall(data)


def _both(*loops: Callable[[], None]) -> None:
    for loop in loops:
        threading.Thread(target=loop, name="glass", daemon=True).start()


def describe(glass: Path, arch: str, url: str, *, loader: bool, append: str) -> Path:
    """Write its board file; returns its path."""
    this = shlex.join([sys.executable, "-m", "lab.board.glass"])
    here = shlex.quote(str(glass))
    lines = [
        f'name = "glass-{arch}"',
        f'arch = "{arch}"',
        f'console = "{CONSOLES[arch]}"',
        f"append = {json.dumps(append)}",
        "[serial]",
        f"url = {json.dumps(url)}",
        "[power]",
        f"on = {json.dumps(f'{this} --switch on {here}')}",
        f"off = {json.dumps(f'{this} --switch off {here}')}",
        "pause = 0.2",
        "[medium]",
        f"write = {json.dumps(f'cp $LAB_MEDIUM/* {here}/medium/')}",
        "[network]",
        'uplink = "sockets"',
    ]
    if loader:
        lines += ["[loader]", 'prompt = "=> "', f"commands = {json.dumps(_COMMANDS)}"]
    path = glass / "board.toml"
    temporary = path.with_suffix(".new")
    temporary.write_text("\n".join([*lines, ""]))
    temporary.replace(path)
    return path


def serve_switch(glass: Glass, path: Path) -> None:
    """Do what `--switch` asks, one after another."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        while True:
            client, _ = listener.accept()
            with client:
                asked = json.loads(client.recv(4096))
                try:
                    if asked["to"] == "on":
                        glass.on(tuple(asked["cable"]) if asked["cable"] else None)
                    else:
                        glass.off()
                    client.sendall(b"done")
                except OSError as error:
                    client.sendall(str(error).encode())


def switch(directory: Path, to: str) -> int:
    """Ask a running glass board's process for power."""
    cable = [os.environ.get(name, "") for name in ("LAB_CABLE_BOARD", "LAB_CABLE_LAB")]
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(40)
        asking.connect(str(directory / "switch"))
        asking.sendall(json.dumps({"to": to, "cable": cable if all(cable) else None}).encode())
        answer = asking.recv(4096).decode()
    if answer != "done":
        print(answer, file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def running(directory: Path, arch: str, *options: str) -> Iterator[Path]:
    """A glass board in a process of its own; gives its board file.

    Args:
        directory: for its files; with a short path.
        arch: its architecture.
        options: of this program.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.board.glass", str(directory), "--arch", arch, *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    said = cast(IO[str], process.stdout)
    try:
        yield Path(said.readline().strip())
    finally:
        process.terminate()
        process.wait()
        said.close()


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m lab.board.glass", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--arch", choices=tuple(CONSOLES), default="x86_64")
    parser.add_argument("--line", choices=("pty", "rfc2217"), default="pty")
    parser.add_argument("--loader", action="store_true", help="stop at U-Boot's prompt (arm64)")
    parser.add_argument("--memory", type=int, default=512, help="MiB (default: 512)")
    parser.add_argument("--noise", type=float, default=0.0, help="part of the bytes that suffer, 0 to 1")
    parser.add_argument("--seed", default="0", help="what the noise comes from")
    parser.add_argument("--append", default="", help="more words for its command line")
    parser.add_argument("--switch", choices=("on", "off"), help="switch one that runs")
    options = parser.parse_args()
    directory: Path = options.directory.absolute()
    if options.switch:
        return switch(directory, options.switch)
    if options.loader and options.arch != "arm64":
        parser.error("--loader is there for arm64 only")
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("uart", "switch"):
        (directory / name).unlink(missing_ok=True)
    glass = Glass(
        directory,
        options.arch,
        memory=options.memory,
        loader=options.loader,
        noise=options.noise,
        seed=options.seed,
    )
    url = pty_line(glass, directory / "tty") if options.line == "pty" else rfc2217_line(glass)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=serve_switch, args=(glass, directory / "switch"), daemon=True).start()
    path = describe(directory, options.arch, url, loader=options.loader, append=options.append)
    while not (directory / "switch").exists():
        time.sleep(0.01)
    print(path, flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return 0
    finally:
        glass.off()
    return 0


if __name__ == "__main__":
    sys.exit(main())
