"""Small changes that no test noticed, each with the test that was written for it."""

from tests.mutants.mutant import Mutant

_TRUST = "tests/phase/trust"
_FETCH = "tests/phase/fetch"
_BOOT = "tests/phase/boot"
_JOBS = "tests/phase/jobs"
_RELEASE = "tests/phase/release"

MUTANTS = (
    # Trust, identity, files
    Mutant(
        "recovery from fast-forward ignores the snapshot's key",
        "phase/trust/state.py",
        'for name in ("timestamp", "snapshot"):\n        if set(',
        'for name in ("timestamp",):\n        if set(',
        (f"{_TRUST}/test_state.py",),
    ),
    Mutant(
        "an envelope's signature may be longer than 64 bytes",
        "phase/dsse.py",
        "if len(raw) != 64:",
        "if False:",
        ("tests/phase/test_dsse.py::test_a_longer_signature_does_not_put_its_end_before_the_message",),
    ),
    Mutant(
        "an identity of another user is used",
        "phase/identity.py",
        "if status.st_uid not in (os.geteuid(), 0):",
        "if False:",
        ("tests/phase/test_identity.py",),
    ),
    Mutant(
        "data is not synced",
        "phase/files.py",
        "        handle.flush()\n        os.fsync(descriptor)\n",
        "        handle.flush()\n",
        ("tests/phase/test_files.py",),
    ),
    Mutant(
        "a renamed file's directory is not synced",
        "phase/files.py",
        "        raise\n    sync_directory(path.parent)",
        "        raise",
        ("tests/phase/test_files.py",),
    ),
    Mutant(
        "a linked file's directory is not synced",
        "phase/files.py",
        "        temporary.unlink(missing_ok=True)\n    sync_directory(path.parent)",
        "        temporary.unlink(missing_ok=True)",
        ("tests/phase/test_files.py",),
    ),
    Mutant(
        "any number of providers is named on the command line",
        "phase/cmdline.py",
        "if providers > MAX_PROVIDERS:",
        "if False:",
        ("tests/phase/test_cmdline.py",),
    ),
    # Fetch
    Mutant(
        "a chunk that two put counts twice",
        "phase/fetch/transfer.py",
        "            if self._done[index]:\n                return False\n",
        "",
        (f"{_FETCH}/test_transfer.py",),
    ),
    Mutant(
        "the least of several newer offers is taken",
        "phase/fetch/release.py",
        "key=ranks.__getitem__, reverse=True)",
        "key=ranks.__getitem__)",
        (f"{_FETCH}/test_release.py::test_of_several_newer_ones_the_newest_counts",),
    ),
    Mutant(
        "a length of thousands of digits is read",
        "phase/fetch/http.py",
        "whole.isdecimal() and len(whole) < 20 else",
        "whole.isdecimal() else",
        (f"{_FETCH}/test_http.py",),
    ),
    Mutant(
        "a short write is a whole one",
        "phase/files.py",
        "    while view:\n",
        "    if view:\n",
        (f"{_FETCH}/test_transfer.py",),
    ),
    Mutant(
        "the deadline does not count while a head is awaited",
        "phase/fetch/http.py",
        "until = min(deadline, monotonic() + HEAD_SECONDS)",
        "until = monotonic() + HEAD_SECONDS",
        (f"{_FETCH}/test_http.py::test_a_slow_drip_ends_at_the_deadline",),
    ),
    # Boot
    Mutant(
        "the cache's timestamp is written first",
        "phase/boot/cache.py",
        'key="timestamp.json".__eq__)',
        'key="timestamp.json".__ne__)',
        (f"{_BOOT}/test_cache.py",),
    ),
    Mutant(
        "a card is left up for the next kernel",
        "phase/boot/kexec.py",
        "flags & ~_IFF_UP",
        "flags",
        (f"{_BOOT}/test_kexec.py",),
    ),
    Mutant(
        "the cache is not unmounted before the handoff",
        "phase/boot/seed.py",
        "            self.machine.close_cache()\n        self.assembly.stop_sharing()",
        "            pass\n        self.assembly.stop_sharing()",
        (f"{_BOOT}/test_seed.py::test_the_cache_is_unmounted_before_the_handoff",),
    ),
    Mutant(
        "a liar is asked again in the next attempt",
        "phase/boot/assembly.py",
        "            liars=self._liars,\n",
        "            liars=set(),\n",
        (f"{_BOOT}/test_main.py::test_a_liar_is_not_asked_again_in_a_later_attempt",),
    ),
    # Provider, discovery
    Mutant(
        "a provider that is well again stays degraded",
        "phase/provider/store.py",
        '                self.problem = ""\n                return\n',
        "                return\n",
        ("tests/phase/provider/test_health.py::test_a_broken_release_then_a_good_one_is_well_again",),
    ),
    Mutant(
        "a far node names this machine",
        "phase/discovery/dht/wire.py",
        ' or (ip.is_loopback and not teller.startswith("127."))',
        "",
        ("tests/phase/discovery/dht/test_told.py",),
    ),
    Mutant(
        "answers of the DHT leave no room for mDNS",
        "phase/discovery/__init__.py",
        "if self._far >= MAX_PROVIDERS // 2:",
        "if False:",
        ("tests/phase/discovery/test_room.py",),
    ),
    # Jobs
    *(
        Mutant(
            f"a worker is not limited in {what}",
            "phase/jobs/protect.py",
            text,
            "",
            (f"{_JOBS}/test_process_limits.py",),
        )
        for what, text in (
            (
                "processor time",
                "        (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + wall_seconds + 2),\n",
            ),
            (
                "files that it writes",
                "        (resource.RLIMIT_FSIZE, file_bytes),\n",
            ),
            ("core files", "        (resource.RLIMIT_CORE, 0),\n"),
            ("open files", "        (resource.RLIMIT_NOFILE, 32 if grant.empty else _FILES),\n"),
            ("memory", "    _lower(resource.RLIMIT_DATA, _private() + memory_bytes + _SLACK)\n"),
        )
    ),
    Mutant(
        "a module has a hundred memories",
        "phase/jobs/worker.py",
        '        ("linear memories", shape.memories, binary.MAX_MEMORIES),\n',
        "",
        (f"{_JOBS}/test_memory.py",),
    ),
    Mutant(
        "a receipt's times do not differ by its duration",
        "phase/jobs/receipt.py",
        "finished = execution.started + wall_ms / 1000",
        "finished = execution.started",
        (f"{_JOBS}/test_receipt.py::test_a_receipt_binds_what_ran",),
    ),
    # Release
    Mutant(
        "a token's key can be taken out",
        "phase/release/token.py",
        "(pkcs11.CKA_EXTRACTABLE, False)",
        "(pkcs11.CKA_EXTRACTABLE, True)",
        (f"{_RELEASE}/test_token.py::test_a_key_made_on_a_token_never_leaves_it",),
    ),
    Mutant(
        "a key file that a group reads is used",
        "phase/release/keys.py",
        "forbidden = 0o077 if",
        "forbidden = 0o007 if",
        (f"{_RELEASE}/test_keys.py",),
    ),
    Mutant(
        "a newer root is exported before what it signs",
        "phase/release/export.py",
        "0 if first else 3 if last else",
        "0 if first or last else",
        (f"{_RELEASE}/test_export.py",),
    ),
    # The lab
    Mutant(
        "a garbled line is returned as a command's output",
        "lab/shell.py",
        "if hashlib.sha256(whole).hexdigest() == end.digest:",
        "if len(whole) == end.size:",
        ("tests/lab/test_dialogue.py::test_output_that_was_garbled_is_fetched_again",),
    ),
    Mutant(
        "other inputs give the same stage",
        "lab/stages.py",
        "[repr(value) for value in inputs]",
        "[]",
        ("tests/lab/test_stages.py::test_other_inputs_are_another_stage",),
    ),
    Mutant(
        "a failed assertion is tried again when its teardown met the host",
        "lab/plugin/hooks.py",
        'owners != {"infrastructure"}',
        '"infrastructure" not in owners',
        (
            "tests/lab/plugin/test_plugin.py"
            "::test_a_failed_assertion_is_not_tried_again_because_its_teardown_met_the_host",
        ),
    ),
    Mutant(
        "one failure in three hundred is shown as none",
        "lab/report/matrix_page.py",
        "{100 * line.passed // len(line.runs)} %",
        "{100 * line.passed / len(line.runs):.0f} %",
        ("tests/lab/report/test_matrix.py",),
    ),
)
