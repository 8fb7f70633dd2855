"""Killed at any moment of publishing, a repository is the old one or the new one."""

import multiprocessing
import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

from fixtures import artifacts
from phase.release import check
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

#: Kills of each kind; the delays cover the whole run of a publication, and a little more.
KILLS = 30
ADD = "add {repo} stable x86_64 --kernel {kernel} --release {version} --keys {keys}"
REFRESH = "refresh {repo} --keys {keys}"


def run(words: list[str]) -> None:
    """In the child: what `phase release ...` does."""
    from phase.cli.release import command

    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    command(words, standalone_mode=False)


def test_killed_at_any_moment_it_is_the_old_or_the_new(tmp_path: Path) -> None:
    repo, keys, kernel = tmp_path / "repo", tmp_path / "keys", tmp_path / "vmlinuz"
    ReleaseKeys.from_seed("kills").save(keys)
    repository = Repository.create(repo, keys=ReleaseKeys.from_seed("kills"))
    kernel.write_bytes(artifacts.kernel(size=1 << 20))
    repository.add("stable", "x86_64", {"kernel": kernel}, release="0")
    repository.publish()
    root = (repo / "metadata/1.root.json").read_bytes()
    # A server that has imported everything, and forks: many real processes, and each is cheap.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["phase.cli.release", "phase.release.repository", "phase.release.local"])
    believed = check.verify(repo, root, channel="stable", arch="x86_64", now=datetime.now(UTC))
    chance = random.Random(4)  # noqa: S311  # for spread, not for secrecy
    usual, killed = {ADD: 0.0, REFRESH: 0.0}, {ADD: 0, REFRESH: 0}
    for attempt in range(4 * KILLS):
        template = ADD if attempt % 2 == 0 else REFRESH
        kernel.write_bytes(artifacts.kernel(size=1 << 20, fill=os.urandom(1 << 10)))
        words = template.format(repo=repo, keys=keys, kernel=kernel, version=f"{attempt + 2}").split()
        child = server.Process(target=run, args=(words,))
        started = time.monotonic()
        child.start()
        # The first two of each start the server, and measure how long one takes here and now.
        child.join(None if attempt < 4 else chance.uniform(0, usual[template]))
        if child.is_alive():
            child.kill()
        child.join()
        assert child.exitcode in (0, -9)
        killed[template] += child.exitcode == -9
        child.close()
        if attempt < 4:
            usual[template] = time.monotonic() - started
        found = check.verify(
            repo, root, channel="stable", arch="x86_64", now=datetime.now(UTC), floor=believed.floor
        )
        # Two where the one before was killed when all was written, and this one completed it first.
        assert found.manifest.version - believed.manifest.version in (0, 1, 2)
        believed = found
        if min(killed.values()) >= KILLS:
            break
    assert min(killed.values()) >= KILLS
    last = server.Process(
        target=run, args=(ADD.format(repo=repo, keys=keys, kernel=kernel, version="9").split(),)
    )
    last.start()
    last.join()
    assert last.exitcode == 0
    last.close()
    found = check.verify(repo, root, channel="stable", arch="x86_64", now=datetime.now(UTC))
    assert found.manifest.release == "9"
