"""Signs UEFI programs for Secure Boot, with keys of one's own.

The key is the publisher's for machines whose firmware trusts its certificate. It signs what firmware starts,
and nothing else of Phase: releases have keys of their own.

Sources: Microsoft's Authenticode format for PE programs; the UEFI specification, "Secure Boot"; Linux
crypto/asymmetric_keys/verify_pefile.c.
"""

import argparse
import shutil
from pathlib import Path
from typing import NamedTuple

from boot.errors import BuildError
from boot.run import run


class Signer(NamedTuple):
    """Who signs.

    Attributes:
        key: a private RSA key in PEM, without a passphrase.
        certificate: of that key, in PEM; firmware knows it, or the one that issued it.
    """

    key: Path
    certificate: Path


def add_options(parser: argparse.ArgumentParser, what: str = "uki") -> None:
    """Add `--sign-key` and `--sign-cert`.

    Args:
        parser: of the command.
        what: the command signs.
    """
    parser.add_argument(
        "--sign-key",
        type=Path,
        metavar="FILE",
        help=f"sign the {what} for Secure Boot with this key, PEM; with --sign-cert",
    )
    parser.add_argument(
        "--sign-cert", type=Path, metavar="FILE", help="certificate of the key of --sign-key, PEM"
    )


def chosen(arguments: argparse.Namespace) -> Signer | None:
    """Who is to sign, by the options; None without them.

    Raises:
        BuildError: a file is missing, or only one of the two is named.
    """
    key, certificate = arguments.sign_key, arguments.sign_cert
    if key is None and certificate is None:
        return None
    if key is None or certificate is None:
        raise BuildError("--sign-key and --sign-cert belong together", hint="Name both, or neither.")
    for path in (key, certificate):
        if not path.is_file():
            raise BuildError(f"{path} is not a file", hint="docs/use/secure-boot.md makes one.")
    return Signer(key, certificate)


def sign(program: Path, signer: Signer) -> None:
    """Sign a UEFI program in place, a kernel among them, and check the signature.

    Signatures of others are taken off: the kernel that hands over takes a kernel with one, and no more.

    Args:
        program: the file; it is signed, or as before.
        signer: who signs.

    Raises:
        BuildError: it cannot be signed, or the certificate is not the key's.
    """
    signed = program.with_name(f"{program.name}.signed")
    hint = "The key and its certificate have to be PEM, the key RSA and without a passphrase."
    try:
        shutil.copyfile(program, signed)
        strip(signed)
        run(
            ["sbsign", "--key", signer.key, "--cert", signer.certificate, "--output", signed, signed],
            hint=hint,
        )
        run(
            ["sbverify", "--cert", signer.certificate, signed],
            hint=f"Is {signer.certificate} the certificate of {signer.key}?",
        )
        signed.replace(program)
    finally:
        signed.unlink(missing_ok=True)


def strip(program: Path) -> None:
    """Take all signatures off a UEFI program, in place.

    Args:
        program: the file.

    Raises:
        BuildError: it is not such a program.
    """
    for line in run(["sbverify", "--list", program]).splitlines():
        if line.startswith("signature "):
            run(["sbattach", "--remove", program])
