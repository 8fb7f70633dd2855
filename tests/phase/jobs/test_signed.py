"""One job from its file to its receipt."""

from collections.abc import Callable
from pathlib import Path

import pytest

from phase.identity import Identity
from phase.jobs.errors import JobRefusedError
from phase.jobs.limits import Limits
from phase.jobs.signed import read_module, run
from phase.jobs.status import Exited

Wasm = Callable[[str], bytes]


def test_what_is_asked_reaches_the_module_and_all_it_prints_comes_back(wasm: Wasm, tmp_path: Path) -> None:
    (tmp_path / "world.wasm").write_bytes(wasm("world"))
    outcome = run(tmp_path / "world.wasm", identity=Identity.ephemeral(), args=["x"], env={"A": "1"})
    assert (outcome.status, outcome.exit_code) == (Exited(0), 0)
    assert (outcome.stdout, outcome.stderr) == (b"module\0x\0", b"A=1\0")
    assert len(outcome.job_id) == 32


def test_a_module_of_exactly_its_limit_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "module"
    path.write_bytes(b"12345")
    assert read_module(path, Limits(module_bytes=5)) == b"12345"
    with pytest.raises(JobRefusedError, match="has more than 4 bytes"):
        read_module(path, Limits(module_bytes=4))
    with pytest.raises(JobRefusedError, match=r"module .* cannot be read: No such file"):
        read_module(tmp_path / "missing", Limits())
