"""The kernel command line: Phase's parameters in it, and what may be carried over a handoff."""

from typing import Any, NamedTuple

from phase.discovery.records import MAX_PEERS, DiscoveryError, peer

MODES = ("internet", "local", "private")
RESCUES = ("shell", "reboot", "poweroff")
#: What the person at this machine decided, and the next kernel must hear too. Everything else
#: on the second command line is signed: `root=`, `init=` or `module.sig_enforce=` given to the
#: seed by whoever controls the boot menu must not reach the system.
CARRIED = (
    "console",
    "phase.mode",
    "phase.channel",
    "phase.provider",
    "phase.cache",
    "phase.nowrite",
    "phase.timeout",
    "phase.rescue",
    "phase.mdns",
    "phase.dht",
    "phase.job",
    "phase.marks",
)
#: Set by the seed itself at handoff; never believed from outside.
SET_AT_HANDOFF = ("phase.rootfs",)


class Parameters(NamedTuple):
    """What the command line asks of Phase."""

    mode: str = "internet"
    channel: str = "stable"
    providers: tuple[str, ...] = ()
    cache: bool = True
    nowrite: bool = False
    mdns: bool = True
    #: DHT nodes to begin with, hosts and ports; None where it is not to be used.
    dht: tuple[tuple[str, int], ...] | None = ()
    #: Seconds the seed may take from the first provider looked for to the handoff.
    timeout: float = 300.0
    rescue: str = "reboot"
    rootfs: str = ""
    job: str = ""
    #: Names and values that could not be used, for one warning line each.
    problems: tuple[str, ...] = ()


def parse(text: str) -> Parameters:
    """Read Phase's parameters from a kernel command line.

    Args:
        text: the content of /proc/cmdline.

    Returns:
        The parameters. A value that cannot be used is left at its default and listed in
        `problems`, as is an unknown `phase.*`: a typing error must not stop a boot.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for word in split(text):
        name, _, value = word.partition("=")
        if not name.startswith("phase."):
            continue
        key = name.removeprefix("phase.")
        if key == "mode" and value in MODES:
            found["mode"] = value
        elif key == "mode":
            # Whoever typed it wanted less than everything.
            found["mode"] = "private"
            problems.append(word)
        elif key == "channel" and _is_name(value):
            found["channel"] = value
        elif key == "provider" and value:
            found["providers"] = tuple(url for url in value.split(",") if url)[:16]
        elif key in ("cache", "mdns") and value in ("on", "off"):
            found[key] = value == "on"
        elif key == "dht" and value == "off":
            found["dht"] = None
        elif key == "dht" and (peers := _peers(value)) is not None:
            found["dht"] = peers
        elif key == "nowrite" and value in ("", "1"):
            found["nowrite"] = True
        elif key == "timeout" and value.isdecimal() and 0 < int(value) <= 86_400:
            found["timeout"] = float(value)
        elif key == "rescue" and value in RESCUES:
            found["rescue"] = value
        elif key == "rootfs" and value.startswith("sha256:") and len(value) == 71:
            found["rootfs"] = value.removeprefix("sha256:")
        elif key == "job" and _is_name(value):
            found["job"] = value
        elif word == "phase.console=shell" or (key == "marks" and value in tuple("123456789")):
            pass  # init reads them; only the signed line can bring the shell there
        else:
            problems.append(word)
    return Parameters(**found, problems=tuple(problems))


def compose(signed: str, running: str, *, rootfs: str) -> str:
    """Build the command line of the second kernel.

    Args:
        signed: the manifest's command line, verified.
        running: this kernel's own command line.
        rootfs: SHA-256 of the rootfs artifact, hex.

    Returns:
        The signed words, then the carried ones the signed line does not set itself, then the
        rootfs hash. A signed word always wins over a carried one of the same name. A word that cannot
        be used is not carried, nor is one that holds a space: who splits the line without knowing
        quotes would find words in it that nobody has allowed.
    """
    words = [word for word in split(signed) if _name(word) not in SET_AT_HANDOFF]
    decided = {_name(word) for word in words}
    meant = [
        f"phase.mode={parse(word).mode}" if _name(word) == "phase.mode" else word for word in split(running)
    ]
    carried = [word for word in meant if _is_carried(word) and _name(word) not in decided]
    return " ".join([*words, *carried, f"phase.rootfs=sha256:{rootfs}"])


def _is_carried(word: str) -> bool:
    if _name(word) not in CARRIED or '"' in word or any(character.isspace() for character in word):
        return False
    return not parse(word).problems


def split(text: str) -> list[str]:
    """Split a kernel command line into words, double quotes kept together as the kernel does."""
    words: list[str] = []
    word = ""
    quoted = False
    for character in text:
        if character == '"':
            quoted = not quoted
        if character.isspace() and not quoted:
            if word:
                words.append(word)
            word = ""
        else:
            word += character
    if word:
        words.append(word)
    return words


def _peers(value: str) -> tuple[tuple[str, int], ...] | None:
    try:
        peers = tuple(peer(text) for text in value.split(","))
        return peers if len(peers) <= MAX_PEERS else None
    except DiscoveryError:
        return None


def _name(word: str) -> str:
    return word.partition("=")[0]


def _is_name(value: str) -> bool:
    return 0 < len(value) <= 64 and all(c.isalnum() or c in "-_" for c in value) and value.isascii()
