import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from boot import images, signing
from boot.errors import BuildError
from boot.media import build
from boot.uki import stub
from scenarios import secure_boot


@pytest.fixture
def program(tmp_path: Path) -> Path:
    copy = tmp_path / "program"
    copy.write_bytes(stub("x86_64").read_bytes())
    return copy


def test_what_was_signed_verifies_with_the_certificate(program: Path, tmp_path: Path) -> None:
    ours, theirs = (secure_boot.signer(tmp_path, name) for name in ("ours", "theirs"))
    signing.sign(program, ours)
    for who, code in ((ours, 0), (theirs, 1)):
        done = subprocess.run(["sbverify", "--cert", who.certificate, program], check=False)
        assert done.returncode == code


def test_another_certificate_leaves_the_program_as_it_was(program: Path, tmp_path: Path) -> None:
    ours, theirs = (secure_boot.signer(tmp_path, name) for name in ("ours", "theirs"))
    before = program.read_bytes()
    with pytest.raises(BuildError, match=r"theirs\.pem"):
        signing.sign(program, signing.Signer(ours.key, theirs.certificate))
    assert program.read_bytes() == before
    assert not program.with_name("program.signed").exists()


def test_a_kernel_has_one_signature_in_the_end(tmp_path: Path) -> None:
    """Debian has signed it already; with two, no kernel that is locked down takes it."""
    kernel = tmp_path / "kernel"
    shutil.copyfile(images.system("x86_64").kernel, kernel)
    assert signatures(kernel) == 1
    ours = secure_boot.signer(tmp_path, "ours")
    signing.sign(kernel, ours)
    assert signatures(kernel) == 1
    subprocess.run(["sbverify", "--cert", ours.certificate, kernel], check=True)
    signing.strip(kernel)
    assert signatures(kernel) == 0


def signatures(program: Path) -> int:
    """How many a UEFI program has."""
    listed = subprocess.run(["sbverify", "--list", program], check=True, capture_output=True, text=True)
    return sum(line.startswith("signature ") for line in listed.stdout.splitlines())


def test_a_loader_that_nobody_signs_is_refused(tmp_path: Path) -> None:
    plan = build.Plan(("x86_64",), b"", signer=signing.Signer(tmp_path / "key", tmp_path / "cert"))
    with pytest.raises(BuildError, match="--loader uki"):
        build.build("usb", plan, tmp_path / "stick.img")


@pytest.mark.parametrize("options", [("--sign-key", "k"), ("--sign-cert", "c")])
def test_a_key_needs_its_certificate(options: tuple[str, str], tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    signing.add_options(parser)
    assert signing.chosen(parser.parse_args([])) is None
    with pytest.raises(BuildError, match="belong together"):
        signing.chosen(parser.parse_args(options))
    named = ["--sign-key", str(tmp_path / "none"), "--sign-cert", str(tmp_path / "none")]
    with pytest.raises(BuildError, match="is not a file"):
        signing.chosen(parser.parse_args(named))
