import pytest

from phase.jobs.status import Exited, Killed, LimitHit, Rejected, Status, Trapped, explain


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Exited(3), "exited with code 3"),
        (Trapped("stack overflow"), "trapped: stack overflow"),
        (LimitHit("fuel"), "stopped at its fuel limit"),
        (Rejected("no module"), "rejected: no module"),
        (Killed(9), "ended by signal 9"),
        (Killed(6, "aborted"), "ended by signal 6: aborted"),
    ],
)
def test_every_end_is_said_in_one_line(status: Status, words: str) -> None:
    assert explain(status) == words
