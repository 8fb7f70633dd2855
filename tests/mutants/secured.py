"""Secure Boot: who signs, and what a machine does that is locked down."""

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "a kernel keeps the signatures of others",
        "boot/signing.py",
        "        strip(signed)\n",
        "",
        ("tests/boot/test_signing.py",),
    ),
    Mutant(
        "a signature is not checked against the certificate",
        "boot/signing.py",
        """["sbverify", "--cert", signer.certificate, signed]""",
        """["sbverify", "--list", signed]""",
        ("tests/boot/test_signing.py",),
    ),
    Mutant(
        "a kernel that is locked down reads a file that somebody may write to",
        "phase/boot/kexec.py",
        "        _reopen(kernel, os.O_RDONLY)\n",
        "",
        ("tests/phase/boot/test_kexec.py",),
    ),
    Mutant(
        "a release that is refused is asked for every ten seconds",
        "phase/boot/seed.py",
        "                    self.give_way(RESTART_LASTING)\n                    raise\n",
        "                    raise\n",
        ("tests/phase/boot/test_seed.py",),
    ),
)
