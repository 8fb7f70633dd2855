"""Protections of the product, each taken out in turn: what is removed, where, and which tests must notice.

The old text occurs exactly once in its file. Keep it short and unlikely to change for other reasons.
"""

from tests.mutants import unnoticed
from tests.mutants.mutant import Mutant

TRUST = ("tests/phase/trust",)
FETCH = ("tests/phase/fetch",)
DHT = ("tests/phase/discovery/dht",)
BOOT = ("tests/phase/boot",)
JOBS = ("tests/phase/jobs",)
DSSE = ("tests/phase/test_dsse.py",)
SYSTEM = ("scenarios/test_system.py", "--lab-arch=x86_64", "--timeout=600")
_STATE = "phase/trust/state.py"
_RECEIPT = "phase/jobs/receipt.py"

MUTANTS = (
    *unnoticed.MUTANTS,
    # The system's own start
    Mutant(
        "a system believes its rootfs",
        "boot/files/system-init",
        '[ "${found%% *}" = "$want" ] || die',
        '[ "$found" ] || die',
        SYSTEM,
    ),
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
        'self.root.roles["root"], self.root.keys, f"{name} (by the root before it)"',
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
    # Fetch
    Mutant(
        "chunks are not verified",
        "phase/fetch/artifact.py",
        "if found == artifact.chunks[index]:",
        "if True:",
        FETCH,
    ),
    Mutant(
        "what lies on the disk is believed",
        "phase/fetch/transfer.py",
        "len(block) == self.size(index) and sha256(block).hexdigest() == expected",
        "len(block) == self.size(index)",
        FETCH,
    ),
    Mutant(
        "a liar is asked again",
        "phase/fetch/artifact.py",
        "if self.lied or (over and transfer.missing):",
        "if over and transfer.missing:",
        FETCH,
    ),
    Mutant(
        "any length will do",
        "phase/fetch/artifact.py",
        "if total is not None and total != artifact.length:",
        "if False:",
        FETCH,
    ),
    Mutant(
        "answers of any size are read",
        "phase/fetch/body.py",
        "if self.length is not None and self.length > max_bytes:",
        "if False:",
        FETCH,
    ),
    Mutant(
        "headers never end",
        "phase/fetch/http.py",
        "            if len(buffer) > MAX_HEAD:",
        "            if False:",
        FETCH,
    ),
    Mutant("a drip is fast enough", "phase/fetch/body.py", "if self._window_bytes > 0:", "if False:", FETCH),
    Mutant(
        "any range is the one asked for",
        "phase/fetch/http.py",
        'if unit != "bytes" or span != f"{first}-{last}" or length not in (None, last - first + 1):',
        "if False:",
        FETCH,
    ),
    # Boot
    Mutant(
        "it is loaded before it is verified",
        "phase/boot/assembly.py",
        "            reports.append(",
        "            with __import__('contextlib').suppress(Exception): reports.append(",
        BOOT,
    ),
    Mutant(
        "every attempt starts anew",
        "phase/boot/assembly.py",
        "resume=begun, keep_fd=None",
        "resume=False, keep_fd=None",
        BOOT,
    ),
    Mutant(
        "any kernel is ours",
        "phase/boot/assembly.py",
        "        image_check.check_kernel(head, manifest.arch)\n",
        "",
        BOOT,
    ),
    Mutant(
        "one provider decides",
        "phase/fetch/release.py",
        "                failures.append(error)\n",
        "                raise\n",
        BOOT,
    ),
    Mutant(
        "the first release proven is the newest",
        "phase/fetch/release.py",
        "    return prove(newer, known.floor, known.metadata) or proven\n",
        "    return proven\n",
        FETCH,
    ),
    Mutant(
        "a withheld release undoes a revocation",
        "phase/boot/remembered.py",
        "trust.Floor(root=known.root, roots=known.roots, time=known.time)",
        "trust.Floor(time=known.time)",
        BOOT,
    ),
    Mutant(
        "roots are kept only with their release",
        "phase/boot/seed.py",
        "            if_it_can(self.cache.keep_roots, result.metadata)\n",
        "            pass\n",
        BOOT,
    ),
    Mutant(
        "a torn root on the disk ends every boot",
        "phase/trust/client.py",
        "data = None  # as in `take`: it would stop every refresh, whoever is asked",
        "raise",
        TRUST,
    ),
    Mutant("links on the disk are followed", "phase/trust/floor.py", "os.O_NOFOLLOW | ", "", BOOT),
    Mutant(
        "a linked directory on the disk is written through",
        "phase/boot/cache.py",
        "if stat.S_ISDIR(path.lstat().st_mode):",
        "if stat.S_ISDIR(path.stat().st_mode):",
        BOOT,
    ),
    Mutant(
        "a kept release boots anywhere",
        "phase/boot/seed.py",
        'machine.config("allow-offline") is not None',
        "True",
        BOOT,
    ),
    Mutant(
        "one mode's grace is every mode's",
        "phase/boot/seed.py",
        'f"grace-{mode}"',
        '"grace-local"',
        BOOT,
    ),
    Mutant(
        "private mode keeps releases",
        "phase/boot/seed.py",
        'if self.parameters.mode == "private":',
        "if False:",
        BOOT,
    ),
    Mutant(
        "nowrite writes",
        "phase/boot/seed.py",
        "writable=not self.parameters.nowrite",
        "writable=True",
        BOOT,
    ),
    Mutant(
        "the floor is forgotten",
        "phase/boot/seed.py",
        "        self.remembered.raise_to(result.floor, write_firmware=not self.parameters.nowrite)\n",
        "",
        BOOT,
    ),
    Mutant(
        "kept artifacts are longer than they are",
        "phase/boot/cache.py",
        "min(_COPY, length - offset)",
        "_COPY",
        BOOT,
    ),
    Mutant(
        "everything is carried over",
        "phase/cmdline.py",
        "plain and _name(word) in CARRIED and not parse(word).problems",
        "plain and not parse(word).problems",
        ("tests/phase/test_cmdline.py",),
    ),
    Mutant(
        "the boot menu overrides what is signed",
        "phase/cmdline.py",
        "        if _name(word) in decided:\n            continue\n",
        "",
        ("tests/phase/test_cmdline.py",),
    ),
    Mutant(
        "words that cannot be used are carried over",
        "phase/cmdline.py",
        "return plain and _name(word) in CARRIED and not parse(word).problems",
        "return plain and _name(word) in CARRIED",
        ("tests/phase/test_cmdline.py",),
    ),
    Mutant(
        "words within a quoted word are carried over",
        "phase/cmdline.py",
        """ and not (set(word) & set(' "'))""",
        "",
        ("tests/phase/test_cmdline.py",),
    ),
    Mutant(
        "half a word opens a console",
        "boot/files/console",
        '*" phase.console=shell "*',
        "*phase.console=shell*",
        ("tests/boot/test_console.py",),
    ),
    Mutant(
        "a signed line may name another rootfs",
        "phase/cmdline.py",
        "[word for word in split(signed) if _name(word) not in SET_AT_HANDOFF]",
        "split(signed)",
        ("tests/phase/test_cmdline.py",),
    ),
    # Discovery
    Mutant(
        "answers for others count",
        "phase/discovery/records.py",
        'if values.get(b"channel") != channel.encode() or values.get(b"arch") != arch.encode():',
        "if False:",
        ("tests/phase/discovery",),
    ),
    Mutant(
        "records of any size are read",
        "phase/discovery/records.py",
        "if len(txt) > 16 or size > MAX_TXT:",
        "if False:",
        ("tests/phase/discovery",),
    ),
    Mutant(
        "a flood of names is listened to",
        "phase/discovery/mdns/browser.py",
        "if len(self.told) >= MAX_TOLD or self._queue.qsize() >= MAX_WAITING:",
        "if False:",
        ("tests/phase/discovery",),
    ),
    Mutant(
        "one host is all providers",
        "phase/discovery/__init__.py",
        " or self._hosts[host] >= MAX_PER_HOST",
        "",
        ("tests/phase/discovery",),
    ),
    Mutant(
        "who was of no use is asked first again",
        "phase/discovery/__init__.py",
        "if found.url in self._last:",
        "if False:",
        ("tests/phase/discovery",),
    ),
    # DHT
    Mutant(
        "anybody announces any host",
        "phase/discovery/dht/holdings.py",
        "if said.host != host:",
        "if False:",
        DHT,
    ),
    Mutant(
        "announcements never expire",
        "phase/discovery/dht/announcement.py",
        "if said.expires <= now:",
        "if False:",
        DHT,
    ),
    Mutant(
        "an old announcement replaces a new one",
        "phase/discovery/dht/holdings.py",
        "if any(one.said.seq >= said.seq for one in same_key):",
        "if False:",
        DHT,
    ),
    Mutant(
        "anybody stores in another's name",
        "phase/discovery/dht/node.py",
        "if not isinstance(said, wire.Values) or envelope not in said.envelopes:",
        "if False:",
        DHT,
    ),
    Mutant(
        "who tells of nodes that do not exist is believed first",
        "phase/discovery/dht/node.py",
        'key=lambda one: (dead[heard[one]], heard[one] != "", near(one)),',
        "key=near,",
        DHT,
    ),
    Mutant(
        "local machines ask the DHT",
        "phase/boot/seed.py",
        'if self.parameters.mode == "internet" else ()',
        "",
        ("tests/phase/boot/test_main.py",),
    ),
    # Provider
    Mutant(
        "part of another file continues this one",
        "phase/provider/ranges.py",
        """ or (if_range is not None and if_range.strip() != f'"{etag}"')""",
        "",
        ("tests/phase/provider",),
    ),
    Mutant(
        "connections stay for ever",
        "phase/provider/guard.py",
        "        self._metrics.idle_closed += 1\n        self._transport.abort()\n",
        "",
        ("tests/phase/provider",),
    ),
    Mutant(
        "an answer may take for ever",
        "phase/provider/blobs.py",
        "timeout_at(min(loop.time() + SLICE_SECONDS, end))",
        "timeout_at(end + 1e9)",
        ("tests/phase/provider/test_limits.py",),
    ),
    Mutant(
        "refused connections are kept without limit",
        "phase/provider/limits.py",
        "if self._held >= min(MAX_REFUSED, self.holds):",
        "if False:",
        ("tests/phase/provider/test_limits.py",),
    ),
    Mutant(
        "a rotation is not looked for",
        "phase/provider/catalog.py",
        "    return timestamp, roots, newest\n",
        "    return (timestamp,)\n",
        ("tests/phase/provider/test_app.py",),
    ),
    Mutant(
        "a worker outlives its provider",
        "phase/provider/workers.py",
        "        _end_with(parent)\n",
        "",
        ("tests/phase/provider/test_service.py::test_without_the_first_of_its_processes_the_others_end",),
    ),
    Mutant(
        "half a file is signed",
        "phase/release/local.py",
        "if not settled or (",
        "if (",
        ("tests/phase/release/test_local.py",),
    ),
    Mutant(
        "a provider forgets a release as the next comes",
        "phase/provider/store.py",
        "return [newest, *(before for until, before in self._before if now < until)]",
        "return [newest]",
        ("tests/phase/provider/test_app.py",),
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
        "        self._late = True\n        self._engine.interrupt()\n",
        "",
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
