"""What there is to boot: a provider's seeds, and programs of iPXE if they are given."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from phase.errors import unreadable
from phase.fetch.errors import NoSuchFileError
from phase.fetch.http import Connection, Url
from phase.netboot.dhcp import MAX_NAME, Question, Way
from phase.netboot.errors import NetbootError

#: The longest seed and the longest program of iPXE, bytes.
MAX_SEED, MAX_IPXE = 256 << 20, 16 << 20
_MAX_SCRIPT = 1 << 16
_MAX_MANIFEST = 16 << 20
#: Seconds for all files of one architecture.
_SECONDS = 120.0
#: Every UEFI program begins so (PE/COFF).
_PROGRAM = b"MZ"
#: The name of iPXE for machines with a BIOS, beside those of the architectures.
BIOS = "bios"


class Seed(NamedTuple):
    """A seed of one architecture.

    Attributes:
        image: its unified kernel image.
        script: whether the provider has a script of iPXE for it.
        manifest: SHA-256 of what describes it, by which a newer one is known; empty where there is none.
    """

    image: bytes
    script: bool
    manifest: str = ""


class Menu(NamedTuple):
    """What machines are told to boot.

    Attributes:
        url: the provider.
        channel: of its seeds.
        seeds: by architecture.
        ipxe: programs of iPXE by architecture, and for `bios`.
        tftp: whether machines can fetch files from here.
    """

    url: Url
    channel: str
    seeds: Mapping[str, Seed]
    ipxe: Mapping[str, bytes] = {}
    tftp: bool = True

    def told(self, question: Question, server: IPv4Address) -> str | None:
        """The boot file of a machine: a name for TFTP, or a URL; None where there is none for it.

        Args:
            question: of the machine.
            server: this machine's address, as the other one reaches it.
        """
        arch = question.firmware.arch
        seed = self.seeds.get(arch)
        if seed is None:
            return None
        name: str | None = None
        if question.way is Way.IPXE:
            name = self._http(arch, "boot.ipxe", server) if seed.script else None
        elif question.way is Way.HTTP:
            name = self._http(arch, "boot.efi", server)
        elif self.tftp:
            name = self._tftp(arch, seed, bios=question.firmware.bios)
        return name if name is not None and len(name.encode()) <= MAX_NAME else None

    def files(self) -> dict[str, bytes]:
        """What is served by TFTP, by name."""
        found = {f"{arch}/boot.efi": seed.image for arch, seed in self.seeds.items()}
        return found | {_program(name): content for name, content in self.ipxe.items()}

    def _tftp(self, arch: str, seed: Seed, *, bios: bool) -> str | None:
        program = BIOS if bios else arch
        if program in self.ipxe and seed.script:
            return _program(program)
        return None if bios else f"{arch}/boot.efi"

    def _http(self, arch: str, file: str, server: IPv4Address) -> str:
        """The provider's URL; one that is on this machine is told by the address that others know."""
        url = self.url._replace(host=str(server)) if _is_here(self.url.host) else self.url
        return f"http://{url.authority}{url.prefix}/{self.channel}/{arch}/{file}"


def fetch(
    url: Url,
    channel: str,
    arches: Sequence[str],
    before: Mapping[str, Seed] | None = None,
    *,
    proven: Callable[[str, float], bytes] | None = None,
) -> dict[str, Seed]:
    """The seeds that a provider has; what it has not is left out. Blocks.

    Args:
        url: the provider.
        channel: of the seeds.
        arches: to look for.
        before: what it had; what is described as before is not fetched again.
        proven: fetches a verified image of an architecture within so many seconds; what the provider sends
            is believed when left out.

    Raises:
        FetchError: the provider does not answer.
        NetbootError: it answers, and not with a seed.
        TrustError: its seed is not proven.
    """
    found: dict[str, Seed] = {}
    connection = Connection(url)
    try:
        for arch in arches:
            seed = _seed(connection, channel, arch, (before or {}).get(arch), proven)
            if seed is not None:
                found[arch] = seed
    finally:
        connection.close()
    return found


def _seed(
    connection: Connection,
    channel: str,
    arch: str,
    before: Seed | None,
    proven: Callable[[str, float], bytes] | None,
) -> Seed | None:
    place = f"/{channel}/{arch}"
    manifest = _get(connection, f"{place}/manifest.json", _MAX_MANIFEST)
    if before is not None and manifest is not None and before.manifest == _digest(manifest):
        return before
    if proven is None:
        image = _get(connection, f"{place}/boot.efi", MAX_SEED)
    else:
        image = proven(arch, _SECONDS) if manifest is not None else None
    if image is None:
        return None
    if not image.startswith(_PROGRAM):
        raise NetbootError(f"{connection.url.text}{place}/boot.efi is no UEFI program")
    script = _get(connection, f"{place}/boot.ipxe", _MAX_SCRIPT)
    return Seed(
        image, script is not None and script.startswith(b"#!ipxe"), _digest(manifest) if manifest else ""
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def program(name: str, path: Path) -> bytes:
    """A program of iPXE, from a file.

    Args:
        name: the architecture, or `bios`.
        path: of the file.

    Raises:
        NetbootError: it cannot be read, or cannot be such a program.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NetbootError(unreadable(path, error)) from error
    if not content or len(content) > MAX_IPXE:
        raise NetbootError(f"{path} has {len(content)} bytes; iPXE has 1 to {MAX_IPXE}")
    if name != BIOS and not content.startswith(_PROGRAM):
        raise NetbootError(f"{path} is no UEFI program", hint="Give ipxe.efi or snponly.efi for UEFI.")
    return content


def _program(name: str) -> str:
    return f"{name}/ipxe.{'kpxe' if name == BIOS else 'efi'}"


def _get(connection: Connection, path: str, most: int) -> bytes | None:
    try:
        return connection.get(path, deadline=monotonic() + _SECONDS).read(most)
    except NoSuchFileError:
        return None


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
