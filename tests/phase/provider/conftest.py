import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

KEYS = ReleaseKeys.from_seed("provider tests")
FILES = {"kernel": b"kernel " * 900, "initramfs": b"initramfs " * 700, "rootfs": bytes(range(256)) * 9000}

Publish = Callable[..., Path]
#: The path of an artifact's name and bytes.
PathOf = Callable[[str, bytes], str]


@pytest.fixture(params=["aiohttp", "direct"])
def path_of(request: pytest.FixtureRequest) -> PathOf:
    """Two paths of the same bytes: aiohttp answers the one, `phase.provider.direct` the other."""
    if request.param == "aiohttp":
        return lambda name, data: f"/stable/x86_64/{name}"
    return lambda name, data: f"/blobs/sha256/{sha256(data).hexdigest()}"


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Publish a release into one repository, really signed."""
    directory = tmp_path / "repository"

    def publish(
        release: str = "1.0.0",
        *,
        channel: str = "stable",
        arch: str = "x86_64",
        cmdline: str = "console=ttyS0",
        **files: bytes,
    ) -> Path:
        sources = {}
        for name, data in (files or FILES).items():
            sources[name] = tmp_path / f"source-{name}"
            sources[name].write_bytes(data)
        if (directory / "metadata" / "timestamp.json").exists():
            repository = Repository.open(directory, keys=KEYS)
        else:
            repository = Repository.create(directory, keys=KEYS)
        repository.add(channel, arch, sources, cmdline=cmdline, release=release)
        repository.publish()
        return directory

    return publish


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate for loopback that signs itself, and its key."""
    made = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", made[0], "-keyout", made[1]], capture_output=True, check=True)
    return made
