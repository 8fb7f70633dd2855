"""Secure Boot: who signs, and what a machine does that is locked down. Measured boot: what a TPM is told."""

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
    Mutant(
        "a release that is refused is not left for the one before it",
        "phase/boot/seed.py",
        "            fallback.count(manifest, chosen, self.cache)\n            raise\n",
        "            raise\n",
        ("tests/phase/boot/test_fallback.py",),
    ),
    # Measured boot
    Mutant(
        "a TPM that refuses is passed over",
        "phase/boot/tpm.py",
        "    if code or length != len(answer):\n",
        "    if False:\n",
        ("tests/phase/boot/test_tpm.py",),
    ),
    Mutant(
        "a TPM of another version is given commands",
        "phase/boot/tpm.py",
        'not os.path.exists(device) or _read(version) != b"2"',
        "not os.path.exists(device)",
        ("tests/phase/boot/test_tpm.py",),
    ),
    Mutant(
        "nothing is measured",
        "phase/boot/seed.py",
        "if self.machine.measure(self.events):",
        "if False:",
        ("tests/phase/boot/test_measured.py", "tests/phase/boot/test_seed.py"),
    ),
    Mutant(
        "the manifest is not measured",
        "phase/measured.py",
        '("manifest", manifest)',
        '("manifest", b"")',
        ("tests/phase/boot/test_tpm.py", "tests/phase/boot/test_measured.py"),
    ),
    Mutant(
        "the command line is not measured",
        "phase/measured.py",
        '("cmdline", line.encode())',
        '("cmdline", b"")',
        ("tests/phase/boot/test_tpm.py", "tests/phase/boot/test_measured.py"),
    ),
)
