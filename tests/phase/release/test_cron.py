"""What runs unattended: as printed, with the keys of the five minutes, and nobody to type."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures import artifacts
from phase.release import keys as release_keys
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

PAGE = (Path(__file__).parents[3] / "docs/use/releases.md").read_text()
WORDS = "correct horse"
VARIABLE = "PHASE_RELEASE_PASSPHRASE"


def run(words: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run(
        [sys.executable, "-m", "phase", "release", *words.split()],
        cwd=directory,
        env=clean | {"PHASE_RELEASE_COST": "interactive"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """As after five minutes."""
    (tmp_path / "vmlinuz").write_bytes(artifacts.kernel())
    for words in (
        "init repo --new-keys keys",
        "add repo stable x86_64 --kernel vmlinuz --release 1 --keys keys",
    ):
        done = run(words, tmp_path, PHASE_RELEASE_PASSPHRASE=WORDS)
        assert done.returncode == 0, done.stderr
    return tmp_path


def test_the_cron_line_works_as_printed(desk: Path) -> None:
    (line,) = re.findall(r"^17 3 \* \* \*  (.*)$", PAGE, re.MULTILINE)
    script = line.replace("/srv/phase", str(desk)).replace(
        "phase release", f"{sys.executable} -m phase release"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    before = (desk / "repo/metadata/timestamp.json").read_bytes()
    done = subprocess.run(
        ["sh", "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Whatever it says, cron mails every day.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    after = (desk / "repo/metadata/timestamp.json").read_bytes()
    assert after != before
    assert (desk / "public/metadata/timestamp.json").read_bytes() == after


def test_a_refresh_opens_only_the_keys_it_needs(desk: Path) -> None:
    for name in ("root-1", "targets", "release"):
        (desk / f"keys/{name}.json").write_text("no key at all")
    done = run("refresh repo --keys keys", desk, PHASE_RELEASE_PASSPHRASE="another passphrase")
    assert done.returncode == 0, done.stderr


def test_a_release_that_is_half_over_is_renewed_if_somebody_gives_the_passphrase(tmp_path: Path) -> None:
    keys = ReleaseKeys.from_seed("half over")
    keys.save(tmp_path / "keys", passphrase=WORDS, plain=release_keys.ONLINE, cost="interactive")
    (tmp_path / "vmlinuz").write_bytes(artifacts.kernel())
    made = Repository.create(tmp_path / "repo", keys=keys, now=datetime.now(UTC) - timedelta(days=100))
    made.add("stable", "x86_64", {"kernel": tmp_path / "vmlinuz"}, release="1")
    made.publish()
    done = run("refresh repo --keys keys", tmp_path)
    assert (done.returncode, "renewed stable" in done.stdout) == (0, False), done.stderr
    done = run("refresh repo --keys keys", tmp_path, PHASE_RELEASE_PASSPHRASE="another passphrase")
    assert (done.returncode, "passphrase is wrong" in done.stderr) == (1, True)
    done = run("refresh repo --keys keys", tmp_path, PHASE_RELEASE_PASSPHRASE=WORDS)
    assert (done.returncode, "renewed" in done.stdout) == (0, True), done.stderr


def test_the_units_are_what_systemd_reads(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    found = re.findall(r"`/etc/systemd/system/([\w.-]+)`.*?```ini\n(.*?)```", PAGE, re.DOTALL)
    assert sorted(name for name, _ in found) == [
        "phase-refresh-failed.service",
        "phase-refresh.service",
        "phase-refresh.timer",
    ]
    for name, text in found:
        # As installed: what the units start is there.
        (tmp_path / name).write_text(text.replace("/usr/local/bin/phase", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name, _ in found)],
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if "phase-refresh" in line]
    assert (done.returncode, said) == (0, []), done.stderr
