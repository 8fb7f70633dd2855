"""Every parser that meets bytes from the network, as one function of bytes each.

A target raises nothing for any input: what it calls may refuse with its own errors, and nothing else.
Where something is accepted, the target checks what acceptance promises.
"""

from functools import cache
from typing import NamedTuple

import msgspec

from phase import dsse
from phase.discovery.dht import announcement
from phase.discovery.dht import wire as dht_wire
from phase.node import journal
from phase.peer import frames, seen
from tests.fuzz import dht, envelopes, jobs, local, machine, metadata, peers, publishing, segment, web, work
from tests.fuzz.metadata import Target


class Case(NamedTuple):
    """A target and inputs it accepts, to start from."""

    run: Target
    seeds: tuple[bytes, ...]


@cache
def cases() -> dict[str, Case]:
    """Every target by name."""
    files = metadata.published()
    found = {}
    for name in metadata.ROLES:
        data = files[metadata.FILES.get(name, f"1.{name}.json")]
        found[f"role-{name}"] = Case(metadata.role(name), (data,))
        if name != "root":
            found[f"refresh-{name}"] = Case(metadata.refresh(name), (data,))
            found[f"cached-{name}"] = Case(metadata.cached(name), (data,))
            found[f"served-{name}"] = Case(metadata.served(name), (data,))
    found["refresh-root"] = Case(metadata.refresh("root"), (files["1.root.json"],))
    found["status"] = Case(web.said_status, (web.STATUS,))
    label = bytes(1024 + 0x38) + b"\x53\xef" + bytes(0x78 - 0x3A) + b"phase-cache".ljust(16, b"\0")
    found["disk-label"] = Case(machine.disk_label, (label.ljust(2048, b"\0"),))
    kept = b'{"root": 1, "timestamp": 2, "snapshot": 2, "meta": {"a.json": 1}, "keys": {"a": ["b"]}}'
    found["floor"] = Case(metadata.floor, (kept,))
    found["dsse"] = Case(envelopes.envelope, (dsse.sign("text/plain", b"body", [envelopes.NODE]),))
    found["receipt"] = Case(
        envelopes.receipts, (b'{"_type":"https://in-toto.io/Statement/v1","subject":[]}',)
    )
    answer = b"HTTP/1.1 206 OK\r\nContent-Length: 9\r\nContent-Range: bytes 1-9/20\r\n\r\n123456789"
    found["http-response"] = Case(web.response, (answer, b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno"))
    found["http-head"] = Case(web.head, (answer.partition(b"\r\n\r\n")[0],))
    found["url"] = Case(web.url, (b"http://192.0.2.1:8080/a", b"http://[2001:db8::1]:80/"))
    asked = b"bytes=1-5", b"bytes=-5", b'bytes=0-\0"sha256-x"\0W/"sha256-x", "b"'
    named = b"12\n192.0.2.7:40007\n[2001:db8::7]:40008\n[fe80::7]:40009\n127.0.0.1:40010\n"
    found["crowd-told"] = Case(web.crowd_told, (named,))
    have = b"GET /have/sha256/%s HTTP/1.1\r\nHost: x\r\n" % (b"0" * 64)
    part = have.replace(b"have", b"blobs") + b"Range: bytes=0-99\r\n\r\n"
    found["crowd-asked"] = Case(web.crowd_asked, (have + b"\r\n", part))
    found["range"] = Case(web.range_header, asked)
    said = bytes.fromhex("8600000040000708000000000000000019030000ffffffff")
    said += bytes.fromhex("20010db80000000000000000000000531f030000ffffffff076578616d706c65036f726700000000")
    found["router"] = Case(machine.router, (said,))
    found["mdns-txt"] = Case(machine.txt, (b"192.0.2.1\0\x1f\x90\0version=3\0id=ab",))
    word = announcement.sign(
        envelopes.NODE,
        channel="stable",
        arch="x86_64",
        host="192.0.2.1",
        port=8080,
        version=1,
        now=metadata.NOW.timestamp(),
    )
    found["announcement"] = Case(dht.announced, (word,))
    questions = tuple(
        dht_wire.question(dht.PLACE, name, *arguments)
        for name, arguments in {
            "ping": [dht.PLACE],
            "stun": [],
            "find_value": [dht.PLACE, dht.PLACE],
            "store": [dht.PLACE, dht.PLACE, word],
        }.items()
    )
    found["dht-datagram"] = Case(dht.dht_datagram, (*questions, dht_wire.answer(dht.PLACE, True)))
    nodes = [(dht.PLACE, "192.0.2.1", 4000)]
    answers = dht_wire.Values([word], nodes), nodes, ("192.0.2.1", 4000), dht.PLACE, True
    found["dht-answer"] = Case(
        dht.dht_answer, tuple(dht_wire.answer(dht.PLACE, each)[21:] for each in answers)
    )
    line = b'console=ttyS0 phase.mode=local phase.timeout=9 phase.provider=http://a,b phase.job="hello x"'
    found["cmdline"] = Case(machine.kernel_line, (line,))
    found["mdns-heard"] = Case(local.heard, local.packets())
    found["mdns-asked"] = Case(local.asked, local.packets())
    found["host-header"] = Case(local.host, (b"boot.example.org:8080", b"[2001:db8::1]:80", b"192.0.2.1"))
    found["netboot-dhcp"] = Case(segment.netboot_dhcp, segment.questions())
    found["netboot-tftp"] = Case(segment.netboot_tftp, (segment.READ, segment.READ + b"\0\4\0\0\0\4\0\1"))
    found["worker-messages"] = Case(work.messages, work.said())
    for name in ("root", "targets", "stable-x86_64"):
        seed = publishing.next_version(files[f"1.{name}.json"])
        found[f"carried-{name}"] = Case(publishing.carried(name, files), (seed,))
    found["journal"] = Case(publishing.left_over, (publishing.ORDER,))
    found["pinned"] = Case(publishing.remembered, (publishing.MEMORY,))
    found["capability"] = Case(peers.recorded, (peers.capability(),))
    txt = f"txtvers=1\0key={envelopes.NODE.public_key}\0arch=arm64\0runtimes=a,b"
    txt += "\0processors=1\0memory=2\0slots=3"
    found["node-txt"] = Case(peers.nearby_txt, (txt.encode(),))
    found["relay-session"] = Case(peers.relayed, (peers.session(),))
    # Good frames, each behind its length in the session.
    found["relay-frame"] = Case(peers.framed, (peers.session()[2:41], frames.ping(b"12345678")))
    found["relay-proof"] = Case(peers.proven, (peers.proof(),))
    whole = f"{envelopes.NODE.public_key}@192.0.2.1:4433,[2001:db8::1]:1,http://192.0.2.9:8080"
    found["peer-address"] = Case(peers.addressed, (whole.encode(),))
    found["peer-told"] = Case(peers.told, (seen.tell("192.0.2.1:4433"), seen.tell("[2001:db8::1]:1")))
    found["peer-ended"] = Case(peers.ended, (b"closed by peer: no (code 1)", b"closed by peer: 2"))
    found["job-question"] = Case(jobs.question, tuple(msgspec.json.encode(each) for each in jobs.ASKED))
    found["job-request"] = Case(jobs.request, (b'{"type":"request","args":["a"],"env":{"A":"b"}}',))
    found["job-answer"] = Case(jobs.answer, tuple(msgspec.json.encode(each) for each in jobs.SAID))
    found["job-frames"] = Case(jobs.frames, jobs.streams() + jobs.replies())
    found["job-node"] = Case(jobs.node, jobs.streams())
    found["job-client"] = Case(jobs.client, jobs.replies())
    found["key-file"] = Case(jobs.key_file, (b"# clients\n" + b"a" * 64 + b" one\n",))
    found["node-journal"] = Case(jobs.books, (b"".join(journal.line(each) for each in jobs.EVENTS),))
    by_http = b'{"job":"a","module":"%b","args":["a"],"limits":{"wall_seconds":3}}' % (b"0" * 64)
    found["gateway-job"] = Case(jobs.gateway_job, (by_http,))
    found["gateway-signature"] = Case(jobs.signed_request, (jobs.headers(),))
    found["module-shape"] = Case(work.shape, work.modules())
    found["component-shape"] = Case(work.parts, work.modules()[-1:])
    found["module"] = Case(work.module, work.modules())
    return found
