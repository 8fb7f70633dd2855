"""`phase` as other accounts run it, and where the kernel refuses hard links."""

import ctypes
import errno
import os
import platform
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple, NoReturn

from fixtures import artifacts
from phase import cli
from phase.errors import PhaseError


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code.
        said: what it wrote.
    """

    code: int
    said: str


def run(
    words: Sequence[str],
    *,
    user: int | None = None,
    group: int | None = None,
    umask: int = 0o022,
    before: Callable[[], None] = lambda: None,
) -> Ended:
    """Run `phase ...` in a process of its own.

    Args:
        words: the arguments.
        user: account; needs root.
        group: its only group; needs root.
        umask: of the process.
        before: is called in it, before anything else.
    """
    if user is not None:
        _import_all()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            _become(words, writing, user, group, umask, before)
        finally:
            os._exit(99)
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text)


@cache
def _import_all() -> None:
    """Do once what children of other accounts will; Python may be root's alone, and they import nothing."""
    with tempfile.TemporaryDirectory() as place, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        kernel = Path(place, "vmlinuz")
        kernel.write_bytes(artifacts.kernel())
        for words in (
            f"init {place}/repo --new-keys {place}/keys --plain",
            f"add {place}/repo stable x86_64 --kernel {kernel} --release 1 --keys {place}/keys",
            f"promote {place}/repo stable testing --keys {place}/keys",
            f"refresh {place}/repo --keys {place}/keys",
            f"export {place}/repo {place}/public",
        ):
            cli.cli(["release", *words.split()], standalone_mode=False)
        with suppress(PhaseError):
            cli.cli(["release", "show", place], standalone_mode=False)


def _become(
    words: Sequence[str],
    writing: int,
    user: int | None,
    group: int | None,
    umask: int,
    before: Callable[[], None],
) -> NoReturn:
    sys.stdout = sys.stderr = open(writing, "w", buffering=1)  # noqa: SIM115
    sys.argv = ["phase", *words]
    os.umask(umask)
    if group is not None:
        os.setgroups([])
        os.setgid(group)
    before()
    if user is not None:
        os.setuid(user)
    try:
        cli.main()
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(int(end.code or 0))
    except BaseException:
        traceback.print_exc()
        raise


#: Numbers of link(2) and linkat(2), by machine.
_LINKS = {"x86_64": (86, 265), "aarch64": (37,)}


def refuse_links(error: int = errno.EPERM) -> None:
    """Let the kernel refuse this process every hard link, as where the file system has none."""
    calls = _LINKS[platform.machine()]
    program = struct.pack("<HBBI", 0x20, 0, 0, 0)  # load the number of the call
    for position, number in enumerate(calls):
        program += struct.pack("<HBBI", 0x15, len(calls) - position, 0, number)  # to the last but one
    program += struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)  # allow
    program += struct.pack("<HBBI", 0x06, 0, 0, 0x00050000 | error)
    buffer = ctypes.create_string_buffer(program)
    what = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, what, 0, 0):  # no new privileges; a filter of calls
        raise OSError(ctypes.get_errno(), "seccomp")
