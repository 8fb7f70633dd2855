"""A kernel of the wrong architecture is named for what it is."""

import pytest

from phase.boot.errors import HandoffError
from phase.boot.image_check import HEADER_BYTES, check_kernel

X86 = bytes(0x202) + b"HdrS" + bytes(HEADER_BYTES - 0x206)
ARM64 = bytes(0x38) + b"ARM\x64" + bytes(HEADER_BYTES - 0x3C)


@pytest.mark.parametrize(("head", "arch"), [(X86, "x86_64"), (ARM64, "arm64")])
def test_a_kernel_of_this_architecture_passes(head: bytes, arch: str) -> None:
    check_kernel(head, arch)


@pytest.mark.parametrize(
    ("head", "arch", "found"),
    [
        (X86, "arm64", "an x86 kernel"),
        (ARM64, "x86_64", "an arm64 kernel"),
        (bytes(HEADER_BYTES), "arm64", "no kernel image"),
        (b"", "x86_64", "no kernel image"),
    ],
)
def test_another_is_refused(head: bytes, arch: str, found: str) -> None:
    with pytest.raises(HandoffError, match=f"for {arch} is {found}"):
        check_kernel(head, arch)
