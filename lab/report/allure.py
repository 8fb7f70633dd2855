"""Builds the one-file HTML report with Allure 3: Node only, installed from the lock, offline afterwards."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.report.errors import ReportError
from lab.report.history import KEPT
from lab.report.page import seal

#: Seconds. Generating takes about two; installing depends on the network.
_GENERATE, _INSTALL = 300, 900
_LAST_LINES = 15


def page(
    root: Path, results: Mapping[str, Path], facts: Mapping[str, str], *, history: Path, append: bool
) -> str:
    """Generates the report.

    Args:
        root: the checkout, which has `package.json` and `reports/allurerc.mjs`.
        results: Allure's result directory of each architecture.
        facts: what the report says about the run.
        history: Allure's own file of earlier runs; made when it is not there.
        append: whether this run is added to it: a second report on the same run is not another run.

    Returns:
        The page; opening it asks nothing of any host.

    Raises:
        ReportError: Node, the generator or the results are not as needed.
    """
    node = _node()
    _install(root)
    with tempfile.TemporaryDirectory(prefix="phase-report-") as name:
        work = Path(name)
        merged = [merge(arch, directory, work / "results" / arch) for arch, directory in results.items()]
        told: dict[str, object] = {"name": "Phase lab", "arches": list(results), "variables": dict(facts)}
        history.parent.mkdir(parents=True, exist_ok=True)
        told |= {"history": str(history.resolve()), "append": append, "kept": KEPT}
        generator = root / "node_modules" / "allure" / "cli.js"
        config = root / "reports" / "allurerc.mjs"
        places: list[str | Path] = ["--config", config, "--output", work / "out", "--cwd", work]
        _run(
            [node, generator, "generate", *merged, *places],
            cwd=work,
            env={"LAB_REPORT": json.dumps(told), "ALLURE_NO_ANALYTICS": "true"},
            timeout=_GENERATE,
        )
        made = work / "out" / "index.html"
        if not made.is_file():
            raise ReportError("Allure made no page", hint="Is singleFile set in reports/allurerc.mjs?")
        return seal(made.read_text(encoding="utf-8"))


def merge(arch: str, source: Path, target: Path) -> Path:
    """Copies one architecture's results, each labelled with it.

    Args:
        arch: the architecture.
        source: what allure-pytest wrote.
        target: where the copy goes; must not exist.

    Returns:
        The target.

    Raises:
        ReportError: a result is no JSON: the run was killed while it wrote.
    """
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if not path.name.endswith("-result.json"):
            shutil.copyfile(path, target / path.name)
            continue
        try:
            result: dict[str, Any] = json.loads(path.read_bytes())
            labels = [label for label in result.get("labels", []) if label["name"] != "arch"]
        except (ValueError, TypeError, KeyError) as error:
            raise ReportError(f"{path} is not a result: {error}", hint="Delete it, or run again.") from error
        for label in labels:
            if label["name"] == "flaky" and result.get("status") == "passed":
                # Never green: the host failed it once, and says nothing of the next time.
                message = f"Passed only when tried again. The first time: {label['value']}"
                result |= {"status": "unknown", "statusDetails": {"flaky": True, "message": message}}
        result["labels"] = [*labels, {"name": "arch", "value": arch}]
        (target / path.name).write_text(json.dumps(result), encoding="utf-8")
    return target


def _node() -> str:
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        raise ReportError(
            "There is no Node for the HTML report", hint="python3 -m lab doctor says how to get it."
        )
    return node


def _install(root: Path) -> None:
    wanted = _version(root / "package.json", "dependencies", "allure")
    if _version(root / "node_modules" / "allure" / "package.json", "version") == wanted:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise ReportError(
            "There is no npm to install Allure with", hint="python3 -m lab doctor says how to get it."
        )
    _run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=root, env={}, timeout=_INSTALL)


def _version(path: Path, *keys: str) -> str:
    try:
        value: Any = json.loads(path.read_bytes())
        for key in keys:
            value = value[key]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return str(value)


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
