"""Many jobs while workers, the node and clients are killed: each is answered once or is lost.

A smaller number here; `python -m tests.phase.node.storm` runs as many as you like.
"""

from pathlib import Path

from tests.phase.node.storm import Storm


def test_no_job_is_answered_twice_while_everything_is_killed(tmp_path: Path) -> None:
    told = Storm(tmp_path, clients=4, jobs=60, kills=3, seconds=100).run()
    assert told.answered + told.lost + told.not_run == 60
    # Of each client that was killed, and of each node, some are on their way; how many, the host decides.
    assert told.answered > 10
    assert told.twice == []
    assert told.left == []
    # Whatever a client heard, the node's books say the same of it after the last restart.
    assert told.differ == []
