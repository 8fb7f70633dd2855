"""A listening socket whose process has too few descriptors."""

import os
import socket
from typing import Any


class Scarce:
    """A listening socket of a system that has no descriptors left, but for what is given up."""

    def __init__(self, real: socket.socket, number: int) -> None:
        self._real = real
        self.number = number
        self.refuse = 0

    def accept(self) -> Any:
        if self.refuse:
            self.refuse -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self._real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
