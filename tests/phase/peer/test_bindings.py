import asyncio
import gc
import os
import subprocess
import sys
import threading
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import iroh
import pytest
from iroh import iroh_ffi

from phase.peer import bindings, links
from phase.peer.errors import ConnectionLostError, PeerError, RefusedError
from phase.peer.transport import MAX_REASON


def test_bytes_are_carried_as_the_bindings_carry_them() -> None:
    for data in (b"", b"a", bytes(range(256)), os.urandom(1 << 20)):
        builder = iroh_ffi._UniffiRustBufferBuilder()  # type: ignore[no-untyped-call]
        if len(data) < 1000:  # their own way takes a second for more
            iroh_ffi._UniffiFfiConverterBytes.write(data, builder)  # type: ignore[no-untyped-call]
            theirs = builder.finalize()  # type: ignore[no-untyped-call]
            assert iroh_ffi._UniffiFfiConverterBytes.lift is bindings._lift
            assert bindings._lift(theirs) == data
        lowered = iroh_ffi._UniffiFfiConverterBytes.lower(data)  # type: ignore[no-untyped-call]
        with lowered.consume_with_stream() as stream:
            assert iroh_ffi._UniffiFfiConverterBytes.lower is bindings._lower
            assert iroh_ffi._UniffiFfiConverterBytes.read(stream) == data  # type: ignore[no-untyped-call]
    assert bindings._lift(bindings._lower(bytearray(b"ab"))) == b"ab"  # type: ignore[arg-type]


@pytest.mark.parametrize("said", [b"", b"\0\0\0", b"\0\0\0\2a", b"\0\0\0\1ab", b"\xff\xff\xff\xffa"])
def test_a_buffer_that_is_not_as_long_as_it_says_is_no_bytes(said: bytes) -> None:
    builder = iroh_ffi._UniffiRustBufferBuilder()  # type: ignore[no-untyped-call]
    builder.write(said)  # type: ignore[no-untyped-call]
    with pytest.raises(iroh_ffi.InternalError):
        bindings._lift(builder.finalize())  # type: ignore[no-untyped-call]


def test_errors_of_the_library_are_raised_as_before() -> None:
    with pytest.raises(iroh.IrohError):
        iroh.EndpointId.from_bytes(b"short")


def test_mend_is_still_needed() -> None:
    """It fails when a version writes quickly by itself: then the mend goes."""
    code = (
        "import time; from iroh import iroh_ffi as f\n"
        "def took(n):\n"
        "    began = time.process_time(); b = f._UniffiRustBufferBuilder(); b.write(bytes(n)); b.discard()\n"
        "    return time.process_time() - began\n"
        "print(took(1 << 20) / max(took(64 << 20) / 64, 1e-9) if took(1 << 20) < 0.005 else 'slow')"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "slow"
    assert metadata.version("iroh") == "1.2.0"


def test_run_and_node_do_not_load_it() -> None:
    code = (
        "import sys, phase.cli, phase.node, phase.jobs.runner, phase.peer.transport, phase.peer.memory\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'iroh'))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        ("closed by peer: enough (code 0)", ConnectionLostError, "closed the connection: enough"),
        ("closed by peer: no (code 1)", RefusedError, "refused: no"),
        ("closed by peer: no (code 1) (code 0)", ConnectionLostError, r"no \(code 1\)"),
        ("closed by peer: a\nb (code 2)", RefusedError, "refused: a b"),
        ("closed by peer: 2", RefusedError, "refused: busy"),
        ("closed by peer: 0", ConnectionLostError, "closed the connection$"),
        ("closed by peer: 99999999999999999999", ConnectionLostError, "was lost"),
        ("timed out", ConnectionLostError, "was lost: timed out"),
    ],
)
def test_what_the_bindings_say_of_the_end(told: str, kind: type[PeerError], said: str) -> None:
    error = bindings.ended(told)
    assert type(error) is kind
    with pytest.raises(kind, match=said):
        raise error


def test_places_in_the_library_s_source_are_left_out() -> None:
    text = (
        "ConnectError::Connect (/a/b.rs:1:2)\nCaused by:\n    Endpoint is gone (x) (/home/c d/lib.rs:113:24)"
    )
    assert bindings.shortened(text) == "Endpoint is gone (x)"
    assert bindings.shortened("") == ""


def test_a_peer_s_reason_is_cut_and_printable() -> None:
    text = str(bindings.ended(f"closed by peer: \x1b[2J{'x' * 5000} (code 0)"))
    assert text.isprintable()
    assert len(text) < MAX_REASON + 100


def test_a_key_that_is_none_is_named() -> None:
    with pytest.raises(iroh.IrohError) as caught:
        iroh.EndpointId.from_bytes(b"\2" + bytes(31))
    assert "no node can have this key" in str(bindings.of_connect(caught.value, "02"))


async def test_a_reset_that_is_cancelled_leaves_no_call_behind() -> None:
    """Where a call was made and is never awaited, Python warns, and a warning is an error here."""

    class Half:
        async def reset(self, code: int) -> None:
            raise asyncio.CancelledError

        async def stop(self, code: int) -> None: ...

    inner = SimpleNamespace(send=Half, recv=Half)
    stream = links.IrohStream(SimpleNamespace(), inner)  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await stream.reset(0)
    gc.collect()


async def test_a_call_that_has_ended_at_once_waits_for_no_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And one that others would have to wait for gives them a turn now and then."""
    loop = asyncio.get_running_loop()
    woken: list[object] = []
    wake = loop.call_soon_threadsafe

    def waking(*of: Any) -> object:
        woken.append(of)
        return wake(*of)

    monkeypatch.setattr(loop, "call_soon_threadsafe", waking)
    answers: list[int] = []

    def poll(_future: object, told: object, number: int) -> None:
        told(number, answers.pop(0))  # type: ignore[operator]  # the function that ctypes has made

    def later(_future: object, told: object, number: int) -> None:
        threading.Thread(target=told, args=(number, 0)).start()  # type: ignore[arg-type]  # the same

    async def called(asked: object) -> object:
        made = bindings._call(7, asked, lambda future, _status: future, freed.append, int, None)  # type: ignore[arg-type]
        return await made

    freed: list[object] = []
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    for _ in range(64):
        answers.append(0)
        assert await called(poll) == 7
    assert (woken, freed) == ([], [7] * 64)
    assert 0 < turns <= 8
    before = turns
    answers.extend((1, 1, 1, 0))  # to be asked again, three times: the library must get on meanwhile
    assert await called(poll) == 7
    assert turns - before >= 3
    assert await called(later) == 7
    assert len(woken) == 1
    beside.cancel()
    assert bindings._polls == {}


def test_streams_that_are_dropped_in_the_library_s_threads_stop_nothing() -> None:
    """As the collector does it. Without the repair the process stands still, so it is one of its own."""
    code = """
import asyncio, threading
from phase.identity import Identity
from phase.peer import bindings
from phase.peer.iroh import IrohTransport, Options

loop_thread, garbage, dropped, told = threading.get_ident(), [], [], bindings._Poll.told

def dropping(self, code):
    if garbage and threading.get_ident() != loop_thread:
        dropped.append(type(garbage.pop()).__name__)
    told(self, code)

bindings._Poll.told = dropping

async def echo(server):
    connection = await server.accept()
    while True:
        stream = await connection.accept()
        await stream.send(await stream.receive(9))

async def main():
    options = Options(listen=("127.0.0.1:0",))
    server, client = [await IrohTransport.start(Identity.ephemeral(), options) for _ in "sc"]
    echoing = asyncio.create_task(echo(server))
    connection = await client.connect(server.address(), 20)
    async def some():
        for _ in range(50):
            stream = await connection.open()
            await stream.send(b"x")
            assert await stream.receive(9) == b"x"
            garbage.append(stream)
            del stream
    await asyncio.gather(*(some() for _ in range(8)))
    echoing.cancel()
    print(len(dropped) > 20, flush=True)

asyncio.run(main())
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == "True\n"


async def test_what_is_collected_while_the_library_tells_an_answer_is_freed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library may hold a lock then that it needs to free it: both would wait for ever."""
    freed: list[str] = []
    kind = type("Kind", (), {"__del__": lambda self: freed.append("object")})
    monkeypatch.setattr(kind, "__del__", bindings._freeing(kind))
    held = [kind()]

    def told(_self: object, _code: int) -> None:
        held.clear()
        bindings._free(lambda what: freed.append(str(what)), "call")
        assert freed == []

    waiting = bindings._Poll(asyncio.get_running_loop())
    monkeypatch.setattr(bindings._Poll, "told", told)
    bindings._polls[0] = waiting
    bindings._tell(0, 0)
    assert (freed, bindings._answering) == ([], set())
    monkeypatch.undo()

    def poll(_future: object, answer: Any, number: int) -> None:
        answer(number, 0)

    await bindings._call(7, poll, lambda future, _status: future, lambda _: None, int, None)  # type: ignore[arg-type]
    assert freed == ["object", "call"]
    kind()
    assert freed[2:] == ["object"]


async def test_a_reset_ends_calls_and_takes_no_cancellation_for_one() -> None:
    """Whose own task is cancelled is cancelled, also where the stream was reset meanwhile."""

    class Half:
        async def read(self, _most: int) -> bytes:
            await asyncio.get_running_loop().create_future()
            raise AssertionError

        async def reset(self, code: int) -> None: ...

        async def stop(self, code: int) -> None: ...

    def stream() -> links.IrohStream:
        inner = SimpleNamespace(send=Half, recv=Half)
        return links.IrohStream(SimpleNamespace(here=None), inner)  # type: ignore[arg-type]

    given_up, both = stream(), stream()
    reading = [asyncio.create_task(each.receive(1)) for each in (given_up, both)]
    await asyncio.sleep(0)
    await given_up.reset(0)
    with pytest.raises(PeerError, match="given up the stream"):
        await reading[0]
    await both.reset(0)
    reading[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading[1]
    assert both._waiting == set()
