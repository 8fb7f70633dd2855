"""A network interface of this host as a port of a segment: the cable of a board that lies on the table."""

import contextlib
import socket
import struct
import threading
from types import TracebackType

from lab.errors import InfrastructureError
from lab.net.switch import Port

# packet(7), linux/if_packet.h
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC = 263, 1, 1
_ETH_P_ALL, _PACKET_OUTGOING = 0x0003, 4
_LONGEST = 65_536
_POLL = 0.2


class Uplink:
    """Carries frames between an interface and a port while it is open.

    The interface should have no address of the host's: what is on it belongs to the segment.

    Args:
        interface: of this host.
        port: of a switch, that no machine uses.

    Raises:
        InfrastructureError: there is no such interface, or this user may not use it so.
    """

    def __init__(self, interface: str, port: Port) -> None:
        self._port = port
        self._ending = threading.Event()
        self._outside = _opened(interface)
        self._inside = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._inside.bind(str(port.machine_socket))
        for end in (self._outside, self._inside):
            end.settimeout(_POLL)
        self._threads = [
            threading.Thread(target=target, name=f"uplink-{interface}", daemon=True)
            for target in (self._enter, self._leave)
        ]
        for thread in self._threads:
            thread.start()

    def _enter(self) -> None:
        while not self._ending.is_set():
            # A frame without room or receiver is lost, as on any wire.
            with contextlib.suppress(OSError):
                frame, origin = self._outside.recvfrom(_LONGEST)
                if origin[2] != _PACKET_OUTGOING:
                    self._inside.sendto(frame, str(self._port.switch_socket))

    def _leave(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(OSError):
                self._outside.send(self._inside.recv(_LONGEST))

    def __enter__(self) -> "Uplink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._outside.close()
        self._inside.close()
        self._port.machine_socket.unlink(missing_ok=True)


def _opened(interface: str) -> socket.socket:
    if not hasattr(socket, "AF_PACKET"):
        raise InfrastructureError(
            f"the uplink {interface} cannot be used: only Linux lets a program have one"
        )
    with contextlib.ExitStack() as stack:
        try:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            stack.enter_context(made)
            made.bind((interface, 0))
            # Frames for the segment's machines carry addresses that are not the interface's.
            wanted = struct.pack("iHH8x", socket.if_nametoindex(interface), _PACKET_MR_PROMISC, 0)
            made.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, wanted)
        except OSError as error:
            raise InfrastructureError(
                f"the uplink {interface} cannot be used: {error.strerror}; it takes an interface that is "
                "up, and root or CAP_NET_RAW"
            ) from error
        stack.pop_all()
        return made
