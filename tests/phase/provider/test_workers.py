"""The parent of several processes, in this very process: its workers are real ones."""

import errno
import functools
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator

import pytest

from phase.provider import workers
from phase.provider.errors import ProviderError
from phase.provider.workers import Work, run


class Places:
    """What the parent tells of its workers, and whether they serve."""

    def __init__(self, serving: Callable[[], bool] = lambda: True) -> None:
        self.told: list[str] = []
        self.serving = serving

    def started(self, number: int) -> None:
        self.told.append(f"{number} starts")

    def ended(self, number: int, reason: str) -> None:
        self.told.append(f"{number} ended {reason}")


class Line:
    """Workers write to it what they do; whoever reads waits."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def say(self, word: str) -> None:
        os.write(self._write, f"{word}\n".encode().ljust(16))

    def hear(self, count: int = 1) -> list[str]:
        """So many words, in the order of the alphabet."""
        return sorted(os.read(self._read, 16).decode().strip() for _ in range(count))

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of a run is left: no child, no blocked signal, no handler. Pauses are short."""
    monkeypatch.setattr(workers, "RETRY_SECONDS", (0.01, 0.04))
    monkeypatch.setattr(workers, "on_terminal", lambda: False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a process that has one thread, as the parent of workers has.

    A signal goes to any thread that does not block it: beside others, such as pytest-xdist's, this one would
    wait for it in vain.
    """

    @functools.wraps(test)
    def run_alone(*given: object, **named: object) -> None:
        # Not `threading.active_count`: it does not know those that others have begun.
        if len(os.listdir("/proc/self/task")) == 1:
            return test(*given, **named)
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0, "see its standard error"
            return None
        code = 1
        try:
            test(*given, **named)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    return run_alone


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def until_told(line: Line) -> Work:
    """Says that it is there, and waits for the signal to end."""

    def work(number: int) -> None:
        line.say(f"work {number}")
        while True:
            signal.pause()

    return work


@alone
def test_alone_the_work_is_done_here_and_a_signal_ends_it() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        stop()
        time.sleep(60)

    with pytest.raises(SystemExit) as ended:
        run(1, work)
    assert (done, ended.value.code) == ([0], 0)


@alone
def test_they_are_told_to_end_when_the_socket_is_closed(line: Line) -> None:
    happened: list[str] = []
    places = Places()

    def ready() -> None:
        assert line.hear(3) == ["work 0", "work 1", "work 2"]
        happened.append("ready")
        stop()

    run(3, until_told(line), places=places, ready=ready, ending=lambda: happened.append("ending"))
    assert happened == ["ready", "ending"]
    assert places.told == ["0 starts", "1 starts", "2 starts"]


@alone
def test_it_is_ready_when_all_serve_and_not_before(line: Line) -> None:
    looks: list[int] = []

    def serving() -> bool:
        looks.append(len(looks))
        return len(looks) == 3

    def ready() -> None:
        line.hear(2)
        looks.append(99)
        stop()

    run(2, until_told(line), places=Places(serving), ready=ready)
    assert looks == [0, 1, 2, 99]


@pytest.mark.parametrize("how", ["killed", "failed", "left"])
@alone
def test_one_that_ends_is_started_anew(line: Line, how: str, caplog: pytest.LogCaptureFixture) -> None:
    def work(number: int) -> None:
        line.say(f"work {number}")
        if number == 1 and not again:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "failed":
                raise ValueError("broken")
            return
        while True:
            signal.pause()

    again: list[str] = []

    class Told(Places):
        def started(self, number: int) -> None:
            super().started(number)
            if len(self.told) > 2:
                again.append("again")
                stop()

    places = Told()
    run(2, work, places=places)
    why = {"killed": "by signal 9", "failed": "with exit code 1", "left": "with exit code 0"}[how]
    assert places.told == ["0 starts", "1 starts", f"1 ended {why}", "1 starts"]
    assert f"worker 1 ended {why}; it is started anew in 0.0 s" in caplog.text


@alone
def test_one_that_ends_again_and_again_ends_them_all(line: Line) -> None:
    places = Places()

    def work(number: int) -> None:
        line.say(f"work {number}")
        while number == 0:
            signal.pause()

    with pytest.raises(ProviderError, match="worker 1 ended 5 times in a row within 10 s of its start"):
        run(2, work, places=places)
    assert places.told.count("1 starts") == 5
    assert places.told.count("1 ended with exit code 0") == 4
    assert places.told.count("0 starts") == 1


@alone
def test_one_that_lived_for_long_has_all_its_tries_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STEADY_SECONDS", 0.0)
    ends: list[str] = []

    class Told(Places):
        def ended(self, number: int, reason: str) -> None:
            ends.append(reason)
            if len(ends) == 8:
                stop()

    def work(number: int) -> None:
        while number == 0:
            signal.pause()

    run(2, work, places=Told())
    assert len(ends) >= 8


@alone
def test_logs_are_opened_anew_by_all(line: Line) -> None:
    def work(number: int) -> None:
        signal.signal(signal.SIGHUP, lambda *_: line.say(f"anew {number}"))
        line.say(f"work {number}")
        while True:
            signal.pause()

    heard: list[str] = []

    class Told(Places):
        def ended(self, number: int, reason: str) -> None:
            raise AssertionError(f"{number} ended {reason}")

    def ready() -> None:
        line.hear(2)
        os.kill(os.getpid(), signal.SIGHUP)
        # The parent passes it on once it is back from here.
        pid = os.fork()
        if not pid:
            heard.extend(line.hear(2))
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(0 if heard == ["anew 0", "anew 1"] else 1)
        helpers.append(pid)

    helpers: list[int] = []
    run(2, work, places=Told(), ready=ready)
    assert os.waitpid(helpers[0], 0)[1] == 0


@alone
def test_one_that_fails_when_it_is_told_to_end_is_told_of(line: Line) -> None:
    def work(number: int) -> None:
        line.say(f"work {number}")
        try:
            while True:
                signal.pause()
        except SystemExit:
            if number == 1:
                raise ValueError("its state is not written") from None
            raise

    def ready() -> None:
        line.hear(2)
        stop()

    with pytest.raises(ProviderError, match="not all workers ended well: worker 1 ended with exit code 1"):
        run(2, work, ready=ready)


def deaf(line: Line) -> Work:
    """Does not end when it is told to."""

    def work(number: int) -> None:
        signal.signal(signal.SIGTERM, lambda *_: line.say("told"))
        line.say(f"work {number}")
        while True:
            signal.pause()

    return work


@alone
def test_one_that_does_not_end_in_time_is_killed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "END_SECONDS", 0.2)

    def ready() -> None:
        line.hear(2)
        stop()

    with pytest.raises(ProviderError) as caught:
        run(2, deaf(line), ready=ready)
    assert str(caught.value).count("ended by signal 9") == 2


@alone
def test_a_second_signal_ends_them_at_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_AGAIN_SECONDS", 0.0)
    helpers: list[int] = []

    def ready() -> None:
        line.hear(2)
        stop()
        pid = os.fork()
        if not pid:
            line.hear(2)
            os.kill(os.getppid(), signal.SIGINT)
            os._exit(0)
        helpers.append(pid)

    with pytest.raises(ProviderError) as caught:
        run(2, deaf(line), ready=ready)
    assert os.waitpid(helpers[0], 0)[1] == 0
    assert str(caught.value).count(f"ended by signal {int(signal.SIGQUIT)}") == 2


@alone
def test_without_processes_to_be_had_it_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(number: int, work: Work) -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(workers, "_fork", none)
    with pytest.raises(ProviderError, match="worker 0 cannot be started: Resource temporarily unavailable"):
        run(2, lambda _: None)


@alone
def test_a_process_that_is_not_to_be_had_later_is_tried_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = workers._fork
    asked: list[int] = []
    parent = os.getpid()

    def short(number: int, work: Work) -> int:
        asked.append(number)
        if len(asked) == 3:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork(number, work)

    class Told(Places):
        def started(self, number: int) -> None:
            super().started(number)
            if len(self.told) > 4:
                stop()

    def work(number: int) -> None:
        if number == 1 and len(asked) == 2:
            line.hear()
            return
        while True:
            signal.pause()

    monkeypatch.setattr(workers, "_fork", short)
    places = Told()
    run(2, work, places=places, ready=lambda: line.say("go"))
    assert (asked, os.getpid()) == ([0, 1, 1, 1], parent)
    assert places.told[2:] == [
        "1 ended with exit code 0",
        "1 starts",
        "1 ended and cannot be started: Resource temporarily unavailable",
        "1 starts",
    ]
