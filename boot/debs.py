"""Gets Debian packages of any architecture, without a change to the host's own package state.

A private apt state (own lists, own cache, an empty status file) resolves names to exact versions and
downloads them; apt checks the archive's signatures with Debian's own keyring. `dpkg-deb` unpacks.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from boot import cache
from boot.errors import BuildError
from boot.run import run

DEBIAN_NAMES = {"x86_64": "amd64", "arm64": "arm64"}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PRINTED = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) (?P<hash>\S*)$", re.MULTILINE)


class Deb(NamedTuple):
    """One package, resolved."""

    name: str
    version: str
    sha256: str
    file: str


def resolve(suite: str, arch: str, names: Sequence[str], *, refresh: bool = False) -> list[Deb]:
    """Resolve package names to exact versions, and download them.

    The answer is kept until `refresh`: a security update in the archive must rebuild every image only when a
    person asks for it, and not in the middle of a day's work.

    Args:
        suite: Debian release, such as `bookworm`; its updates and security suites count too.
        arch: `x86_64` or `arm64`.
        names: package names; their dependencies are not followed.
        refresh: ask the archive again.

    Returns:
        One entry per name, in order.

    Raises:
        BuildError: the archive cannot be reached or has no such package.
    """
    base = cache.root() / "apt" / f"{suite}-{arch}"
    kept = base / f"resolved-{cache.key({'names': list(names)})}.json"
    if not refresh and (debs := _kept(kept, base)):
        return debs
    with cache.locked(base / "lock"):
        # Seed and system are built side by side, and ask for the same.
        if not refresh and (debs := _kept(kept, base)):
            return debs
        apt = _Apt(base, suite, arch)
        apt.update(force=refresh)
        debs = apt.find(names)
        apt.download([deb for deb in debs if not (base / "debs" / deb.file).exists()])
        for deb in debs:
            if not (base / "debs" / deb.file).exists():
                raise BuildError(f"apt downloaded no {deb.file} for {deb.name}")
        temporary = kept.with_suffix(".tmp")
        temporary.write_text(json.dumps(debs, indent=1) + "\n")
        temporary.replace(kept)
    return debs


def closure(suite: str, arch: str, names: Sequence[str]) -> list[str]:
    """The names with those of everything that they depend on, sorted; recommendations are left out.

    Args:
        suite: as for `resolve`.
        arch: `x86_64` or `arm64`.
        names: package names.

    Returns:
        Package names. The answer is kept, as that of `resolve` is.

    Raises:
        BuildError: the archive cannot be reached, or has no such packages.
    """
    base = cache.root() / "apt" / f"{suite}-{arch}"
    kept = base / f"closure-{cache.key({'names': list(names)})}.json"
    if kept.exists():
        found: list[str] = json.loads(kept.read_text())
        return found
    with cache.locked(base / "lock"):
        apt = _Apt(base, suite, arch)
        apt.update(force=False)
        found = apt.closure(names)
        temporary = kept.with_suffix(".tmp")
        temporary.write_text(json.dumps(found, indent=1) + "\n")
        temporary.replace(kept)
    return found


def path(suite: str, arch: str, deb: Deb) -> Path:
    """Where a package that was resolved is."""
    return cache.root() / "apt" / f"{suite}-{arch}" / "debs" / deb.file


def _kept(kept: Path, base: Path) -> list[Deb]:
    """What was resolved before; empty when that is not known, or a package is gone."""
    if not kept.exists():
        return []
    debs = [Deb(*entry) for entry in json.loads(kept.read_text())]
    return debs if all((base / "debs" / deb.file).exists() for deb in debs) else []


def unpack(suite: str, arch: str, debs: Sequence[Deb], into: Path) -> None:
    """Unpack packages over each other into one directory; no maintainer script runs."""
    for deb in debs:
        run(["dpkg-deb", "-x", path(suite, arch, deb), into])


class _Apt:
    """The private state of one suite and architecture."""

    def __init__(self, base: Path, suite: str, arch: str) -> None:
        self.base = base
        self.suite = suite
        (base / "debs").mkdir(parents=True, exist_ok=True)
        for name in ("lists/partial", "archives/partial", "preferences.d"):
            (base / name).mkdir(parents=True, exist_ok=True)
        (base / "status").touch()
        self.config = base / "apt.conf"
        self.config.write_text(
            "\n".join(
                [
                    f'APT::Architecture "{DEBIAN_NAMES[arch]}";',
                    f'APT::Architectures {{ "{DEBIAN_NAMES[arch]}"; }};',
                    f'Dir::State "{base}";',
                    f'Dir::State::lists "{base}/lists";',
                    f'Dir::State::status "{base}/status";',
                    f'Dir::Cache "{base}";',
                    f'Dir::Etc::sourcelist "{base}/sources.list";',
                    'Dir::Etc::sourceparts "/dev/null";',
                    f'Dir::Etc::preferencesparts "{base}/preferences.d";',
                    'Acquire::Languages "none";',
                    'Acquire::Retries "3";',
                    'APT::Sandbox::User "root";',
                    "",
                ]
            )
        )

    def _run(self, *argv: str | Path, cwd: Path | None = None) -> str:
        return run(
            argv,
            cwd=cwd,
            env={"APT_CONFIG": str(self.config)},
            hint="Is the Debian archive reachable? `PHASE_DEBIAN_MIRROR=URL` chooses another.",
        )

    def update(self, *, force: bool) -> None:
        sources = self.base / "sources.list"
        wanted = _sources(self.suite)
        if (
            not force
            and sources.exists()
            and sources.read_text() == wanted
            and any(self.base.glob("lists/*_Packages*"))
        ):
            return
        sources.write_text(wanted)
        self._run("apt-get", "-q", "update")

    def find(self, names: Sequence[str]) -> list[Deb]:
        # The short name of a kernel depends on the package of the current kernel.
        depends = self._show([name for name in names if name.startswith("linux-image-cloud-")], "Depends")
        real = {
            name: match.group()
            for name, text in depends.items()
            if (match := re.search(r"linux-image-[0-9][^ ,]*", text))
        }
        wanted = [real.get(name, name) for name in names]
        versions = self._show(wanted, "Version")
        hashes = self._show(wanted, "SHA256")
        for name in wanted:
            if name not in hashes:
                raise BuildError(f"the Debian archive has no package {name} in {self.suite}")
        printed = self._run("apt-get", "download", "--print-uris", *wanted)
        files = {match["file"].partition("_")[0]: match["file"] for match in _PRINTED.finditer(printed)}
        return [Deb(name, versions[name], hashes[name], files[name]) for name in wanted]

    def closure(self, names: Sequence[str]) -> list[str]:
        said = self._run("apt-get", "--simulate", "--no-install-recommends", "install", *names)
        return sorted(set(re.findall(r"^Inst (\S+) ", said, re.MULTILINE)))

    def _show(self, names: Sequence[str], field: str) -> dict[str, str]:
        if not names:
            return {}
        text = self._run("apt-cache", "show", "--no-all-versions", *names)
        found = {}
        for stanza in text.split("\n\n"):
            name = re.search(r"^Package: (.*)$", stanza, re.MULTILINE)
            value = re.search(rf"^{field}: (.*)$", stanza, re.MULTILINE)
            if name and value:
                found[name.group(1)] = value.group(1)
        return found

    def download(self, debs: Sequence[Deb]) -> None:
        if debs:
            self._run(
                "apt-get",
                "-q",
                "download",
                *(f"{deb.name}={deb.version}" for deb in debs),
                cwd=self.base / "debs",
            )


def _sources(suite: str) -> str:
    """The apt source lines: the Debian mirrors that this host already uses, otherwise the given one."""
    if not _KEYRING.exists():
        raise BuildError(
            "Debian's archive keyring is missing", hint="Install the package debian-archive-keyring."
        )
    main = os.environ.get("PHASE_DEBIAN_MIRROR", "")
    security = os.environ.get("PHASE_DEBIAN_SECURITY_MIRROR", "")
    if not main:
        # The host's own sources; -o selects them for this call, for any APT_CONFIG.
        for uri in run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split():
            if re.search(r"/debian/?$", uri):
                main = main or uri
            elif re.search(r"/debian-security/?$", uri):
                security = security or uri
    if not main:
        raise BuildError(
            "this host's apt knows no Debian archive",
            hint="Set PHASE_DEBIAN_MIRROR (and PHASE_DEBIAN_SECURITY_MIRROR) to a mirror's URL.",
        )
    signed = f"[signed-by={_KEYRING}]"
    lines = [f"deb {signed} {main} {suite} main", f"deb {signed} {main} {suite}-updates main"]
    if security:
        lines.append(f"deb {signed} {security} {suite}-security main")
    return "\n".join(lines) + "\n"
