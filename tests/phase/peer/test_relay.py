"""The relay, with hostile endpoints that speak frames, and with real ones."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession

from phase.identity import Identity
from phase.peer import frames
from phase.peer.allowed import Allowed
from phase.peer.errors import PeerError, UnreachableError
from phase.peer.iroh import IrohTransport, Options
from phase.peer.relay import Limits
from phase.peer.transport import Address
from tests.phase.peer import endpoints
from tests.phase.peer.endpoints import member, raw, relay

NOBODY = Identity.ephemeral()


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("protocol", frames.PROTOCOLS)
async def test_datagrams_arrive_with_their_source(protocol: str) -> None:
    async with relay() as running, member(running, protocol=protocol) as here, member(running) as there:
        await here.datagram(there.key, b"hello")
        assert await there.receive() == bytes([frames.Type.DATAGRAM_OUT]) + here.key + b"\0hello"
        batch = b"\0\0\x02hello!"
        await here.send(bytes([frames.Type.DATAGRAMS_IN]) + there.key + batch)
        assert await there.receive() == bytes([frames.Type.DATAGRAMS_OUT]) + here.key + batch
        await here.send(frames.ping(b"12345678"))
        assert await here.receive() == frames.ping(b"12345678", frames.Type.PONG)
        assert running.relay.counts.received == 6 + 9
        assert set(running.relay.keys()) == {here.key.hex(), there.key.hex()}


async def test_peers_are_told_who_has_left() -> None:
    async with relay() as running, member(running) as there:
        async with member(running) as here, member(running):
            await here.datagram(there.key, b"x")
            await there.receive()
        assert await there.receive() == frames.gone(here.key)
        await until(lambda: running.relay.keys() == [there.key.hex()])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\1",
        bytes([frames.Type.DATAGRAM_IN]) + bytes(97),
        bytes([frames.Type.AUTHENTICATION]) + bytes(32) + bytes([64]) + bytes(64),
        bytes([frames.Type.AUTHENTICATION]) + bytes(32) + bytes([63]) + bytes(64),
        bytes([frames.Type.AUTHENTICATION]) + bytes.fromhex(NOBODY.public_key) + bytes([64]) + bytes(64),
        bytes([frames.Type.AUTHENTICATION])
        + bytes.fromhex(NOBODY.public_key)
        + bytes([64])
        + NOBODY.sign(frames.signed(bytes(16))),
        bytes(70_000),
    ],
    ids=[
        "nothing",
        "short",
        "datagram",
        "no signature",
        "wrong length",
        "zeros",
        "other challenge",
        "large",
    ],
)
async def test_who_proves_no_key_is_refused(answer: bytes) -> None:
    async with relay() as running, raw(running) as stranger:
        await stranger.receive()
        await stranger.send(answer)
        assert await stranger.ended()
        assert running.relay.keys() == []
        assert sum(running.relay.counts.refused.values()) == 1


async def test_datagrams_before_the_proof_go_nowhere() -> None:
    async with relay() as running, member(running) as there, raw(running) as stranger:
        await stranger.receive()
        await stranger.datagram(there.key, b"x")
        assert await stranger.ended()
        assert running.relay.counts.received == 0


async def test_who_is_not_allowed_is_told_so() -> None:
    good = Identity.ephemeral()
    async with relay(lambda key: key == good.public_key) as running, member(running, good):
        async with raw(running) as stranger:
            assert await stranger.prove() == frames.denial("not authorized")
            assert await stranger.ended()
        assert running.relay.counts.refused == {"not authorized": 1}


async def test_silent_handshake_ends_in_time() -> None:
    async with relay(limits=Limits(handshake_seconds=0.2)) as running, raw(running) as stranger:
        await stranger.receive()
        assert await stranger.ended()
        assert running.relay.counts.refused == {"the handshake took too long": 1}
        assert running.relay.counts.handshakes == 0


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(handshakes=1), "too many handshakes"),
        (Limits(members=1), "too many endpoints"),
        (Limits(per_address=1), "too many endpoints of one address"),
    ],
)
async def test_too_many_at_a_time_are_refused(limits: Limits, why: str) -> None:
    async with relay(limits=limits) as running, raw(running), ClientSession() as session:
        async with session.get(f"{running.url}/relay") as answer:
            assert answer.status == 503
            assert why in await answer.text()
        assert running.relay.counts.refused == {why: 1}


async def test_other_protocols_are_refused() -> None:
    async with relay() as running, ClientSession() as session:
        for protocols in ([], ["iroh-relay-v9"]):
            headers = {"Sec-WebSocket-Protocol": ",".join(protocols)} if protocols else {}
            async with session.get(f"{running.url}/relay", headers=headers) as answer:
                assert answer.status == 400
        assert running.relay.counts.refused == {"no relay protocol": 2}


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes([frames.Type.DATAGRAM_IN]) + bytes(33),
        bytes([frames.Type.DATAGRAMS_IN]) + bytes(35),
        bytes([frames.Type.DATAGRAM_OUT]) + bytes(50),
        bytes([frames.Type.CHALLENGE]) + bytes(16),
        bytes([frames.Type.PING]) + bytes(7),
        bytes([99]) + bytes(50),
        bytes([frames.Type.DATAGRAM_IN]) + bytes((1 << 16) + 1),
        bytes([frames.Type.DATAGRAM_IN]) + bytes(1 << 18),
    ],
    ids=["nothing", "short", "short batch", "outward", "challenge", "ping", "unknown", "one more", "large"],
)
async def test_bad_frame_ends_the_connection(frame: bytes) -> None:
    async with relay() as running, member(running) as there, member(running) as hostile:
        await hostile.send(frame)
        assert await hostile.ended()
        await until(lambda: running.relay.keys() == [there.key.hex()])


async def test_text_ends_the_connection() -> None:
    async with relay() as running, member(running) as hostile:
        await hostile.socket.send_str("x")
        assert await hostile.ended()
        assert running.relay.counts.ended == {"sends text": 1}


async def test_the_largest_frame_passes() -> None:
    async with relay() as running, member(running) as here, member(running) as there:
        data = bytes((1 << 16) - 33)
        await here.datagram(there.key, data)
        assert (await there.receive())[34:] == data


async def test_reader_that_takes_nothing_loses_datagrams_and_then_its_connection() -> None:
    limits = Limits(waiting_frames=8, send_seconds=0.5)
    async with relay(limits=limits) as running, member(running) as slow, member(running) as here:
        # Nothing is read from here on: the kernel's buffers fill, then aiohttp's, then the relay's queue.
        slow.socket._reader._protocol.pause_reading()
        await until_slow(running, here, slow)
        await until(lambda: running.relay.keys() == [here.key.hex()])
        assert running.relay.counts.ended == {"takes nothing": 1}
        assert running.relay.counts.waiting == 0


async def until_slow(running: endpoints.Running, here: endpoints.Raw, slow: endpoints.Raw) -> None:
    async with asyncio.timeout(20):
        while not running.relay.counts.dropped["receiver too slow"]:
            await here.datagram(slow.key, bytes(60_000))
    assert running.relay.counts.waiting <= 8 * 60_034


async def test_what_waits_for_all_together_is_bounded() -> None:
    limits = Limits(all_bytes=100_000)
    async with relay(limits=limits) as running, member(running) as slow, member(running) as here:
        slow.socket._reader._protocol.pause_reading()
        async with asyncio.timeout(20):
            while not running.relay.counts.dropped["receiver too slow"]:
                await here.datagram(slow.key, bytes(60_000))
        assert running.relay.counts.waiting <= 100_000


async def test_pair_is_limited_and_other_pairs_are_not() -> None:
    limits = Limits(pair_rate=1000, burst_seconds=1)
    async with (
        relay(limits=limits) as running,
        member(running) as here,
        member(running) as there,
        member(running) as other,
    ):
        for _ in range(20):
            await here.datagram(there.key, bytes(99))
        await here.datagram(other.key, bytes(99))
        await other.receive()
        assert 5 <= running.relay.counts.dropped["pair too fast"] <= 11


async def test_endpoint_is_slowed_down_and_loses_nothing() -> None:
    limits = Limits(member_rate=100_000, burst_seconds=0.1)
    async with relay(limits=limits) as running, member(running) as here, member(running) as there:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(10):
            await here.datagram(there.key, bytes(10_000))
        for _ in range(10):
            await there.receive()
        # 100 kB, less the 10 kB saved up and the last one, which waits for nothing.
        assert loop.time() - begun > 0.6
        assert not running.relay.counts.dropped


async def test_peers_of_an_endpoint_are_limited() -> None:
    async with (
        relay(limits=Limits(peers=1)) as running,
        member(running) as here,
        member(running) as first,
        member(running) as second,
    ):
        await here.datagram(first.key, b"x")
        await here.datagram(second.key, b"x")
        await here.datagram(first.key, b"y")
        assert (await first.receive())[-1:] + (await first.receive())[-1:] == b"xy"
        assert running.relay.counts.dropped == {"too many peers": 1}


async def test_keys_that_are_not_connected_cost_nothing() -> None:
    async with relay(limits=Limits(peers=1)) as running, member(running) as here, member(running) as there:
        for number in range(100):
            await here.datagram(number.to_bytes(32, "big"), b"x")
        await here.datagram(there.key, b"y")
        assert (await there.receive())[-1:] == b"y"
        assert running.relay.counts.dropped == {"not connected": 100}


@pytest.mark.parametrize(
    ("protocol", "older", "again"),
    [
        (frames.PROTOCOLS[0], bytes([frames.Type.STATUS, 1]), bytes([frames.Type.STATUS, 0])),
        (
            frames.PROTOCOLS[1],
            bytes([frames.Type.HEALTH]) + b"same endpoint id connected",
            bytes([frames.Type.HEALTH]),
        ),
    ],
    ids=frames.PROTOCOLS,
)
async def test_newest_connection_of_a_key_gets_the_datagrams(
    protocol: str, older: bytes, again: bytes
) -> None:
    twice = Identity.ephemeral()
    async with relay() as running, member(running) as here, member(running, twice, protocol) as first:
        async with member(running, twice) as second:
            assert await first.receive() == older
            await here.datagram(second.key, b"1")
            assert (await second.receive())[-1:] == b"1"
        assert await first.receive() == again
        await here.datagram(first.key, b"2")
        assert (await first.receive())[-1:] == b"2"


async def test_third_connection_of_a_key_ends_the_first() -> None:
    twice = Identity.ephemeral()
    async with relay() as running, member(running, twice) as first, member(running, twice):
        async with member(running, twice):
            assert await first.ended()
            assert running.relay.counts.ended == {"too many connections of the key": 1}
        await until(lambda: len(running.relay._members[first.key]) == 1)


async def test_silent_endpoint_is_asked_and_then_cut_off() -> None:
    limits = Limits(ping_seconds=0.1, pong_seconds=0.3)
    async with relay(limits=limits) as running, member(running) as silent:
        asked = await silent.receive()
        assert asked[0] == frames.Type.PING
        await silent.send(frames.ping(asked[1:], frames.Type.PONG))
        assert (await silent.receive())[0] == frames.Type.PING
        await silent.send(frames.ping(b"wrong   ", frames.Type.PONG))
        assert await silent.ended()
        assert running.relay.counts.ended == {"gives no sign of life": 1}


async def test_revoked_key_is_cut_off(tmp_path: Path) -> None:
    good, bad = Identity.ephemeral(), Identity.ephemeral()
    keys = tmp_path / "keys"
    keys.write_text(f"# who may\n{good.public_key}  # one\n{bad.public_key.upper()}\n")
    async with (
        relay(Allowed([str(keys)]), Limits(revoke_seconds=0.1)) as running,
        member(running, good) as here,
        member(running, bad) as there,
    ):
        keys.write_text(f"{good.public_key}\n")
        assert await there.ended()
        await here.send(frames.ping(b"12345678"))
        assert await here.receive()
        assert running.relay.counts.ended == {"not allowed any more": 1}


async def test_probes_are_answered() -> None:
    async with relay() as running, ClientSession() as session:
        async with session.get(f"{running.url}/ping") as answer:
            assert answer.status == 200
        async with session.get(f"{running.url}/seen") as answer:
            assert await answer.json() == {"address": "127.0.0.1"}
        for word, back in (("ts_host.1", "response ts_host.1"), ("a b", None), ("x" * 64, None), ("", None)):
            headers = {"X-Iroh-Challenge": word}
            async with session.get(f"{running.url}/generate_204", headers=headers) as answer:
                assert answer.status == 204
                assert answer.headers.get("X-Iroh-Response") == back


async def test_metrics_have_every_count() -> None:
    async with relay(lambda key: False) as running, raw(running) as stranger:
        await stranger.prove()
        shown = running.relay.metrics()
        assert shown["phase_relay_refused_total"][1] == {'reason="not authorized"': 1}
        assert shown["phase_relay_members"][1] == 0


async def _transport(*relays: str) -> IrohTransport:
    return await IrohTransport.start(Identity.ephemeral(), Options(listen=("127.0.0.1:0",), relays=relays))


async def test_real_endpoints_meet_at_the_relay() -> None:
    async with relay() as running:
        server, client = await _transport(running.url), await _transport()
        try:
            await until(lambda: running.relay.keys() == [server.key])
            # Only the relay is named: the first packets can go no other way.
            connection = await client.connect(Address(server.key, (), (running.url,)), 10)
            stream = await connection.open()
            await stream.send(b"over the relay")
            there = await (await server.accept()).accept()
            assert await there.receive(100) == b"over the relay"
            assert running.relay.counts.received > 0
            assert set(running.relay.keys()) == {server.key, client.key}
        finally:
            await client.close()
            await server.close()
        await until(lambda: running.relay.keys() == [])


async def test_relay_that_refuses_an_endpoint_does_not_hold_it_up() -> None:
    async with relay(lambda key: False) as running:
        server, client = await _transport(running.url), await _transport(running.url)
        try:
            with pytest.raises(UnreachableError, match="does not answer"):
                await client.connect(Address(server.key, (), (running.url,)), 1)
            await client.connect(server.address(), 5)
            assert running.relay.counts.refused["not authorized"] >= 1
        finally:
            await client.close()
            await server.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [("xyz\n", "line 1 .* is not a key"), (None, "cannot be read"), ("#" * (5 << 20), "more")],
    ids=["words", "missing", "large"],
)
def test_file_of_keys_that_is_none_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    keys = tmp_path / "keys"
    if content is not None:
        keys.write_text(content)
    with pytest.raises(PeerError, match=said):
        Allowed([str(keys)])


def test_file_of_keys_that_turns_bad_allows_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ab" * 32)
    monkeypatch.setattr("phase.peer.allowed.LOOK_SECONDS", 0.0)
    allowed = Allowed([str(keys), "cd" * 32])
    assert [allowed(each * 32) for each in ("ab", "cd", "ef")] == [True, True, False]
    keys.unlink()
    assert [allowed(each * 32) for each in ("ab", "cd")] == [False, True]
    assert Allowed(["open"])("ab" * 32)
