"""A repository for files nobody signed: made on this machine, with keys of this machine.

For a first try, and for machines that are given this root. The state directory holds the keys and
the repository; the artifacts stay as they are.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import msgspec

from phase import arch as arches
from phase import files
from phase.foreign import MalformedError, read_json
from phase.release import keys as release_keys
from phase.release.errors import RepositoryError
from phase.release.manifest import check_cmdline, role_name
from phase.release.repository import Repository

#: Names people give artifacts, by the artifact they are; the first that is there counts.
NAMES = {
    "kernel": ("kernel", "vmlinuz", "bzImage", "Image", "linux"),
    "initramfs": ("initramfs", "initramfs.img", "initrd.img", "initrd", "initramfs.cpio"),
    "rootfs": ("rootfs", "rootfs.squashfs", "rootfs.img", "rootfs.sqfs", "root.squashfs"),
    "uki": ("uki", "uki.efi", "linux.efi"),
}
_MAX_CMDLINE = 4096
_SCANNED = "scanned.json"
#: Seconds after which signatures are looked at again; they hold for a day.
RENEW_SECONDS = 3600.0


class Refreshed(NamedTuple):
    """What a refresh did.

    Attributes:
        created: the repository is new, and so are its keys.
        signed: why something was signed anew; empty if all still holds.
        lines: the same for people.
    """

    created: bool
    signed: tuple[str, ...]
    lines: tuple[str, ...]


class LocalRepository:
    """A directory of artifacts, kept signed.

    Args:
        artifacts: holds `{channel}/{arch}/kernel` and so on, and perhaps a file `cmdline` beside them.
        state: where keys and repository are kept.
        channel: which release.
        arch: any usual name.
    """

    def __init__(self, artifacts: Path, state: Path, channel: str, arch: str) -> None:
        self.channel = channel
        self.arch = arches.canonical(arch)
        self._role = role_name(channel, self.arch)
        self._source = artifacts / channel / self.arch
        self._state = state
        #: What a provider serves.
        self.directory = state / "tree"
        self.keys = state / "keys"
        #: What the artifacts looked like at the last look, and when they were signed last; for `keep_up`.
        self._seen = ""
        self._signed: tuple[float, str] | None = None

    def refresh(self, *, now: datetime | None = None) -> Refreshed:
        """Make the repository, or sign anew what has changed or expires soon.

        Call again now and then while serving, well within a day.

        Args:
            now: the time to sign for, UTC; the clock's when left out.

        Returns:
            What was done.

        Raises:
            ReleaseError: no kernel there, or something cannot be read, signed or written.
        """
        found = find_artifacts(self._source)
        try:
            with self._locked():
                scan = _scan(found, read_cmdline(self._source))
                done = self._refresh(found, scan, now or datetime.now(UTC))
        except OSError as error:
            raise RepositoryError(
                f"local repository {self._state} cannot be written: {error.strerror}",
                hint="Choose a writable state directory.",
            ) from error
        self._seen, self._signed = scan, (monotonic(), scan)
        return done

    def keep_up(self) -> Refreshed | None:
        """Look whether something has changed or expires soon, and sign it then. Call every few seconds.

        A file that is being copied is left alone: what changes counts once it has stayed the same
        from one look to the next.

        Returns:
            What was done, if anything had to be.

        Raises:
            ReleaseError: as `refresh`.
        """
        scan = _scan(find_artifacts(self._source), read_cmdline(self._source))
        settled, self._seen = scan == self._seen, scan
        when, signed = self._signed or (-RENEW_SECONDS, "")
        if not settled or (scan == signed and monotonic() - when < RENEW_SECONDS):
            return None
        return self.refresh()

    def _refresh(self, found: dict[str, Path], scan: str, now: datetime) -> Refreshed:
        created = not (self.directory / "metadata" / "timestamp.json").exists()
        if created and not self.keys.exists():
            release_keys.ReleaseKeys.generate(release_keys.LOCAL_COUNTS).save(self.keys)
        keys = release_keys.load(self.keys)
        if created:
            repository = Repository.create(self.directory, keys=keys, now=now)
        else:
            repository = Repository.open(self.directory, keys=keys, now=now)
        cmdline = read_cmdline(self._source)
        reasons = [f"{role} expires soon" for role in repository.renew()]
        scans = self._scans()
        known = (self.channel, self.arch) in repository.releases()
        if scans.get(self._role) != scan or not known:
            reasons.insert(0, f"{self._role} has changed" if known else f"{self._role} is new")
            repository.add(self.channel, self.arch, found, cmdline=cmdline, release=f"local-{scan[:12]}")
            if _scan(found, cmdline) != scan:
                raise RepositoryError(
                    f"{self._source} was written to while it was read", hint="Try again when it is complete."
                )
        if reasons:
            repository.publish()
            # Last: interrupted before, the next refresh signs once more; never once too few.
            text = msgspec.json.encode({**scans, self._role: scan})
            files.write(self._state / _SCANNED, text)
        return Refreshed(created, tuple(reasons), self._told(created, reasons, sorted(found)))

    def _told(self, created: bool, reasons: list[str], names: list[str]) -> tuple[str, ...]:
        root = self.directory / "metadata" / "1.root.json"
        lines = []
        if created:
            lines.append(f"{self._source} holds no signed release: made one in {self._state}")
            lines.append(f"signed with keys of this machine only; a seed must be given {root} to believe it")
        if reasons:
            lines.append(f"signed {', '.join(names)} as {self._role}: {'; '.join(reasons)}")
        return tuple(lines)

    def _scans(self) -> dict[str, str]:
        try:
            return read_json((self._state / _SCANNED).read_bytes(), dict[str, str])
        except (FileNotFoundError, MalformedError):
            return {}  # costs one more signature, no more

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep a second process from signing the same version of something else."""
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def find_artifacts(directory: Path) -> dict[str, Path]:
    """The artifacts of a directory, under any of their usual names.

    Args:
        directory: `{channel}/{arch}` of an artifacts directory.

    Returns:
        Name to file.

    Raises:
        RepositoryError: no such directory, or no kernel in it.
    """
    try:
        there = {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
    except OSError as error:
        raise RepositoryError(
            f"no artifacts at {directory}: {error.strerror}",
            hint="Put kernel, initramfs and rootfs into {channel}/{arch} of the artifacts directory.",
        ) from error
    found = {}
    for name, usual in NAMES.items():
        match = next((there[each] for each in usual if each in there), None)
        if match is not None:
            found[name] = match
    found.update({name: path for name, path in there.items() if name.startswith("dtb-")})
    if "kernel" not in found:
        raise RepositoryError(
            f"no kernel in {directory}; it has {', '.join(there)[:200] or 'nothing'}",
            hint=f"Call it one of {', '.join(NAMES['kernel'])}.",
        )
    return found


def read_cmdline(directory: Path) -> str:
    """The kernel command line in the file `cmdline`, or nothing.

    Raises:
        ManifestError: it is no command line.
    """
    try:
        with (directory / "cmdline").open("rb") as handle:
            text = handle.read(_MAX_CMDLINE).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return check_cmdline(" ".join(text.split()))


def _scan(found: dict[str, Path], cmdline: str) -> str:
    """A digest that changes when a file is replaced or written to, without reading it."""
    facts: list[object] = [cmdline]
    for name, path in sorted(found.items()):
        try:
            status = path.stat()
        except OSError as error:
            raise RepositoryError(f"{path} cannot be read: {error.strerror}") from error
        facts.append((name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns))
    return sha256(msgspec.json.encode(facts)).hexdigest()
