"""Keys of one's own for Secure Boot, and firmware that trusts them alone."""

import subprocess
import sys
import uuid
from pathlib import Path

from boot.signing import Signer
from lab.qemu.command import Firmware
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios import images
from scenarios.images import Release

#: Debian's firmware with Secure Boot, and variables in which it is on. They trust a key of Debian's, which
#: anyone has: it is taken out. ARM64's other file has no variables, and virt-firmware adds none to that.
_FIRMWARE = {
    "x86_64": Firmware(
        Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"),
        Path("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"),
        True,
    ),
    "arm64": Firmware(
        Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.snakeoil.fd")
    ),
}
_KEYS = ("PK", "KEK", "db")


def signer(directory: Path, name: str) -> Signer:
    """A new key with a certificate of its own.

    Args:
        directory: for its two files.
        name: of the files, and in the certificate.
    """
    made = Signer(directory / f"{name}.key", directory / f"{name}.pem")
    words: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "30"]
    words += ["-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate]
    subprocess.run(words, check=True, capture_output=True)
    return made


def release(arch: str, kernel: Path, directory: Path) -> Release:
    """A release of an architecture's system with another kernel.

    Args:
        arch: `x86_64` or `arm64`.
        kernel: its file.
        directory: where the repository is made.
    """
    (system,) = images.built((arch,))
    repository = Repository.create(directory, keys=release_keys.load(images.KEYS / "lab"))
    artifacts = {**system.artifacts(), "kernel": kernel}
    repository.add(images.CHANNEL, arch, artifacts, cmdline=images.SIGNED_CMDLINE, release="1.0.0")
    repository.publish()
    return Release(directory, repository)


def firmware(arch: str, directory: Path) -> tuple[Firmware, Signer]:
    """Firmware that enforces Secure Boot, and who signs for it.

    Args:
        arch: `x86_64` or `arm64`.
        directory: for the keys and the variables.
    """
    signers = {name: signer(directory, name) for name in _KEYS}
    base = _FIRMWARE[arch]
    variables = directory / "enrolled.fd"
    owner = str(uuid.uuid4())
    words: list[str | Path] = ["--input", base.variables, "--output", variables]
    for name in (*_KEYS, "dbx"):
        words += ["--delete", name]
    for option, name in zip(("--set-pk", "--add-kek", "--add-db"), _KEYS, strict=True):
        words += [option, owner, signers[name].certificate]
    words += ["--secure-boot"]
    subprocess.run([sys.executable, "-m", "virt.firmware.vars", *words], check=True, capture_output=True)
    return base._replace(variables=variables), signers["db"]
