"""A serial line as a socket: a `Console` reads and types there, at the pace that the board bears."""

import contextlib
import socket
import threading
import time
import warnings
from typing import Protocol

import serial

from lab.board.description import Serial
from lab.errors import InfrastructureError

_POLL = 0.05


class Port(Protocol):
    """What carries bytes to and from a board; pyserial's ports do."""

    def receive(self) -> bytes:
        """What has come; nothing when nothing came for a moment. Raises OSError when it is gone."""

    def transmit(self, data: bytes) -> None:
        """Send. Raises OSError when it is gone."""

    def close(self) -> None:
        """Let go of it."""


class SerialPort:
    """A device, `rfc2217://` or `socket://`, through pyserial.

    Args:
        settings: of the line.

    Raises:
        InfrastructureError: it cannot be opened.
    """

    def __init__(self, settings: Serial) -> None:
        try:
            with warnings.catch_warnings():
                # pyserial 3.5 starts its RFC 2217 reader the way of older Pythons.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._port = serial.serial_for_url(settings.url, baudrate=settings.speed, timeout=_POLL)
        except (OSError, ValueError) as error:
            raise InfrastructureError(
                f"the serial line {settings.url} cannot be opened: {error}; is the adapter plugged in, "
                "and may this user open it?"
            ) from error

    def receive(self) -> bytes:
        """Bytes that have come."""
        first: bytes = self._port.read(1)
        return first + bytes(self._port.read(self._port.in_waiting)) if first else b""

    def transmit(self, data: bytes) -> None:
        """Send bytes."""
        self._port.write(data)

    def close(self) -> None:
        """Close the device."""
        self._port.close()


class Line:
    """Pumps between a port and a socket until it is closed, or the port is gone.

    Args:
        name: the board's.
        port: the line; this object owns it.
        character_delay: seconds after each character typed.
        line_delay: seconds after each line typed.

    Attributes:
        socket: the other end; the taker owns it.
        failure: what took the port away; empty while it is there.
    """

    def __init__(self, name: str, port: Port, *, character_delay: float = 0, line_delay: float = 0) -> None:
        self.failure = ""
        self.socket, self._mine = socket.socketpair()
        self._port = port
        self._delays = (character_delay, line_delay)
        self._closing = False
        self._threads = [
            threading.Thread(target=target, name=f"line-{name}", daemon=True)
            for target in (self._hear, self._type)
        ]
        for thread in self._threads:
            thread.start()

    def _hear(self) -> None:
        try:
            while not self._closing:
                data = self._port.receive()
                if data:
                    self._mine.sendall(data)
        except Exception as error:
            # Drivers have exceptions of their own, and pyserial reads from a descriptor that is None once
            # somebody has closed it.
            self._fail(error)
        finally:
            self._end()

    def _type(self) -> None:
        character, line = self._delays
        try:
            while data := self._mine.recv(4096):
                if not character and not line:
                    self._port.transmit(data)
                    continue
                for byte in data:
                    self._port.transmit(bytes((byte,)))
                    time.sleep(line if byte in b"\r\n" and line else character)
        except Exception as error:
            self._fail(error)
            # Who could type to it no longer shall not wait for what it answers.
            self._end()

    def _fail(self, error: Exception) -> None:
        if not self._closing:
            self.failure = self.failure or str(error) or repr(error)

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._mine.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Stop pumping and let go of the port."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._mine.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._mine.close()
        self._port.close()
