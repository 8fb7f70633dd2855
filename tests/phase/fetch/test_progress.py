"""What people are told while they wait."""

from phase.fetch import Progress


class Watch:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_how_far_how_fast_how_long() -> None:
    said: list[str] = []
    clock = Watch()
    progress = Progress(50_000_000, said.append, every=5, clock=clock)
    kernel = progress.artifact()
    kernel(0, 10_000_000)
    for second in range(1, 6):
        clock.now += 1
        kernel(second * 2_000_000, 10_000_000)
    assert said == ["10.0 of 50.0 MB, 2.0 MB/s, 20 s left"]
    rootfs = progress.artifact()
    rootfs(0, 40_000_000)
    clock.now += 5
    rootfs(1_000_000, 40_000_000)
    assert said[1:] == ["11.0 of 50.0 MB, 1.1 MB/s, 35 s left"]


def test_what_was_there_was_not_fast() -> None:
    said: list[str] = []
    clock = Watch()
    progress = Progress(50_000_000, said.append, every=5, clock=clock)
    rootfs = progress.artifact()
    rootfs(40_000_000, 50_000_000)
    clock.now += 5
    rootfs(40_000_000, 50_000_000)
    assert said == ["40.0 of 50.0 MB"]
    clock.now += 5
    rootfs(41_000_000, 50_000_000)
    assert said[1:] == ["41.0 of 50.0 MB, 0.1 MB/s, 90 s left"]


def test_the_rate_is_that_of_now() -> None:
    said: list[str] = []
    clock = Watch()
    progress = Progress(100_000_000, said.append, every=10, clock=clock)
    rootfs = progress.artifact()
    rootfs(0, 100_000_000)
    for second in range(1, 41):
        clock.now += 1
        rootfs(second * 1_000_000 if second <= 20 else 20_000_000 + (second - 20) * 100_000, 100_000_000)
    assert said[1].endswith("1.0 MB/s, 80 s left")
    assert said[3] == "22.0 of 100.0 MB, 0.1 MB/s, 780 s left"


def test_what_is_quick_is_not_told() -> None:
    said: list[str] = []
    progress = Progress(1000, said.append)
    progress.artifact()(1000, 1000)
    assert not said


def test_words_that_come_late_take_nothing_back() -> None:
    """Two threads may tell in the wrong order."""
    said: list[str] = []
    clock = Watch()
    progress = Progress(10_000_000, said.append, every=2, clock=clock)
    kernel = progress.artifact()
    kernel(0, 10_000_000)
    kernel(4_000_000, 10_000_000)
    kernel(3_000_000, 10_000_000)
    clock.now += 2
    kernel(4_000_000, 10_000_000)
    assert said == ["4.0 of 10.0 MB, 2.0 MB/s, 3 s left"]


def test_lines_come_five_seconds_apart_and_count_what_came_before() -> None:
    said: list[str] = []
    clock = Watch()
    progress = Progress(30_000_000, said.append, clock=clock)
    for seconds in (4, 1, 5):
        one = progress.artifact()
        one(0, 10_000_000)
        clock.now += seconds
        one(10_000_000, 10_000_000)
    assert [line.partition(",")[0] for line in said] == ["20.0 of 30.0 MB", "30.0 of 30.0 MB"]


def test_what_is_ten_seconds_old_says_nothing_of_now() -> None:
    said: list[str] = []
    clock = Watch()
    progress = Progress(100_000_000, said.append, every=1, clock=clock)
    rootfs = progress.artifact()
    rootfs(0, 100_000_000)
    for done in (50_000_000, 51_000_000, 52_000_000):
        clock.now += 5
        rootfs(done, 100_000_000)
    # What came in the first five seconds is just outside at fifteen.
    assert said[-1] == "52.0 of 100.0 MB, 0.2 MB/s, 240 s left"
