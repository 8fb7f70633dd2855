"""What bounds others: who fetches, looks for providers, or serves."""

from tests.mutants.mutant import Mutant

FETCH = ("tests/phase/fetch",)
DHT = ("tests/phase/discovery/dht",)

MUTANTS = (
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
        "if len(block) == size and sha256_hex(block) == expected:",
        "if len(block) == size:",
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
        "phase/discovery/dht/lookup.py",
        "misled = 0 if said.teller is None else max(self._misled[said.teller], 0)",
        "misled = 0",
        DHT,
    ),
    Mutant(
        "who chooses an id is as good as anybody",
        "phase/discovery/dht/wire.py",
        "return self.id[:BOUND_BYTES] == _bound(self.host)",
        "return True",
        DHT,
    ),
    Mutant(
        "a liar leads the whole search astray",
        "phase/discovery/dht/lookup.py",
        "self._add(each, contact.host, free.pop() if free else path)",
        "self._add(each, contact.host, 0)",
        DHT,
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
)
