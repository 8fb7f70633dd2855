"""What makes others' bytes believed: trust, jobs and their receipts."""

from tests.mutants.mutant import Mutant

TRUST = ("tests/phase/trust",)
JOBS = ("tests/phase/jobs",)
DSSE = ("tests/phase/test_dsse.py",)
_STATE = "phase/trust/state.py"
_RECEIPT = "phase/jobs/receipt.py"

MUTANTS = (
    # Trust
    Mutant(
        "metadata signatures are not checked",
        "phase/trust/keys.py",
        "            crypto_sign_open(raw + data, self.raw)\n",
        "            pass\n",
        TRUST,
    ),
    Mutant("one signature is always enough", _STATE, "len(signed) < role.threshold", "not signed", TRUST),
    Mutant(
        "one key under two names counts twice",
        _STATE,
        "            signed.add(key.raw)\n",
        "            signed.add(keyid.encode())\n",
        TRUST,
    ),
    Mutant("nothing expires", _STATE, "if not signed.is_expired(self.now):", "if True:", TRUST),
    Mutant(
        "what is signed offline has a grace too",
        _STATE,
        "signed.is_expired(self.now - timedelta(seconds=grace))",
        "signed.is_expired(self.now - timedelta(seconds=self.policy.grace))",
        TRUST,
    ),
    Mutant("older metadata is taken", _STATE, "    if found < floor:", "    if False:", TRUST),
    Mutant("an older root is taken", _STATE, "self.root.version < least", "False", TRUST),
    Mutant("roots may leave versions out", _STATE, "if root.version != expected:", "if False:", TRUST),
    Mutant(
        "a new root needs no old root's word",
        _STATE,
        'self.root.roles["root"], self.root.keys, f"{name} (by the previous root)"',
        'root.roles["root"], root.keys, name',
        TRUST,
    ),
    Mutant(
        "a new root need not sign itself",
        _STATE,
        '        _check_signatures(opened, root.roles["root"], root.keys, f"{name} (by its own keys)")\n',
        "",
        TRUST,
    ),
    Mutant("mixed metadata is taken", _STATE, "    if found != pin.version:", "    if False:", TRUST),
    Mutant("a pinned hash is not compared", _STATE, "    if found != expected:", "    if False:", TRUST),
    Mutant(
        "files may vanish from the snapshot",
        _STATE,
        "if found is None:\n                raise Rollback",
        "if found is None:\n                continue\n                raise Rollback",
        TRUST,
    ),
    Mutant("a role may describe others' files", _STATE, "if first != role:", "if False:", TRUST),
    Mutant(
        "stolen keys decide for ever",
        _STATE,
        "merged(recovered(floor, self.root) for floor in floors)",
        "merged(floors)",
        TRUST,
    ),
    Mutant(
        "one place's floor stands for all",
        _STATE,
        "floors = (self.floor, *self._others)",
        "floors = (max((self.floor, *self._others), key=lambda one: one[:3]),)",
        TRUST,
    ),
    Mutant(
        "metadata of any size is read",
        "phase/trust/wire.py",
        "if len(data) > max_bytes:",
        "if False:",
        TRUST,
    ),
    Mutant(
        "a key may come twice", "phase/trust/wire.py", "if len(found) != len(pairs):", "if False:", TRUST
    ),
    Mutant(
        "another channel's or machine's release is taken",
        "phase/release/manifest.py",
        "if facts.get(field) != expected:",
        "if False:",
        ("tests/phase/release", "tests/phase/trust"),
    ),
    Mutant(
        "the clock goes back",
        "phase/trust/clock.py",
        "build_time, seen)",
        "0.0)",
        TRUST,
    ),
    # Jobs and receipts
    Mutant(
        "envelope signatures are not checked",
        "phase/dsse.py",
        "        crypto_sign_open(raw + message, key)\n",
        "        pass\n",
        DSSE,
    ),
    Mutant(
        "one signer is always enough", "phase/dsse.py", "if len(signed) < threshold:", "if not signed:", DSSE
    ),
    Mutant(
        "any payload will do", "phase/dsse.py", "if opened.payload_type != payload_type:", "if False:", DSSE
    ),
    Mutant("a receipt is for any job", _RECEIPT, '        ("job id", job_id, receipt.job.id),\n', "", JOBS),
    Mutant(
        "a receipt is for any time", _RECEIPT, '        ("nonce", nonce, receipt.job.nonce),\n', "", JOBS
    ),
    Mutant(
        "a receipt is any node's", _RECEIPT, '        ("node key", key.lower(), receipt.node),\n', "", JOBS
    ),
    Mutant(
        "a receipt is for any module",
        _RECEIPT,
        '        ("module", module_sha256 and module_sha256.lower(), receipt.module.sha256),\n',
        "",
        JOBS,
    ),
    Mutant("fuel does not run out", "phase/jobs/engine.py", "c_uint64(fuel)", "c_uint64(1 << 62)", JOBS),
    Mutant(
        "memory grows",
        "phase/jobs/memory.py",
        "self.used + more > self.limit",
        "False",
        JOBS,
    ),
    Mutant("tables grow", "phase/jobs/engine.py", "c_int64(elements),", "c_int64(-1),", JOBS),
    Mutant("output has no end", "phase/jobs/worker.py", "data[: self._left]", "data", JOBS),
    Mutant(
        "time does not run out",
        "phase/jobs/worker.py",
        'self._end(("limit", "wall"), None, self._engine.fixed_tables)',
        "pass",
        JOBS,
    ),
    Mutant(
        "anybody may read the node's key",
        "phase/identity.py",
        "if status.st_mode & 0o077:",
        "if False:",
        ("tests/phase/test_identity.py",),
    ),
)
