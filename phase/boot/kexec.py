"""Handing the machine to another kernel, by the `kexec` tool."""

import os

from phase.boot.errors import HandoffError

KEXEC = "/sbin/kexec"
_LOG = "/run/phase/kexec.log"


def load(kernel: str, initrd: str, cmdline: str) -> None:
    """Load a verified kernel and initrd into memory, ready to start.

    The tool's own checksum over the segments (`purgatory`) is left out: it runs with caches off and
    takes 14 s on arm64, every byte was verified a moment ago, and the second stage hashes the rootfs
    again.

    Args:
        kernel: path of the kernel.
        initrd: path of the initrd.
        cmdline: the second kernel's command line, at most 2047 bytes (x86) or 2048 (arm64).

    Raises:
        HandoffError: the tool or the running kernel refused.
    """
    if len(cmdline) > 2047:
        raise HandoffError(f"the second kernel's command line has {len(cmdline)} bytes, 2047 fit")
    _run("-l", "--no-checks", f"--initrd={initrd}", f"--command-line={cmdline}", kernel)


def start() -> None:
    """Start the loaded kernel; comes back only by raising."""
    _run("-e")
    raise HandoffError("kexec came back", hint="The running kernel's log says why.")


def _run(*arguments: str) -> None:
    log = os.open(_LOG, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        child = os.posix_spawn(KEXEC, ["kexec", *arguments], {"PATH": "/sbin:/bin"}, file_actions=actions)
        _, status = os.waitpid(child, 0)
        if status:
            said = os.pread(log, 400, 0).decode("ascii", "replace").strip().replace("\n", "; ")
            raise HandoffError(
                f"kexec {arguments[0]} exited {os.waitstatus_to_exitcode(status)}: {said}",
                hint="Is kexec allowed (kernel.kexec_load_disabled, lockdown), and is there memory enough?",
            )
    finally:
        os.close(log)
