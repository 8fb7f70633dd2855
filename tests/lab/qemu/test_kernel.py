"""A kernel for another architecture is refused before the machine is switched on."""

from pathlib import Path

import pytest

from fixtures import artifacts
from lab.errors import MisuseError
from lab.qemu import kernel
from lab.qemu.command import Spec
from lab.qemu.vm import VM

#: An ELF file's head, whose machine is behind it.
ELF = b"\x7fELF\x02\x01\x01" + bytes(11)


def kernel_of(arch: str) -> bytes:
    return artifacts.kernel(arch)


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (kernel_of("x86_64"), "x86_64"),
        (kernel_of("arm64"), "arm64"),
        (ELF + (62).to_bytes(2, "little"), "x86_64"),
        (ELF + (183).to_bytes(2, "little"), "arm64"),
        (bytes(0x30) + b"RISCV", "riscv64"),
    ],
)
def test_a_kernel_is_of_the_architecture_that_it_names(
    tmp_path: Path, content: bytes, found: str, arch: str
) -> None:
    (tmp_path / "kernel").write_bytes(content)
    if arch == found:
        kernel.check("one", tmp_path / "kernel", arch)
        return
    with pytest.raises(
        MisuseError, match=f"one: its kernel .*/kernel is for {found}, and .* {arch}"
    ) as said:
        kernel.check("one", tmp_path / "kernel", arch)
    assert f'arch="{found}"' in str(said.value)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b compressed", bytes(4096)])
def test_a_kernel_that_says_nothing_is_let_pass(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kernel").write_bytes(content)
    kernel.check("one", tmp_path / "kernel", "arm64")


def test_a_kernel_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match=r"one: its kernel .*/absent cannot be read: No such file"):
        kernel.check("one", tmp_path / "absent", "arm64")


def test_no_machine_is_switched_on_with_it(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(kernel_of("x86_64"))
    vm = VM(Spec("one", "arm64", 256, 1, tmp_path / "kernel", None, ""), {}, tmp_path)
    with pytest.raises(MisuseError, match="is for x86_64, and the machine is arm64"):
        vm.start()
    assert not vm.running
