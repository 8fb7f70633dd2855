"""Is this a kernel for this machine? The signed manifest says so; the header must agree.

Sources: Linux Documentation/arch/x86/boot.rst, Documentation/arch/arm64/booting.rst.
"""

from phase.boot.errors import HandoffError

HEADER_BYTES = 4096


def check_kernel(head: bytes, arch: str) -> None:
    """Check a kernel's header against the architecture.

    Args:
        head: its first `HEADER_BYTES` bytes.
        arch: `x86_64` or `arm64`.

    Raises:
        HandoffError: it is not a kernel image of this architecture.
    """
    x86 = head[0x202:0x206] == b"HdrS"
    arm64 = head[0x38:0x3C] == b"ARM\x64"
    if (arch == "x86_64" and x86) or (arch == "arm64" and arm64):
        return
    found = "an x86 kernel" if x86 else "an arm64 kernel" if arm64 else "no kernel image"
    raise HandoffError(f"the release's kernel for {arch} is {found}")
