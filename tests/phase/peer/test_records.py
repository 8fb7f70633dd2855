import base64
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from phase import dsse
from phase.discovery.dht import announcement
from phase.discovery.dht.announcement import LIFETIME, AnnouncementError
from phase.discovery.dht.holdings import Holdings
from phase.discovery.dht.node import Dht
from phase.identity import Identity
from phase.peer import records
from phase.peer.records import MAX_BYTES, PAYLOAD_TYPE, Capability, RecordError, read, read_any, sign
from phase.peer.transport import Address

NOW = 1_800_000_000.0
NODE = Identity.from_seed(bytes(range(32)))
PLACE = records.key("x86_64", "wasi-preview1")
CAN = Capability(
    arch="x86_64",
    runtimes=("wasi-preview1", "wasi-0.2"),
    hosts=("192.0.2.1:4433", "[2001:db8::1]:4433"),
    relays=("http://192.0.2.9:8080",),
    processors=4,
    memory=2048,
    slots=2,
)


def forged(body: dict[str, Any], *, signer: Identity = NODE, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """An envelope of anything."""
    return dsse.sign(payload_type, json.dumps(body).encode(), [signer])


def body(**changed: Any) -> dict[str, Any]:
    said: dict[str, Any] = msgspec.to_builtins(CAN)
    return {**said, "seq": 1, "expires": int(NOW) + 100, **changed}


def test_what_is_signed_is_read() -> None:
    found = read(sign(NODE, CAN, now=NOW), place=PLACE, now=NOW)
    assert found == msgspec.structs.replace(
        CAN, seq=int(NOW * 1000), expires=int(NOW) + LIFETIME, key=NODE.public_key
    )
    assert found.address == Address(NODE.public_key, CAN.hosts, CAN.relays)
    assert (found.host, found.port) == ("192.0.2.1", 4433)


def test_it_is_in_the_place_of_each_runtime_and_in_no_other() -> None:
    envelope = sign(NODE, CAN, now=NOW)
    read(envelope, place=records.key("x86_64", "wasi-0.2"), now=NOW)
    for place in (records.key("arm64", "wasi-0.2"), records.key("x86_64", "other"), bytes(20)):
        with pytest.raises(RecordError, match="another's place"):
            read(envelope, place=place, now=NOW)


def test_the_largest_record_fits() -> None:
    full = msgspec.structs.replace(
        CAN,
        runtimes=("wasi-preview1", "wasi-0.2", "wasi-0.3", "other"),
        hosts=(
            "192.168.100.200:44330",
            *[f"[2001:db8:1111:2222:3333:4444:5555:666{n}]:44330" for n in "123"],
        ),
        relays=("http://192.168.100.201:8080", "http://192.168.100.202:8080"),
        processors=1024,
        memory=1 << 24,
    )
    assert len(sign(NODE, full, now=NOW)) <= MAX_BYTES


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        (b"", "not a DSSE envelope"),
        (b"x" * (MAX_BYTES + 1), "the limit is 1024"),
        (forged(body(expires=int(NOW))), "expired 0 s ago"),
        (forged(body(expires=0)), "expired"),
        (forged(body(), payload_type="application/vnd.phase.provider+json"), "expected"),
        (forged(body(arch="arm64")), "another's place"),
        (forged(body(runtimes=[])), "length >= 1"),
        (forged(body(runtimes=["a"] * 5)), "length <= 4"),
        (forged(body(runtimes=["a b"])), "regex"),
        (forged(body(hosts=[])), "length >= 1"),
        (forged(body(hosts=["192.0.2.1:1"] * 5)), "length <= 4"),
        (forged(body(hosts=["[2001:db8::1]:4433"])), "not an IPv4 address"),
        (forged(body(hosts=["node.example:4433"])), "no IP address"),
        (forged(body(hosts=["224.0.0.1:4433"])), "not an IPv4 address"),
        (forged(body(hosts=["192.0.2.1:4433", "[ff02::1]:1"])), "not the address of a host"),
        (forged(body(hosts=["192.0.2.1:0"])), "no port"),
        (forged(body(hosts=["192.0.2.1"])), "no port"),
        (forged(body(relays=["ftp://192.0.2.1:1"])), "not a relay"),
        (forged(body(relays=["http://192.0.2.1:1"] * 3)), "length <= 2"),
        (forged(body(processors=-1)), ">= 0"),
        (forged(body(memory=1 << 25)), "<= 16777216"),
        (forged(body(slots="2")), "Expected `int`"),
        (forged(body(seq=1 << 60)), "int"),
    ],
    ids=range(23),
)
def test_bad_record_is_refused_and_says_why(envelope: bytes, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        read(envelope, place=PLACE, now=NOW)


def test_signature_counts_and_the_key_comes_from_it() -> None:
    other = Identity.ephemeral()
    found = json.loads(sign(NODE, CAN, now=NOW))
    found["signatures"][0]["keyid"] = other.public_key
    with pytest.raises(RecordError, match="must"):
        read(json.dumps(found).encode(), place=PLACE, now=NOW)
    lying = read(forged(body(key=other.public_key)), place=PLACE, now=NOW)
    assert lying.key == NODE.public_key
    changed = json.loads(sign(NODE, CAN, now=NOW))
    changed["payload"] = base64.b64encode(json.dumps(body(slots=99)).encode()).decode()
    with pytest.raises(RecordError, match="must"):
        read(json.dumps(changed).encode(), place=PLACE, now=NOW)
    both = json.loads(sign(NODE, msgspec.structs.replace(CAN, hosts=CAN.hosts[:1]), now=NOW))
    both["signatures"] *= 2
    with pytest.raises(RecordError, match="one signature"):
        read(json.dumps(both).encode(), place=PLACE, now=NOW)


def test_own_mistake_is_told_before_anybody_else_sees_it() -> None:
    with pytest.raises(RecordError, match="not an IPv4 address"):
        sign(NODE, msgspec.structs.replace(CAN, hosts=("[2001:db8::1]:1",)), now=NOW)


def test_a_place_keeps_nodes_and_providers() -> None:
    held = Holdings(read_any)
    held.put(PLACE, sign(NODE, CAN, now=NOW), sender=("192.0.2.1", 5), now=NOW)
    place = announcement.key("stable", "x86_64")
    provider = announcement.sign(
        NODE, channel="stable", arch="x86_64", host="192.0.2.1", port=8080, version=1, now=NOW
    )
    held.put(place, provider, sender=("192.0.2.1", 5), now=NOW)
    assert len(held) == 2
    for wrong, sender in (
        (sign(NODE, CAN, now=NOW + 1), "192.0.2.66"),
        (sign(NODE, CAN, now=NOW), "192.0.2.1"),
    ):
        with pytest.raises(AnnouncementError):
            held.put(PLACE, wrong, sender=(sender, 5), now=NOW)
    with pytest.raises(AnnouncementError, match="an announcement has"):
        Holdings().put(PLACE, sign(NODE, CAN, now=NOW), sender=("192.0.2.1", 5), now=NOW)


@pytest.fixture
async def dht() -> Any:
    made: list[Dht] = []

    async def begin() -> tuple[Dht, int]:
        node = Dht(serves=True, read=read_any)
        made.append(node)
        return node, await node.start("127.0.0.1", 0)

    yield begin
    for node in made:
        node.close()


async def test_node_is_found_by_what_it_can_do(dht: Callable[[], Awaitable[tuple[Dht, int]]]) -> None:
    (keeper, port), (worker, _), (client, _) = [await dht() for _ in range(3)]
    for each in (worker, client):
        assert await each.join([("127.0.0.1", port)])
    here = msgspec.structs.replace(CAN, hosts=("127.0.0.1:4433",))
    assert await worker.announce(PLACE, sign(NODE, here, now=time.time())) >= 1
    assert len(keeper.held) == 1
    found: list[Capability] = []
    await client.look_for(PLACE, read, found.append)
    assert [each.key for each in found] == [NODE.public_key]
    await client.look_for(records.key("arm64", "wasi-preview1"), read, found.append)
    assert len(found) == 1
