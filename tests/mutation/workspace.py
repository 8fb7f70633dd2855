"""A copy of the project in which mutmut works; what it found is kept there between runs."""

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from tests.mutation.areas import Area
from tests.mutation.wording import marked

PROJECT = Path(__file__).resolve().parents[2]
_ENGINE = Path(__file__).with_name("engine.py")
#: mutmut stops the tests of a mutant after (their usual seconds + the first) times the second.
_EXTRA_SECONDS, _TIMES = 4.0, 8.0
_PR_SET_CHILD_SUBREAPER = 36
#: mutmut reads its settings from the current directory when the first changed function is called, and by
#: then a test may have gone elsewhere, or have started a process elsewhere.
_AT_START = """import os

try:
    from mutmut.configuration import config
except ImportError:  # another Python's process
    config = None
if config is not None:
    here = os.getcwd()
    os.chdir({root!r})
    config()
    os.chdir(here)
"""
#: Of an exit code that mutmut keeps: a test failed, pytest broke, or the time was over.
_DIED = frozenset({1, 3, 36, 24, -24, 152})


class Workspace:
    """The copy for one area.

    Args:
        area: what is mutated there.
        one_in: how many mutants there could be for each that is made.
    """

    def __init__(self, area: Area, *, one_in: int = 1) -> None:
        self.area = area
        self._one_in = one_in
        self.root = PROJECT / ".cache/mutation" / area.source.replace("/", "-")
        self.mutants = self.root / "mutants"
        self._package = area.source.partition("/")[0]

    def run(self, *, anew: bool = False) -> list[dict[str, str]]:
        """Judge each mutant that is not judged yet.

        Args:
            anew: forget what was found before.

        Returns:
            All mutants of the area, as `engine.results` has them.

        Raises:
            SystemExit: mutmut cannot begin: the tests fail without a mutant, for one.
        """
        if anew:
            shutil.rmtree(self.root, ignore_errors=True)
        # Python remembers of a directory on its path that it is missing.
        self.mutants.mkdir(parents=True, exist_ok=True)
        self._copy()
        self._forget_what_changed()
        print(f"{self.area.source}: mutmut is at work; what it says: {self._log}", flush=True)
        with self._log.open("wb") as log:
            self._engine("run", log)
        with tempfile.TemporaryFile() as answer:
            self._engine("survivors", answer)
            answer.seek(0)
            found: list[dict[str, str]] = json.load(answer)
        return found

    def _copy(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=PROJECT,
            capture_output=True,
            check=True,
        ).stdout
        names = {name for name in listed.decode().split("\0") if name and (PROJECT / name).is_file()}
        for name in sorted(names):
            data = (PROJECT / name).read_bytes()
            if name.startswith(f"{self._package}/") and name.endswith(".py"):
                data = marked(data.decode()).encode()
            if name == "pyproject.toml":
                data += self._settings(names).encode()
            _put(self.root / name, data, mode=(PROJECT / name).stat().st_mode)
        kept = names | {"results.json", "mutmut.log"}
        for path in self.root.rglob("*"):
            name = str(path.relative_to(self.root))
            if path.is_file() and self.mutants not in path.parents and name not in kept:
                path.unlink()
        # mutmut copies all again but what it mutates; what was deleted since would stay.
        for path in self.mutants.rglob("*") if self.mutants.exists() else ():
            origin = self.root / str(path.relative_to(self.mutants)).removesuffix(".meta").removesuffix(
                ".spans"
            )
            if path.is_file() and not origin.exists() and path.parent != self.mutants:
                path.unlink()

    def _settings(self, names: Iterable[str]) -> str:
        others = sorted({name.partition("/")[0] for name in names} - {self._package})
        pattern = self.area.source if self.area.source.endswith(".py") else f"{self.area.source}/*"
        settings: dict[str, Any] = {
            "source_paths": [self._package],
            "only_mutate": [pattern],
            "do_not_mutate": list(self.area.apart),
            "also_copy": others,
            "pytest_add_cli_args_test_selection": list(self.area.tests),
            # A deadline of hypothesis would kill mutants because the machine is busy.
            "pytest_add_cli_args": ["-p", "no:cacheprovider", "--hypothesis-profile=ci"],
            "process_isolation": "forkserver",
            "timeout_constant": _EXTRA_SECONDS,
            "timeout_multiplier": _TIMES,
            "use_git_change_detection": False,
            "on_dependency_change": "ignore",
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        text = "\n[tool.mutmut]\n" + "\n".join(lines) + "\n"
        tomllib.loads(text)
        return text

    def _forget_what_changed(self) -> None:
        """Drop what does not hold any more.

        Of a function that changed, mutmut itself drops what it found. With other tests, what lived may die,
        so it is judged again; what a test killed stays killed until `--anew`.
        """
        kept = json.loads(self._kept.read_text()) if self._kept.exists() else {}
        if kept.get("tool") != self._tool():
            shutil.rmtree(self.mutants, ignore_errors=True)
            self.mutants.mkdir()
        elif kept.get("tests") != self._tests():
            (self.mutants / "mutmut-stats.json").unlink(missing_ok=True)
            for path in self.mutants.rglob("*.meta"):
                data = json.loads(path.read_text())
                codes = data["exit_code_by_key"]
                data["exit_code_by_key"] = {
                    name: code if code in _DIED else None for name, code in codes.items()
                }
                path.write_text(json.dumps(data, indent=4))
        # Python runs it first in each process that has this directory on its path.
        words = _AT_START.format(root=str(self.root))
        _put(self.mutants / "sitecustomize.py", words.encode(), mode=0o644)
        # Whatever ends this run, the next begins with what this one was made from.
        self._remember()

    def _remember(self) -> None:
        self._kept.write_text(json.dumps({"tool": self._tool(), "tests": self._tests()}))

    @property
    def _kept(self) -> Path:
        return self.root / "results.json"

    @property
    def _log(self) -> Path:
        return self.root / "mutmut.log"

    def _tool(self) -> str:
        """What decides which mutants there are."""
        parts = [_ENGINE, Path(__file__), Path(__file__).with_name("wording.py"), Path(sys.executable)]
        whole = b"".join([*(path.read_bytes()[:1_000_000] for path in parts), str(self._one_in).encode()])
        return hashlib.sha256(whole).hexdigest()

    def _tests(self) -> str:
        """What decides which of them die: the tests, and the files that tests share."""
        digest = hashlib.sha256()
        chosen = [self.root / path.partition("::")[0] for path in self.area.tests]
        files = {path for top in chosen for path in (top.rglob("*.py") if top.is_dir() else [top])}
        shared = {path for path in (self.root / "tests").rglob("conftest.py")}
        for path in sorted(files | shared):
            if path.exists():
                digest.update(str(path).encode() + path.read_bytes())
        return digest.hexdigest()

    def _engine(self, word: str, out: IO[bytes]) -> None:
        environment = os.environ | {
            # What a test starts is mutated, too.
            "PYTHONPATH": str(self.mutants),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            code = _run(
                [sys.executable, "-P", str(_ENGINE), word, str(self._one_in)], self.root, environment, out
            )
        finally:
            _end_orphans()
        if code:
            raise SystemExit(
                f"{self.area.source}: mutmut ended with {code}; see {self._log}. "
                f"Do its tests pass as they are? pytest {' '.join(self.area.tests)}"
            )


def _put(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file unless it is like that already: mutmut goes by its time."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode & 0o777)


def _run(command: Sequence[str], directory: Path, environment: Mapping[str, str], out: IO[bytes]) -> int:
    """Run a program to its end, and bury meanwhile what its own children leave: tests look for zombies."""
    with subprocess.Popen(command, cwd=directory, env=environment, stdout=out) as process:
        while True:
            ended, status = os.waitpid(-1, 0)
            if ended == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode


def _end_orphans() -> None:
    """End what tests of mutants left running: their parent was killed, so they are ours now."""
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            return
