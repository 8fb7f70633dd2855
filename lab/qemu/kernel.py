"""Which architecture a kernel is for, by its first bytes: a wrong one starts, prints nothing and never ends.

Sources: Linux Documentation, arch/x86/boot.rst, arch/arm64/booting.rst, arch/riscv/boot-image-header.rst;
the ELF format.
"""

from pathlib import Path

from lab.errors import MisuseError

#: Where a kernel's header has its mark: offset, bytes, architecture.
_MARKS = (
    (0x202, b"HdrS", "x86_64"),
    (0x38, b"ARM\x64", "arm64"),
    (0x30, b"RISCV", "riscv64"),
    (0x24, b"\x18\x28\x6f\x01", "arm"),
)
_ELF = {62: "x86_64", 183: "arm64", 3: "i386", 40: "arm", 243: "riscv64"}
#: Bytes of the longest of these headers.
_HEAD = 0x206


def check(name: str, kernel: Path, arch: str) -> None:
    """Refuse a kernel that says that it is for another architecture. One that says nothing is let pass.

    Args:
        name: of the machine.
        kernel: the file.
        arch: of the machine, `x86_64` or `arm64`.

    Raises:
        MisuseError: it is for another architecture, or cannot be read.
    """
    try:
        with kernel.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise MisuseError(f"{name}: its kernel {kernel} cannot be read: {error.strerror}") from error
    found = _arch(head)
    if found and found != arch:
        raise MisuseError(
            f"{name}: its kernel {kernel} is for {found}, and the machine is {arch}. "
            f'Give it a kernel for {arch}, or make the machine with arch="{found}"'
        )


def _arch(head: bytes) -> str:
    """The architecture that a header names; empty if it names none."""
    if head.startswith(b"\x7fELF"):
        return _ELF.get(int.from_bytes(head[18:20], "little"), "")
    return next((arch for at, mark, arch in _MARKS if head[at : at + len(mark)] == mark), "")
