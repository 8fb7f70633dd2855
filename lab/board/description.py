"""A board's description: a TOML file that says how to reach it (docs/lab/boards.md)."""

from pathlib import Path
from typing import Literal

import msgspec

from lab.errors import MisuseError


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: what it does not know is an error, not a remark."""


class Serial(_Table, frozen=True):
    """Its serial line.

    Attributes:
        url: a device, or `rfc2217://HOST:PORT`, or `socket://HOST:PORT`.
        speed: bits per second; 8 data bits, no parity, one stop bit.
        character_delay: seconds to wait after each character typed.
        line_delay: seconds to wait after each line typed.
    """

    url: str = ""
    speed: int = 115_200
    character_delay: float = 0.0
    line_delay: float = 0.0


class Power(_Table, frozen=True):
    """Commands of the host's `sh` that switch it, run in the directory of the file.

    Attributes:
        on: switches it on.
        off: switches it off; must do nothing to a board that is off.
        cycle: does both, for `Board.cycle`; when left out it is `off`, a pause, `on`.
        pause: seconds that it stays off.
    """

    on: str = ""
    off: str = ""
    cycle: str = ""
    pause: float = 1.0


class Medium(_Table, frozen=True):
    """What it boots from.

    Attributes:
        write: command of the host's `sh` that puts there what lies in `$LAB_MEDIUM`: the files `kernel`,
            `initrd` and `cmdline`. Run while the board is off.
        seconds: what it may take.
    """

    write: str
    seconds: float = 300.0


class Loader(_Table, frozen=True):
    """What its boot loader wants typed, when it does not start by itself.

    Attributes:
        prompt: regular expression of its prompt, at the end of what it has printed.
        commands: typed one after another, each at the prompt; `{cmdline}` stands for the command line.
        interrupt: typed again and again until the prompt is there; every eighth time `erase` instead, for a
            prompt that arrived garbled.
        enter: what ends a line.
        erase: what takes back a line that was typed.
        echo: whether it shows what is typed, so that what arrived garbled can be typed again.
        seconds: what it may take from power-on until the last command.
    """

    prompt: str
    commands: tuple[str, ...]
    interrupt: str = " "
    enter: str = "\r"
    erase: str = "\x03"
    echo: bool = True
    seconds: float = 120.0


class Network(_Table, frozen=True):
    """How its network card reaches a segment of the lab.

    Attributes:
        uplink: network interface of this host that its cable is plugged into; the lab takes it whole.
            `sockets` is for boards that are no boards: they find two datagram sockets in
            `$LAB_CABLE_BOARD` and `$LAB_CABLE_LAB`.
    """

    uplink: str


class Labgrid(_Table, frozen=True):
    """A labgrid environment that reaches it, instead of `serial` and `power`.

    Attributes:
        environment: its file.
        target: in it.
    """

    environment: str
    target: str = "main"


class Description(_Table, frozen=True):
    """A board.

    Attributes:
        name: of the board, for leases and reports; the file's name when left out.
        arch: `x86_64` or `arm64`.
        console: what its kernel calls the serial line, for the command line.
        append: more words for the command line.
        directory: where the file lies.
    """

    arch: Literal["x86_64", "arm64"]
    console: str
    medium: Medium
    serial: Serial = Serial()
    power: Power = Power()
    loader: Loader | None = None
    network: Network | None = None
    labgrid: Labgrid | None = None
    append: str = ""
    name: str = ""
    directory: Path = Path()


def read(path: Path) -> Description:
    """Read a board's description.

    Raises:
        MisuseError: the file is missing, or lacks something; the message names it.
    """
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=Description)
    except OSError as error:
        raise MisuseError(f"the board file {path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise MisuseError(f"{path} is not a board file (docs/lab/boards.md): {error}") from error
    wire = found.serial
    for wrong, what in (
        (found.labgrid is None and not found.serial.url, "no [serial] url and no [labgrid]"),
        (found.labgrid is None and not (found.power.on and found.power.off), "no [power] on and off"),
        (wire.speed <= 0, "a [serial] speed that is not above 0"),
        (
            min(found.serial.character_delay, found.serial.line_delay, found.power.pause) < 0,
            "a negative time",
        ),
    ):
        if wrong:
            raise MisuseError(f"{path} is not a board file (docs/lab/boards.md): it has {what}")
    return msgspec.structs.replace(found, name=found.name or path.stem, directory=path.absolute().parent)
