"""What the running kernel is asked for on the way into the next one."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phase.boot import kexec
from phase.boot.errors import HandoffError, LockedDownError
from phase.boot.kexec import Image, Segment, load
from tests.networks import alone


@pytest.mark.parametrize("content", [(4000, 200), (-1, 8), (0, -1)])
def test_no_segment_reaches_out_of_the_file(tmp_path: Path, content: tuple[int, int]) -> None:
    """Refused before the running kernel hears of it; the file can be used again."""
    path = tmp_path / "initrd"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        with pytest.raises(HandoffError, match="not in a file of 4096"):
            load(Image(0, (Segment(0, 4096, content),)), file.fileno())
        file.truncate(8192)


def test_the_cards_are_up_again_where_no_kernel_starts() -> None:
    """An update that fails in the last moment leaves a machine that is reached.

    In a network namespace of its own, where this process may start no kernel.
    """
    program = """
import subprocess
from phase.boot import kexec
from phase.boot.errors import HandoffError
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["ip", "link", "add", "pair0", "type", "veth", "peer", "name", "pair1"], check=True)
kexec.NOTICED_SECONDS = 0
try:
    kexec.start()
except HandoffError as error:
    print(error.what)
print(subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout)
"""
    # A user namespace of its own: no process in it can start another kernel, whoever runs the tests.
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare failed" in done.stderr:
        pytest.skip(f"this host allows no user namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    said, *cards = done.stdout.strip().splitlines()
    assert said.startswith("kexec: Operation not permitted")
    assert {card.split()[1].split("@")[0]: ",UP" in card for card in cards} == {
        "lo:": True, "pair0": False, "pair1": False,
    }, "as before"  # fmt: skip


def test_each_card_is_down_when_the_next_kernel_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that is up still writes what it receives into memory that belongs to the next kernel then.

    In this process, which asks for no other kernel.
    """
    asked: list[tuple[dict[str, int], tuple[object, ...], list[str]]] = []

    def cards() -> list[str]:
        done = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True)
        return [line.split(maxsplit=3)[2] for line in done.stdout.splitlines()]

    def syscall(numbers: dict[str, int], *arguments: object) -> None:
        asked.append((numbers, arguments, cards()))

    def start() -> None:
        for words in (["add", "pair0", "type", "veth", "peer", "name", "pair1"], ["set", "pair0", "up"]):
            subprocess.run(["ip", "link", *words], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        assert any(",UP" in card for card in cards())
        with pytest.raises(HandoffError, match="kexec came back"):
            kexec.start()

    monkeypatch.setattr(kexec, "_syscall", syscall)
    monkeypatch.setattr(kexec, "NOTICED_SECONDS", 0)
    alone(start)
    ((numbers, arguments, seen),) = asked
    # reboot(2): LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC.
    assert (numbers["x86_64"], numbers["aarch64"]) == (169, 142)
    assert arguments == (0xFEE1DEAD, 672274793, 0x45584543, None)
    assert len(seen) == 3
    assert not [card for card in seen if ",UP" in card or "<UP" in card]


def test_a_system_call_gets_its_arguments_and_says_why_it_failed(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        kexec._syscall({"x86_64": 91, "aarch64": 52}, file.fileno(), 0o640)  # fchmod(2)
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o640
        # An address above two gibibytes arrives whole; ctypes makes a C int of a plain number.
        kexec._syscall({"x86_64": 77, "aarch64": 46}, file.fileno(), 5 << 31)  # ftruncate(2)
        assert os.fstat(file.fileno()).st_size == 5 << 31
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        kexec._syscall({"x86_64": 3, "aarch64": 57}, (1 << 32) - 1)  # close(2)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("number", "why"),
    [(errno.EPERM, "not allowed"), (errno.EADDRNOTAVAIL, "outside memory"), (errno.EIO, "Input/output")],
)
def test_a_kernel_that_takes_no_other_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(kexec, "_syscall", refuse)
    (tmp_path / "initrd").write_bytes(bytes(4096))
    with (tmp_path / "initrd").open("r+b") as file:
        with pytest.raises(HandoffError, match=f"refuses to load another: .*{why}"):
            load(Image(0, (Segment(0, 4096, b"x"),)), file.fileno())
        file.truncate(8192)  # nothing points into it any more


def test_a_kernel_that_is_locked_down_gets_files_that_nobody_can_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads none that is open for writing (ETXTBSY). The seed may write again when it was refused."""
    path = tmp_path / "initrd"
    path.write_bytes(b"head" + b"kernel" + b"tail")
    given: list[tuple[bytes, bytes, object]] = []

    def syscall(numbers: dict[str, int], *arguments: Any) -> None:
        if numbers["x86_64"] == 246:  # kexec_load(2)
            number = errno.EACCES if given else errno.EPERM
            raise OSError(number, os.strerror(number))
        assert (numbers["x86_64"], numbers["aarch64"]) == (320, 294)  # kexec_file_load(2)
        kernel, initrd, length, line, flags = arguments
        for number in (kernel, initrd):
            assert fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            assert not os.get_inheritable(number)
        assert (length, flags) == (len(line.value) + 1, 0)
        given.append((os.pread(kernel, 99, 0), os.pread(initrd, 99, 0), line.value))
        if len(given) == 2:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(kexec, "_syscall", syscall)
    image = Image(0, (Segment(0, 4096, b"x"),))
    with path.open("r+b", buffering=0) as file:
        load(image, file.fileno(), kexec.Files((4, 6), "quiet"))
        with pytest.raises(HandoffError, match=r"built without kexec_file_load.* switch that off"):
            load(image, file.fileno(), kexec.Files((4, 6), "quiet"))
        assert file.write(b"HEAD") == 4
    assert given == [(b"kernel", b"headkerneltail", b"quiet")] * 2
    assert path.read_bytes() == b"HEADkerneltail"
    assert os.listdir(tmp_path) == ["initrd"]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENODATA, "not signed"),
        (errno.ENOKEY, "signed by no key"),
        (errno.EKEYREJECTED, "changed after it was signed"),
        (errno.ELIBBAD, "not exactly one signature"),
    ],
)
def test_a_kernel_that_is_locked_down_says_what_is_wrong_with_the_next_ones_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    def refuse(numbers: dict[str, int], *_: Any) -> None:
        code = errno.EACCES if numbers["x86_64"] == 246 else number
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(kexec, "_syscall", refuse)
    (tmp_path / "initrd").write_bytes(b"head" + b"kernel")
    with (
        (tmp_path / "initrd").open("r+b", buffering=0) as file,
        pytest.raises(LockedDownError, match=f"kernel .*{why}.* boot system --sign-key"),
    ):
        load(Image(0, (Segment(0, 4096, b"x"),)), file.fileno(), kexec.Files((4, 6), "quiet"))
