"""The list of what a medium holds and what it was made of, as SPDX 2.3 in JSON.

Source: the SPDX specification 2.3, and its JSON schema.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from boot import debs, tree
from boot.media.disk import Files

_NAMESPACE = "https://phase.dev/spdx"
_MEDIUM = "SPDXRef-Medium"


class Package(NamedTuple):
    """A package that something on a medium was made of.

    Attributes:
        kind: `deb` or `wheel`.
        name: in its archive.
        version: of it.
        arch: as Debian calls it; empty for a wheel.
        sha256: of its file, hex; empty where that is not known.
    """

    kind: str
    name: str
    version: str
    arch: str = ""
    sha256: str = ""

    @property
    def locator(self) -> str:
        """Its package URL. Source: the purl specification."""
        version = quote(self.version, safe=":")
        if self.kind == "wheel":
            return f"pkg:pypi/{self.name}@{version}"
        suite = tree.packages()["debian"]["suite"]
        return f"pkg:deb/debian/{quote(self.name)}@{version}?arch={self.arch}&distro={suite}"


def of_seed(arch: str, contents: Path) -> Iterator[Package]:
    """The packages that a seed was made of; its tree has those of systems, too.

    Args:
        arch: `x86_64` or `arm64`.
        contents: `contents.json` of the seed's image.
    """
    wanted = tree.packages()
    names = {*wanted["debian"]["seed"], *(each.partition("==")[0] for each in wanted["wheels"]["seed"])}
    for each in json.loads(contents.read_text())["packages"]:
        if each["name"] not in names and not each["name"].startswith("linux-image-"):
            continue
        if each["kind"] == "deb":
            yield of_deb(arch, debs.Deb(each["name"], each["version"], each["sha256"], ""))
        else:
            yield Package("wheel", each["name"], each["version"])


def of_deb(arch: str, deb: debs.Deb) -> Package:
    """A Debian package.

    Args:
        arch: `x86_64` or `arm64`.
        deb: the package.
    """
    return Package("deb", deb.name, deb.version, debs.DEBIAN_NAMES[arch], deb.sha256)


def document(medium: Path, name: str, files: Files, packages: Sequence[Package], built: int) -> bytes:
    """The list.

    Args:
        medium: the finished file.
        name: that it will have.
        files: path on it to content.
        packages: that it was made of.
        built: Unix seconds.
    """
    digest = _digest(medium)
    listed = [_file(path, files[path]) for path in sorted(files)]
    made_of = [_package(number, each) for number, each in enumerate(sorted(set(packages)), 1)]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", _MEDIUM)]
    relations += [(_MEDIUM, "CONTAINS", each["SPDXID"]) for each in listed]
    relations += [(_MEDIUM, "GENERATED_FROM", each["SPDXID"]) for each in made_of]
    found = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"{_NAMESPACE}/{digest}",
        "creationInfo": {
            "created": datetime.fromtimestamp(built, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: phase-{_version()}"],
        },
        "packages": [_medium(name, digest, listed), *made_of],
        "files": listed,
        "relationships": [
            {"spdxElementId": one, "relationshipType": what, "relatedSpdxElement": other}
            for one, what, other in relations
        ],
    }
    return (json.dumps(found, indent=1) + "\n").encode()


def _medium(name: str, digest: str, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    sums = sorted(each["checksums"][0]["checksumValue"] for each in files)
    # SPDX's own way to name a set of files, 7.9.
    code = hashlib.sha1("".join(sums).encode(), usedforsecurity=False).hexdigest()
    return {
        "SPDXID": _MEDIUM,
        "name": name,
        "packageFileName": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": True,
        "packageVerificationCode": {"packageVerificationCodeValue": code},
        "checksums": [_checksum("SHA256", digest)],
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    }


def _file(path: str, content: bytes | Path) -> dict[str, Any]:
    data = content.read_bytes() if isinstance(content, Path) else content
    # A file has to have a SHA-1 (SPDX 8.4).
    old = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return {
        "SPDXID": f"SPDXRef-File-{hashlib.sha256(path.encode()).hexdigest()[:16]}",
        "fileName": f"./{path}",
        "checksums": [_checksum("SHA1", old), _checksum("SHA256", hashlib.sha256(data).hexdigest())],
    }


def _package(number: int, package: Package) -> dict[str, Any]:
    found: dict[str, Any] = {
        "SPDXID": f"SPDXRef-Package-{number}",
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.locator,
            }
        ],
    }
    if package.sha256:
        found["checksums"] = [_checksum("SHA256", package.sha256)]
    return found


def _checksum(algorithm: str, value: str) -> dict[str, str]:
    return {"algorithm": algorithm, "checksumValue": value}


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _version() -> str:
    with (tree.HERE.parent / "pyproject.toml").open("rb") as handle:
        return str(tomllib.load(handle)["project"]["version"])
