"""Programs that real compilers made, through the real `phase run`: what each prints and how it ends."""

import hashlib
import subprocess
import sys
from collections import Counter
from itertools import groupby

import pytest

from fixtures.modules import corpus

_RUNS = corpus.runs()
_MODULES = corpus.modules()
_BY_TOOLCHAIN = {
    name: list(group) for name, group in groupby(_RUNS, key=lambda run: _MODULES[run.module][0])
}


@pytest.mark.parametrize("toolchain", _BY_TOOLCHAIN)
def test_modules_of_a_toolchain_do_what_they_do_elsewhere(toolchain: str) -> None:
    wrong = []
    for run in _BY_TOOLCHAIN[toolchain]:
        command = [sys.executable, "-m", "phase", "run", *run.words(str(corpus.built(run.module)))]
        done = subprocess.run(command, input=run.input, capture_output=True, timeout=60, check=False)
        digest = corpus.digest(done.stdout)
        wrong += run.check(done.returncode, digest, done.stderr.decode("utf-8", "replace"))
    assert wrong == []


def test_the_manifest_has_a_run_for_every_module_and_every_module_is_built() -> None:
    assert {run.module for run in _RUNS} == set(_MODULES)
    assert {path.stem for path in corpus.BUILT.glob("*.wasm")} == set(_MODULES)
    assert {toolchain for toolchain, _ in _MODULES.values()} == set(corpus.toolchains())
    assert all((corpus.HERE / source).exists() for _, source in _MODULES.values())
    assert len({run.name for run in _RUNS}) == len(_RUNS)
    assert sum(path.stat().st_size for path in corpus.BUILT.iterdir()) < 6_000_000


def test_what_the_manifest_expects_is_what_python_computes() -> None:
    """The digests were not only copied from what came out once."""
    expected = {run.module: run.stdout for run in _RUNS}
    text = corpus.TEXT.read_text()
    counted = f"{text.count(chr(10))} lines, {len(text.split())} words, {len(text.encode())} bytes\n"
    for module in ("c-words", "zigcc-words", "zig-words"):
        assert expected[module] == corpus.digest(counted.encode())
    found = sorted(Counter(text.split()).items(), key=lambda item: (-item[1], item[0].encode()))
    listed = "".join(f"{count} {word}\n" for word, count in found)
    assert expected["cpp-words"] == expected["rust-words"] == corpus.digest(listed.encode())
    flood = hashlib.sha256(b"".join(b"%031d\n" % number for number in range(131072)))
    assert expected["c-flood"] == expected["rust-flood"] == flood.hexdigest()
    numbers, state = [], 1
    for _ in range(1 << 18):
        state = (state * 1664525 + 1013904223) % 2**32
        numbers.append(state)
    numbers.sort()
    ends = f"{numbers[0]} {numbers[-1]}\n"
    words = sorted(f"{number:x}" for number in numbers[: 1 << 15])
    assert expected["rust-sort"] == corpus.digest(f"{ends}{words[0]} {words[-1]}\n".encode())
    assert expected["as-sort"] == corpus.digest(f"{ends}a 1\nb 2\ntrue true\n".encode())
    assert expected["c-sort"] == expected["zigcc-sort"]
