"""A release as an OCI image layout: what registries hold, and what distributes from them carries.

Each release is an artifact manifest. Its layers are the files that a machine needs to verify and boot the
release, and each layer is called by its path in a repository: pulled under these names they are a
directory that `phase serve` serves and `phase release verify` judges. Nothing of the layout is signed, and
nothing has to be: what is in the layers is.

Source: OCI image layout and image manifest 1.1, "Guidelines for Artifact Usage".
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from phase.release import blobs
from phase.release.export import Target, turn
from phase.release.tree import Tree

RELEASE = "application/vnd.phase.release.v1"
ARTIFACT = "application/vnd.phase.artifact.v1"
METADATA = "application/vnd.phase.metadata.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_TITLE = "org.opencontainers.image.title"
_VERSION = "org.opencontainers.image.version"
_REFERENCE = "org.opencontainers.image.ref.name"
#: Architectures as Go calls them.
_GO_NAMES = {"x86_64": "amd64", "arm64": "arm64"}
_Json = dict[str, Any]


def export(repository: Tree, target: Path, only: Iterable[tuple[str, str]] | None = None) -> int:
    """Write releases as an image layout; a release's reference is `CHANNEL-ARCH`.

    Args:
        repository: published.
        target: directory to fill. Existing files with the same content are left alone.
        only: channels and architectures; all when left out. The layout's index names these alone.

    Returns:
        How many files were written.

    Raises:
        RepositoryError: not published, or a file cannot be copied.
    """
    wanted = list(only) if only is not None else repository.releases()
    written = 0
    with Target(target) as layout:
        entries = []
        for channel, arch in wanted:
            manifest, count = _write(repository, layout, channel, arch)
            written += count
            entries.append(manifest | _named(channel, arch))
        written += layout.put((), "oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}
        written += layout.put((), "index.json", _encode(index))
        layout.sweep([(), ("blobs", "sha256")])
    return written


def _write(repository: Tree, layout: Target, channel: str, arch: str) -> tuple[_Json, int]:
    """Write one release; its descriptor, and how many files were written."""
    release = repository.manifest(channel, arch)
    layers, written = [], 0
    for artifact in release.artifacts.values():
        written += layout.blob(repository.directory / blobs.PLACE / artifact.sha256, artifact.sha256)
        title = f"{blobs.PLACE}/{artifact.sha256}"
        layer = _descriptor(ARTIFACT, artifact.sha256, artifact.length, title)
        layer["annotations"]["dev.phase.artifact"] = artifact.name
        layers.append(layer)
    metadata = repository.metadata([(channel, arch)])
    for name in sorted(metadata, key=turn):
        layer, count = _put(layout, METADATA, metadata[name], f"metadata/{name}")
        layers.append(layer)
        written += count
    config, count = _put(layout, _EMPTY, b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": RELEASE,
        "config": config,
        "layers": layers,
        "annotations": {_VERSION: release.release, "dev.phase.channel": channel, "dev.phase.arch": arch},
    }
    described, more = _put(layout, _MANIFEST, _encode(manifest))
    return described, written + count + more


def _put(layout: Target, kind: str, data: bytes, title: str = "") -> tuple[_Json, int]:
    digest = hashlib.sha256(data).hexdigest()
    return _descriptor(kind, digest, len(data), title), layout.put(("blobs", "sha256"), digest, data)


def _descriptor(kind: str, sha256: str, length: int, title: str = "") -> _Json:
    found: _Json = {"mediaType": kind, "digest": f"sha256:{sha256}", "size": length}
    return found | ({"annotations": {_TITLE: title}} if title else {})


def _named(channel: str, arch: str) -> _Json:
    return {
        "artifactType": RELEASE,
        "platform": {"architecture": _GO_NAMES[arch], "os": "linux"},
        "annotations": {_REFERENCE: f"{channel}-{arch}"},
    }


def _encode(value: object) -> bytes:
    """JSON that is the same for the same content."""
    return json.dumps(value, indent=1).encode() + b"\n"
