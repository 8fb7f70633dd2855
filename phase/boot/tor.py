"""The Tor that an image may have of its own: in private mode nobody else sends anything beyond the segment.

In private mode the ways out by routers are in a routing table of their own (`boot/files/udhcpc`), which the
kernel looks at for Tor's user alone. What else runs here has no way out, whatever it tries.
"""

import contextlib
import errno
import os
import re
import socket
import struct

from phase.boot.errors import BootError

#: Where an image has it: the program, its libraries, their loader.
PLACE = "/usr/lib/tor"
PROXY = ("127.0.0.1", 9050)
#: Its user, and the routing table of that user.
USER, TABLE = 107, 107
_CONFIGURATION = """\
SocksPort {0}:{1}
DataDirectory {2}
Log notice file {2}/log
ClientOnly 1
AvoidDiskWrites 1
"""
#: linux/rtnetlink.h, linux/fib_rules.h.
_NEW_RULE, _ERROR = 32, 2
_REQUEST, _ACKNOWLEDGE, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_PRIORITY, _RULE_TABLE, _UID_RANGE, _TO_TABLE = 6, 15, 20, 1
_BOOTSTRAPPED = re.compile(r"Bootstrapped ([0-9]{1,3})%")
_MOST_LOG = 1 << 20


class Tor:
    """This image's Tor.

    Args:
        place: of its program.
        run: directory for what it keeps while it runs, in memory.
    """

    def __init__(self, place: str = PLACE, run: str = "/run/phase") -> None:
        self._place = place
        self._data = f"{run}/tor"
        self._child: int | None = None

    def there(self) -> bool:
        """Whether this image has one."""
        return os.path.exists(f"{self._place}/tor")

    def progress(self, more: bytes | None) -> int:
        """How far it is on its way into the network, percent; it is started at the first question.

        Args:
            more: lines for its configuration, from the image; None for none.

        Raises:
            BootError: it has ended, or cannot be started.
        """
        if self._child is None:
            self._child = self._start(more or b"")
        ended, _ = os.waitpid(self._child, os.WNOHANG)
        said = self._log()
        if ended:
            # The next question starts it again.
            self._child = None
            last = said.strip().rpartition("\n")[2]
            raise BootError(f"Tor has ended: {last[-200:] or 'it has said nothing'}")
        found = _BOOTSTRAPPED.findall(said)
        return int(found[-1]) if found else 0

    def _start(self, more: bytes) -> int:
        os.makedirs(self._data, 0o700, exist_ok=True)
        os.chown(self._data, USER, USER)
        # What one before has said is nothing of this one's way.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._data}/log")
        torrc = f"{self._data}.rc"
        with open(torrc, "wb") as handle:
            handle.write(_CONFIGURATION.format(*PROXY, self._data).encode() + more)
        _route_alone()
        words = [f"{self._place}/ld.so", "--library-path", self._place, f"{self._place}/tor"]
        words += ["-f", torrc, "--defaults-torrc", "/dev/null", "--quiet"]
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(USER)
                os.setuid(USER)
                os.execve(words[0], words, {"HOME": self._data})  # noqa: S606  each word is ours
            finally:
                os._exit(127)
        return child

    def _log(self) -> str:
        try:
            with open(f"{self._data}/log", "rb") as handle:
                return handle.read(_MOST_LOG).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""


def _route_alone() -> None:
    """Have the kernel use the ways out for packets of Tor's user.

    Raises:
        BootError: it does not.
    """
    # fib_rule_hdr: family, lengths, type of service, table (here an attribute), reserved, action, flags.
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    for kind, value in (
        (_PRIORITY, struct.pack("=I", 1000)),
        (_RULE_TABLE, struct.pack("=I", TABLE)),
        (_UID_RANGE, struct.pack("=II", USER, USER)),
    ):
        body += struct.pack("=HH", 4 + len(value), kind) + value
    flags = _REQUEST | _ACKNOWLEDGE | _CREATE | _EXCLUSIVE
    message = struct.pack("=IHHII", 16 + len(body), _NEW_RULE, flags, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)
        kernel.sendto(message, (0, 0))
        answer = kernel.recv(4096)
    kind = struct.unpack_from("=IH", answer)[1]
    code = struct.unpack_from("=i", answer, 16)[0] if kind == _ERROR else -1
    if code not in (0, -errno.EEXIST):
        raise BootError(f"the kernel routes nothing for Tor alone: {os.strerror(-code)}")
