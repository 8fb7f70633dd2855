"""The parts of `phase.jobs.flow` on pipes of our own: no worker, so every moment can be chosen."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phase.jobs import wire
from phase.jobs.flow import Collected, Descriptor, Inlet, Messages, Outlet, Pump

Pipe = Callable[[], tuple[int, int]]
#: More than a pipe holds.
MUCH = bytes(1 << 21)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Pipes whose ends are closed in the end, whoever closed them before."""
    made: list[int] = []

    def make() -> tuple[int, int]:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        made.extend((reader, writer))
        return reader, writer

    yield make
    for end in made:
        try:
            os.close(end)
        except OSError:
            continue  # closed already


class Words:
    """A source that never blocks."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[int] = []

    def fileno(self) -> None:
        """It never blocks."""

    def read(self, most: int) -> bytes:
        """The next ones."""
        self.asked.append(most)
        part, self.data = self.data[:most], self.data[most:]
        return part


class Failing(Words):
    """A source, or a sink, that cannot."""

    def __init__(self, *errors: OSError | None) -> None:
        super().__init__(b"later")
        self.errors = list(errors)
        self.got = b""

    def read(self, most: int) -> bytes:
        """Fail, or the words."""
        if self.errors and (error := self.errors.pop(0)):
            raise error
        return super().read(most)

    def write(self, data: memoryview) -> int:
        """Fail, or take two bytes."""
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.got += bytes(data[:2])
        return len(data[:2])


def message(*fields: bytes) -> bytes:
    frame = wire.pack(*fields)
    return len(frame).to_bytes(4, "little") + frame


def closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


class TestInlet:
    """What the module reads."""

    def test_without_a_source_the_input_is_at_its_end(self, pipe: Pipe) -> None:
        reader, writer = pipe()
        inlet = Inlet(None, writer, 10)
        assert inlet.pipe == -1
        assert os.read(reader, 1) == b""
        assert (inlet.waits(), inlet.busy()) == (None, False)
        inlet.step()

    def test_nothing_is_read_before_it_is_asked_for(self, pipe: Pipe) -> None:
        source = Words(b"abc")
        inlet = Inlet(source, pipe()[1], 10)
        assert not inlet.busy()
        inlet.step()
        assert not source.asked
        inlet.want(0, 2)
        assert inlet.busy()
        assert inlet.waits() is None
        inlet.step()
        assert source.asked == [2]
        assert inlet.sent.length == 2
        assert not inlet.busy()

    def test_a_wish_that_is_old_by_now_is_not_one(self, pipe: Pipe) -> None:
        source = Words(b"abcdef")
        inlet = Inlet(source, pipe()[1], 10)
        inlet.want(0, 2)
        inlet.step()
        inlet.want(1, 2)  # it has not read all that was sent
        assert not inlet.busy()
        inlet.want(2, 1 << 30)
        inlet.step()
        assert source.asked == [2, 8]

    def test_no_more_is_read_at_once_than_a_pipe_holds(self, pipe: Pipe) -> None:
        source = Words(MUCH)
        inlet = Inlet(source, pipe()[1], 1 << 30)
        inlet.want(0, 1 << 30)
        inlet.step()
        assert source.asked == [65536]

    def test_the_limit_is_met_by_one_more_and_not_by_the_end(self, pipe: Pipe) -> None:
        for data, over in ((b"abc", False), (b"abcd", True)):
            reader, writer = pipe()
            source = Words(data)
            inlet = Inlet(source, writer, 3)
            inlet.want(0, 9)
            inlet.step()
            assert not inlet.over
            inlet.want(3, 9)
            inlet.step()
            assert source.asked == [3, 1]
            assert inlet.over is over
            assert (inlet.pipe < 0) is not over
            assert os.read(reader, 9) == b"abc"

    def test_a_source_with_a_descriptor_is_waited_for(self, pipe: Pipe) -> None:
        source, _ = pipe()
        inlet = Inlet(Descriptor(os.dup(source)), pipe()[1], 10)
        assert inlet.waits() is None
        inlet.want(0, 4)
        found = inlet.waits()
        assert found is not None
        assert found[1] == 1  # POLLIN
        assert not inlet.busy()
        os.close(found[0])

    def test_a_source_that_has_nothing_yet_is_asked_again_and_a_broken_one_has_ended(
        self, pipe: Pipe
    ) -> None:
        gone = OSError("gone")
        source = Failing(BlockingIOError(), None, gone)
        inlet = Inlet(source, pipe()[1], 100)
        inlet.want(0, 3)
        inlet.step()
        assert inlet.busy()
        inlet.step()
        assert inlet.sent.length == 3
        inlet.want(3, 3)
        inlet.step()
        assert inlet.broken is gone
        assert inlet.pipe == -1

    def test_a_full_pipe_is_waited_for_and_the_rest_is_sent(self, pipe: Pipe) -> None:
        reader, writer = pipe()
        while True:
            try:
                os.write(writer, bytes(4096))
            except BlockingIOError:
                break
        inlet = Inlet(Words(b"words"), writer, 100)
        inlet.want(0, 5)
        inlet.step()
        assert inlet.sent.length == 0
        assert inlet.waits() == (writer, 4)  # POLLOUT
        inlet.want(0, 5)
        assert not inlet.busy()
        os.read(reader, 1 << 20)
        inlet.step()
        assert inlet.sent.length == 5
        assert inlet.waits() is None
        assert os.read(reader, 100) == b"words"

    def test_a_worker_that_has_left_reads_no_more(self, pipe: Pipe) -> None:
        reader, writer = pipe()
        os.close(reader)
        inlet = Inlet(Words(b"words"), writer, 100)
        inlet.want(0, 5)
        inlet.step()
        assert (inlet.pipe, inlet.sent.length) == (-1, 0)
        assert closed(writer)

    def test_what_a_pipe_does_not_take_at_once_is_sent_later(self, pipe: Pipe) -> None:
        reader, writer = pipe()
        inlet = Inlet(Words(MUCH), writer, 1 << 30)
        os.write(writer, bytes(65536 - 4096))
        inlet.want(0, 1 << 30)
        inlet.step()
        assert inlet.sent.length == 4096
        os.read(reader, 65536)
        inlet.step()
        assert inlet.sent.length == 65536
        assert inlet.waits() is None


class TestDescriptor:
    """Another's file or pipe, in the mode that it has."""

    def test_no_more_is_written_than_fits_without_blocking(self, pipe: Pipe) -> None:
        reader, writer = pipe()
        os.write(writer, bytes(65536 - 4096))
        os.set_blocking(writer, True)
        written: list[int] = []
        thread = threading.Thread(target=lambda: written.append(Descriptor(writer).write(memoryview(MUCH))))
        thread.start()
        thread.join(2)
        stuck = thread.is_alive()
        while thread.is_alive():
            os.read(reader, 1 << 20)
        assert not stuck
        assert written == [4096]

    def test_a_file_takes_more_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        steps: list[int] = []
        write = os.write

        def counted(descriptor: int, data: memoryview) -> int:
            steps.append(len(data))
            return write(descriptor, data)

        with (tmp_path / "out").open("wb") as file, monkeypatch.context() as patch:
            patch.setattr(os, "write", counted)
            assert Descriptor(file.fileno()).write(memoryview(MUCH)[:100_000]) == 100_000
        assert steps == [65536, 100_000 - 65536]


class TestOutlet:
    """What the module prints."""

    def test_what_is_beyond_the_limit_is_read_and_does_not_pass(self, pipe: Pipe) -> None:
        reader, writer = pipe()
        os.write(writer, b"abcdef")
        sink = Collected()
        outlet = Outlet(reader, sink)
        outlet.step(4)
        assert (bytes(sink.data), outlet.read, outlet.passed.length) == (b"abcd", 6, 4)
        os.write(writer, b"gh")
        outlet.step(-2)
        assert (bytes(sink.data), outlet.read) == (b"abcd", 8)
        assert outlet.open
        os.close(writer)
        outlet.step(0)
        assert not outlet.open
        assert closed(reader)
        outlet.step(0)

    def test_what_the_sink_has_not_taken_is_offered_again(self, pipe: Pipe) -> None:
        reader, writer = pipe()
        os.write(writer, b"abc")
        os.close(writer)
        sink = Failing(BlockingIOError(), InterruptedError())
        outlet = Outlet(reader, sink)
        assert outlet.waits() == (reader, 1)
        assert not outlet.busy()
        for got in (b"", b"", b"ab", b"abc"):
            outlet.step(9)
            assert sink.got == got
            assert outlet.busy() is (got != b"abc")
            assert outlet.waits() == (None if got != b"abc" else (reader, 1))
        assert outlet.passed.length == 3
        outlet.step(9)
        assert (outlet.open, outlet.waits()) == (False, None)

    def test_a_sink_that_breaks_closes_the_pipe_and_is_told(self, pipe: Pipe) -> None:
        reader, writer = pipe()
        os.write(writer, b"abc")
        error = OSError("full")
        outlet = Outlet(reader, Failing(error))
        outlet.step(9)
        assert outlet.broken is error
        assert not outlet.open
        assert closed(reader)
        assert outlet.passed.length == 0


class TestMessages:
    """What the worker itself says."""

    def test_each_message_is_understood(self, pipe: Pipe) -> None:
        control, says = pipe()
        messages = Messages(control, -1)
        assert messages.waits() == [(control, 1)]
        for said in (
            (wire.COMPILE, b"77"),
            (wire.RUNNING,),
            (wire.WANT, b"5", b"0"),
            (wire.DONE, b"a", b"b"),
        ):
            os.write(says, message(*said))
        assert (messages.compile_bytes, messages.running, messages.wanted, messages.done) == (
            0,
            False,
            None,
            None,
        )
        messages.step({control: 1})
        assert (messages.compile_bytes, messages.running, messages.wanted, messages.done) == (
            77,
            True,
            (5, 1),
            [b"a", b"b"],
        )
        assert not messages.broken
        os.close(says)
        messages.step({control: 1})
        assert messages.waits() == []

    @pytest.mark.parametrize(
        "said", [message(b"what?"), message(wire.COMPILE, b"many"), message(), b"\xff\xff\xff\xff"]
    )
    def test_what_is_not_a_message_breaks_the_worker(self, pipe: Pipe, said: bytes) -> None:
        control, says = pipe()
        messages = Messages(control, -1)
        os.write(says, said)
        messages.step({control: 1})
        assert messages.broken
        assert messages.waits() == []

    def test_of_what_it_prints_the_end_is_kept(self, pipe: Pipe) -> None:
        diagnostics, prints = pipe()
        messages = Messages(-1, diagnostics)
        os.write(prints, b"begin" + b"x" * 16_384)
        messages.step({})
        assert not messages.printed
        messages.step({diagnostics: 1})
        assert messages.printed == b"x" * 16_384
        os.write(prints, b"end")
        messages.step({diagnostics: 1})
        assert messages.printed == b"x" * 16_381 + b"end"
        os.close(prints)
        messages.step({diagnostics: 1})
        assert messages.waits() == []


class Wires:
    """A pump, and the worker's ends of its pipes."""

    def __init__(self, pipe: Pipe, *, source: Words | None = None, request: bytes = b"job") -> None:
        self.told, request_end = pipe()
        self.stdin, inlet = pipe()
        out, self.stdout = pipe()
        err, self.stderr = pipe()
        control, self.control = pipe()
        diagnostics, self.diagnostics = pipe()
        self.sinks = Collected(), Collected()
        self.pump = Pump(
            (request, request_end),
            Inlet(source, inlet, 4),
            (Outlet(out, self.sinks[0]), Outlet(err, self.sinks[1])),
            Messages(control, diagnostics),
            10,
        )

    def leave(self) -> None:
        """As a worker does that ends."""
        for end in (self.stdout, self.stderr, self.control, self.diagnostics):
            os.close(end)


class TestPump:
    """When it goes on, and what ends it."""

    def test_it_carries_until_the_worker_has_left(self, pipe: Pipe) -> None:
        wires = Wires(pipe)
        os.write(wires.stdout, b"out")
        os.write(wires.stderr, b"error")
        os.write(wires.control, message(wire.DONE))
        wires.leave()
        wires.pump.run(time.monotonic() + 10)
        assert [bytes(sink.data) for sink in wires.sinks] == [b"out", b"error"]
        assert os.read(wires.told, 10) == b"job"
        assert os.read(wires.told, 10) == b""
        assert wires.pump.request == -1
        assert (wires.pump.late, wires.pump.over, wires.pump.messages.done) == (False, False, [])

    def test_a_long_request_goes_out_while_it_is_read(self, pipe: Pipe) -> None:
        wires = Wires(pipe, request=MUCH)
        got = bytearray()

        def reads() -> None:
            while part := os.read(wires.told, 1 << 16):
                got.extend(part)
            wires.leave()

        reader = threading.Thread(target=reads)
        reader.start()
        wires.pump.run(time.monotonic() + 10)
        reader.join()
        assert got == MUCH

    def test_a_worker_that_does_not_read_its_request_is_heard_all_the_same(self, pipe: Pipe) -> None:
        wires = Wires(pipe)
        os.close(wires.told)
        os.write(wires.control, message(wire.DONE, b"x"))
        wires.leave()
        wires.pump.run(time.monotonic() + 10)
        assert (wires.pump.request, wires.pump.messages.done) == (-1, [b"x"])

    def test_what_is_printed_is_carried_though_nothing_more_is_said(self, pipe: Pipe) -> None:
        wires = Wires(pipe)
        os.close(wires.control)
        os.close(wires.diagnostics)

        def prints() -> None:
            time.sleep(0.1)
            os.write(wires.stdout, b"late")
            os.close(wires.stdout)
            os.close(wires.stderr)

        worker = threading.Thread(target=prints)
        worker.start()
        wires.pump.run(time.monotonic() + 10)
        worker.join()
        assert bytes(wires.sinks[0].data) == b"late"

    def test_a_sink_that_takes_little_is_given_the_rest_at_once(self, pipe: Pipe) -> None:
        wires = Wires(pipe)
        sink = Failing()
        wires.pump.outlets = (Outlet(wires.pump.outlets[0].pipe, sink), wires.pump.outlets[1])
        os.write(wires.stdout, b"abcdefgh")
        wires.pump.run(time.monotonic() + 0.2)
        assert sink.got == b"abcdefgh"

    def test_time_is_up(self, pipe: Pipe) -> None:
        wires = Wires(pipe)
        began = time.monotonic()
        wires.pump.run(began + 0.1)
        assert wires.pump.late
        assert 0.1 <= time.monotonic() - began < 5

    def test_a_worker_that_makes_no_sense_is_not_waited_for(self, pipe: Pipe) -> None:
        wires = Wires(pipe)
        os.write(wires.control, message(b"nonsense"))
        wires.pump.run(time.monotonic() + 10)
        assert wires.pump.messages.broken
        assert not wires.pump.late

    def test_input_beyond_its_limit_ends_it(self, pipe: Pipe) -> None:
        wires = Wires(pipe, source=Words(b"12345"))
        wires.pump.inlet.want(0, 4)
        wires.pump.inlet.step()
        os.write(wires.control, message(wire.WANT, b"4", b"9"))
        wires.pump.run(time.monotonic() + 10)
        assert wires.pump.inlet.over
        assert not wires.pump.late
        assert os.read(wires.stdin, 10) == b"1234"

    def test_output_beyond_its_limit_ends_it_however_it_is_spread(self, pipe: Pipe) -> None:
        for first, second, over in ((b"12345", b"12345", False), (b"12345", b"123456", True)):
            wires = Wires(pipe)
            os.write(wires.stdout, first)
            os.write(wires.stderr, second)
            if not over:
                wires.leave()
            wires.pump.run(time.monotonic() + 10)
            assert (wires.pump.over, wires.pump.late) == (over, False)
            assert [bytes(sink.data) for sink in wires.sinks] == [first, second[:5]]
