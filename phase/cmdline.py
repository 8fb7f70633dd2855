"""The kernel command line: Phase's parameters in it, and what may be carried over a handoff."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from phase import modes, networds
from phase.arch import ARCHES
from phase.discovery.named import named
from phase.discovery.records import MAX_PEERS, DiscoveryError, peer

MODES = modes.NAMES
RESCUES = ("shell", "reboot", "poweroff")
MAX_TIMEOUT = 86_400
#: Seconds of `phase.watchdog=`; the kernel's own takes no more.
LEAST_WATCHDOG, MOST_WATCHDOG = 10, 3600
MAX_PROVIDERS = 16
#: Keys of `phase.node=`, and relays of `phase.relay=`.
MAX_CLIENTS = 16
MAX_RELAYS = 4
#: Releases of `phase.mirror=`.
MAX_MIRRORED = 16
#: Parameters that a person at this machine sets and that the next kernel must get, too. All others
#: on the second command line are signed: a person who controls the boot menu can give `root=`, `init=` or
#: `module.sig_enforce=` to the seed, and these must not reach the system.
CARRIED = (
    "console",
    *networds.NAMES,
    "phase.mode",
    "phase.channel",
    "phase.provider",
    "phase.cache",
    "phase.nowrite",
    "phase.timeout",
    "phase.rescue",
    "phase.watchdog",
    "phase.mdns",
    "phase.share",
    "phase.dht",
    "phase.job",
    "phase.node",
    "phase.relay",
    "phase.mirror",
    "phase.marks",
)
_CARRIED = frozenset(map(str.lower, CARRIED))
#: Set by the seed itself at handoff; ignored on its own command line.
SET_AT_HANDOFF = ("phase.rootfs", "phase.watched")
#: Limit for a command line in the kernels of both architectures, bytes without the zero at its end.
MAX_LINE = 2047
#: Limit for the lines of `remarks`; one more line counts the rest.
_MAX_REMARKS = 6
#: Limit for a word in a remark, characters.
_SHOWN = 60


class Parameters(NamedTuple):
    """Phase's parameters on the command line."""

    mode: str = "internet"
    channel: str = "stable"
    providers: tuple[str, ...] = ()
    cache: bool = True
    nowrite: bool = False
    mdns: bool = True
    #: Whether other machines may have what arrives, while it does.
    share: bool = True
    #: DHT nodes to begin with, hosts and ports; None to use no DHT.
    dht: tuple[tuple[str, int], ...] | None = ()
    #: Seconds the seed may take from the first provider looked for to the handoff.
    timeout: float = 300.0
    rescue: str = "reboot"
    #: Seconds until a system that hangs restarts the machine, if its starts are counted; 0: it does not.
    watchdog: int = 60
    rootfs: str = ""
    job: str = ""
    #: Tor's SOCKS proxy, address and port; None for none.
    tor: tuple[str, int] | None = None
    #: Unusable names and values, for one warning line each.
    problems: tuple[str, ...] = ()


class _Kind(NamedTuple):
    """How one parameter is read.

    Attributes:
        read: gives the value of a text; raises ValueError if that cannot be used.
        wants: the values that may be written, for people.
        field: of `Parameters`; empty if only the init scripts read it.
        careful: value to use in place of an unusable one; None for the default.
    """

    read: Callable[[str], Any]
    wants: str
    field: str = ""
    careful: Any = None


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def _switch(text: str) -> bool:
    return _one_of("on", "off")(text) == "on"


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and 0 < int(text) <= MAX_TIMEOUT):
        raise ValueError
    return float(text)


def _watchdog(text: str) -> int:
    seconds = 0 if text == "off" else int(_seconds(text))
    if text != "off" and not LEAST_WATCHDOG <= seconds <= MOST_WATCHDOG:
        raise ValueError
    return seconds


def _name_of(text: str) -> str:
    if re.fullmatch("[0-9A-Za-z][0-9A-Za-z_-]{0,63}", text) is None:
        raise ValueError
    return text


def _peers(text: str) -> tuple[tuple[str, int], ...] | None:
    if text == "off":
        return None
    names = text.split(",")
    if len(names) > MAX_PEERS:
        raise ValueError
    try:
        return tuple(peer(name) for name in names)
    except DiscoveryError as error:
        raise ValueError from error


def _digest(text: str) -> str:
    if re.fullmatch("sha256:[0-9a-f]{64}", text) is None:
        raise ValueError
    return text.removeprefix("sha256:")


def _provider(text: str) -> str:
    try:
        return named(text)
    except DiscoveryError as error:
        raise ValueError(str(error)) from error


def _proxy(text: str) -> tuple[str, int]:
    try:
        host, port = peer(text)
    except DiscoveryError as error:
        raise ValueError from error
    # A name server would hear of a name.
    return str(ipaddress.IPv4Address(host)), port


def _clients(text: str) -> str:
    keys = text.split(",")
    if text != "open" and (len(keys) > MAX_CLIENTS or not all(map(_KEY.fullmatch, keys))):
        raise ValueError
    return text


def _relays(text: str) -> str:
    relays = text.split(",")
    if len(relays) > MAX_RELAYS or not all(map(_RELAY.fullmatch, relays)):
        raise ValueError
    return text


def _mirrored(text: str) -> str:
    releases = text.split(",")
    if len(releases) > MAX_MIRRORED or not all(map(_MIRRORED.fullmatch, releases)):
        raise ValueError
    return text


_KEY = re.compile("[0-9a-f]{64}")
_RELAY = re.compile(r"https?://[0-9A-Za-z.:\[\]_-]{1,255}/?")
_MIRRORED = re.compile(f"[0-9A-Za-z][0-9A-Za-z_-]{{0,63}}/(?:{'|'.join(ARCHES)})")
_KINDS = {
    # A person who typed a mode that does not exist wanted less than everything.
    "mode": _Kind(_one_of(*MODES), " or ".join(MODES), "mode", careful="private"),
    "channel": _Kind(_name_of, "a name of letters, digits, - and _", "channel"),
    "provider": _Kind(_provider, "http://HOST:PORT", "providers"),
    "cache": _Kind(_switch, "on or off", "cache"),
    "mdns": _Kind(_switch, "on or off", "mdns"),
    "share": _Kind(_switch, "on or off", "share"),
    "dht": _Kind(_peers, f"off, or up to {MAX_PEERS} times HOST:PORT", "dht"),
    "nowrite": _Kind(lambda text: _one_of("", "1")(text) in ("", "1"), "no value", "nowrite"),
    "timeout": _Kind(_seconds, f"whole seconds, 1 to {MAX_TIMEOUT}", "timeout"),
    "watchdog": _Kind(_watchdog, f"off, or whole seconds, {LEAST_WATCHDOG} to {MOST_WATCHDOG}", "watchdog"),
    # The seed writes it for the system's scripts.
    "watched": _Kind(_seconds, "whole seconds"),
    "rescue": _Kind(_one_of(*RESCUES), " or ".join(RESCUES), "rescue"),
    "rootfs": _Kind(_digest, "sha256: and 64 digits", "rootfs"),
    "job": _Kind(_name_of, "the name of a job", "job"),
    "tor": _Kind(_proxy, "ADDRESS:PORT of Tor's SOCKS proxy", "tor"),
    # The init scripts read these.
    "node": _Kind(_clients, f"open, or up to {MAX_CLIENTS} keys of 64 hex digits"),
    "relay": _Kind(_relays, f"up to {MAX_RELAYS} times http://HOST:PORT"),
    "mirror": _Kind(_mirrored, f"up to {MAX_MIRRORED} times CHANNEL/ARCH, ARCH being {' or '.join(ARCHES)}"),
    # The same; only the signed line can bring the shell there.
    "console": _Kind(_one_of("shell"), "shell"),
    "marks": _Kind(_one_of(*"123456789"), "1 to 9"),
}


class _Word(NamedTuple):
    """One parameter as it was written, and its value."""

    text: str
    key: str
    value: Any
    #: Why it cannot be used; empty if it can.
    problem: str = ""


def parse(text: str) -> Parameters:
    """Read Phase's parameters from a kernel command line.

    Args:
        text: the content of /proc/cmdline.

    Returns:
        The parameters. An unusable value is replaced by its default and listed in `problems`, and so is an
        unknown `phase.*`: a typing error must not stop a boot. If a parameter is given twice, the last value
        counts; providers add up.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for word in _words(text):
        kind = _KINDS.get(word.key)
        if word.problem:
            problems.append(word.text)
            if kind is not None and kind.careful is not None:
                found[kind.field] = kind.careful
        elif kind is not None and word.key == "provider":
            found["providers"] = tuple(dict.fromkeys((*found.get("providers", ()), word.value)))
        elif kind is not None and kind.field:
            found[kind.field] = word.value
    return Parameters(**found, problems=tuple(problems))


def remarks(text: str) -> list[str]:
    """The words of a command line that are not used as written: a few short lines for people.

    Args:
        text: the content of /proc/cmdline.

    Returns:
        A line for each word that is ignored, read in another way, or overruled by a later one.
    """
    lines: list[str] = []
    last: dict[str, Any] = {}
    for word in _words(text):
        shown = word.text if len(word.text) <= _SHOWN else f"{word.text[:_SHOWN]}..."
        if word.problem:
            careful = _KINDS[word.key].careful if word.key in _KINDS else None
            instead = f"; {careful} is used" if careful is not None else ""
            lines.append(f"ignored on the kernel command line: {shown} ({word.problem}{instead})")
        elif word.key == "provider":
            if word.text.partition("=")[2].strip('"') != word.value:
                lines.append(f"on the kernel command line: {shown} is read as {word.value}")
        elif word.key in last and last[word.key] != word.value:
            lines.append(f"on the kernel command line: phase.{word.key} stands there twice; {shown} counts")
        if not word.problem:
            last[word.key] = word.value
    lines = list(dict.fromkeys(lines))
    if len(lines) > _MAX_REMARKS:
        more = len(lines) - _MAX_REMARKS
        lines[_MAX_REMARKS:] = [f"and {more} more like these on the kernel command line"]
    return lines


def _words(text: str) -> Iterator[_Word]:
    """Every parameter of ours; a list of providers as one word each."""
    providers = 0
    for word in split(text):
        # Quotes are the kernel's, around the whole word or its value.
        name, equals, value = word.replace('"', "").partition("=")
        if name in networds.NAMES and equals:
            wants = networds.wants(name, value)
            yield _Word(word, name, None, f"write {wants}" if wants else "")
        if not name.lower().startswith("phase."):
            continue
        key = name.lower().removeprefix("phase.")
        kind = _KINDS.get(key)
        if kind is None:
            yield _Word(word, key, None, "there is no such parameter")
        elif key != "provider" or not value.replace(",", "").strip():
            yield _read(kind, word, key, value)
        else:
            parts = [part for part in value.split(",") if part]
            for part in parts:
                providers += 1
                written = word if len(parts) == 1 else f"{name}{equals}{part}"
                if providers > MAX_PROVIDERS:
                    yield _Word(written, key, None, f"there are more than {MAX_PROVIDERS}")
                else:
                    yield _read(kind, written, key, part)


def _read(kind: _Kind, word: str, key: str, value: str) -> _Word:
    try:
        return _Word(word, key, kind.read(value))
    except ValueError as error:
        return _Word(word, key, None, str(error).rstrip(".") or f"write {kind.wants}")


class Composed(NamedTuple):
    """The second kernel's command line, and the words that could not be carried over to it."""

    line: str
    left_out: tuple[str, ...]


def compose(signed: str, running: str, *, rootfs: str) -> str:
    """Build the command line of the second kernel; see `compose_within`."""
    return compose_within(signed, running, rootfs=rootfs).line


def compose_within(
    signed: str, running: str, *, rootfs: str, also: tuple[str, ...] = (), limit: int = MAX_LINE
) -> Composed:
    """Build the command line of the second kernel.

    Args:
        signed: the manifest's command line, verified.
        running: this kernel's own command line.
        rootfs: SHA-256 of the rootfs artifact, hex.
        also: words that the seed adds, unless the signed line sets the same parameter.
        limit: for the line, bytes; carried words that do not fit are left out.

    Returns:
        The mode, the signed words, then the carried words that the signed line does not set itself, then
        the rootfs hash. A signed word always wins over a carried one of the same name, but for the mode: the
        stricter one counts, and is never left out, since it is a promise to the person here. An unusable
        word is not carried, nor is one with a space: a program that splits the line without regard to quotes
        would find words in it that are not allowed. Quotes are taken off.
    """
    words = [word for word in _in_mode(signed, running) if _name(word) not in SET_AT_HANDOFF]
    decided = {_name(word) for word in words}
    words += [word for word in also if _name(word) not in decided]
    last = f"phase.rootfs=sha256:{rootfs}"
    room = limit - sum(len(word) + 1 for word in words) - len(last)
    left_out = []
    for word in _carried(running):
        if _name(word) in decided:
            continue
        if len(word) + 1 > room:
            left_out.append(word)
            continue
        words.append(word)
        room -= len(word) + 1
    return Composed(" ".join([*words, last]), tuple(left_out))


def chosen(running: str, signed: str) -> str:
    """The words of a running system's line that a person has chosen: without those that its release signed.

    Args:
        running: the line, as it was composed.
        signed: the command line of the release that runs.

    Returns:
        Also the mode and the channel, which may be of both.
    """
    names = {_name(word) for word in split(signed)} - {"phase.mode", "phase.channel"}
    return " ".join(word for word in split(running) if _name(word) not in names)


def _in_mode(signed: str, running: str) -> list[str]:
    """The signed words, behind the stricter mode of both lines, unless neither names one."""
    words = split(signed)
    if not any(map(_is_mode, (*words, *split(running)))):
        return words
    mode = modes.stricter(parse(signed).mode, parse(running).mode)
    return [f"phase.mode={mode}", *(word for word in words if not _is_mode(word))]


def _is_mode(word: str) -> bool:
    return _name(word.replace('"', "")) == "phase.mode"


def _carried(running: str) -> Iterator[str]:
    """The words of the running kernel's line that may be carried, each as plainly as it can be written."""
    for word in split(running):
        # Quotes are the kernel's, around the whole word or its value.
        plain = word.replace('"', "")
        name, equals, value = plain.partition("=")
        if name.lower() == "phase.provider":
            if found := parse(word).providers:
                yield f"phase.provider={','.join(found)}"
        elif name.lower().startswith("phase."):
            plain = f"{name.lower()}{equals}{value}"
            if _is_carried(plain):
                yield plain
        elif name in CARRIED and _is_carried(plain):
            # The kernel is case-sensitive: another spelling is another word, which is not allowed.
            yield plain


def _is_carried(word: str) -> bool:
    plain = word.isascii() and word.isprintable() and not (set(word) & set(' "'))
    return plain and _name(word) in _CARRIED and not parse(word).problems


def split(text: str) -> list[str]:
    """Split a kernel command line into words, double quotes kept together as the kernel does."""
    words: list[str] = []
    word: list[str] = []
    quoted = False
    for character in text:
        if character == '"':
            quoted = not quoted
        if character.isspace() and not quoted:
            if word:
                words.append("".join(word))
            word = []
        else:
            word.append(character)
    if word:
        words.append("".join(word))
    return words


def _name(word: str) -> str:
    return word.partition("=")[0].lower()
