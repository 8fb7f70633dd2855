"""Two years of an operator, in any order of what operators do.

`PHASE_YEARS=RUNSxSTEPS` makes it long: 200x400 is what a change to publishing is tried with.
"""

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.phase.release.operator import CHANNELS, OFFLINE, PLACES, Operator

#: Seconds for all of it, whatever else the host does: some 60 steps a second.
pytestmark = pytest.mark.timeout(6 * 3600 if "PHASE_YEARS" in os.environ else 300)
_RUNS, _STEPS = (int(part) for part in os.environ.get("PHASE_YEARS", "6x40").split("x"))
channels = st.sampled_from(CHANNELS)
places = st.lists(st.sampled_from(sorted(PLACES)), unique=True, max_size=5).map(
    lambda several: " ".join(f"--keys {place}" for place in several)
)
everything = st.just(" ".join(f"--keys {place}" for place in PLACES))
keys = st.one_of(everything, everything, places, st.just("--keys online --keys signer"))
roles = st.sampled_from(["root", "timestamp", "snapshot", "targets", "release"])
home = {"root": OFFLINE[:3], "targets": ("signer",), "release": ("signer",)}


class TwoYears(RuleBasedStateMachine):
    """What an operator does, drawn."""

    @initialize()
    def begin(self) -> None:
        self.back = Path.cwd()
        self.directory = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        os.chdir(self.directory)
        self.patch = pytest.MonkeyPatch()
        self.operator = Operator(self.patch)

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()
            os.chdir(self.back)
            shutil.rmtree(self.directory)

    @rule(days=st.integers(0, 45))
    def time_passes(self, days: int) -> None:
        self.operator.pass_time(days)

    @rule(channel=channels, keys=keys, more=st.sampled_from(["", "", "--days 5", "--stage"]))
    def add(self, channel: str, keys: str, more: str) -> None:
        self.operator.add(channel, keys, more)

    @rule(channel=channels, to=channels, keys=keys)
    def promote(self, channel: str, to: str, keys: str) -> None:
        self.operator.promote(channel, to, keys)

    @rule(channel=channels, keys=keys)
    def withdraw(self, channel: str, keys: str) -> None:
        self.operator.withdraw(channel, keys)

    @rule(keys=keys)
    def refresh(self, keys: str) -> None:
        self.operator.run(f"refresh repo {keys}")

    @rule(keys=keys, role=st.sampled_from(["", "", "root", "targets", "stable-x86_64"]))
    def renew(self, keys: str, role: str) -> None:
        self.operator.run(f"renew repo {role} {keys}")

    @rule(role=roles, which=st.integers(0, 2), keys=keys, more=st.sampled_from(["", "", "--gap", "--stage"]))
    def rotate(self, role: str, which: int, keys: str, more: str) -> None:
        there = home.get(role, ("online",))
        new = [self.operator.new_key(role, there[which % len(there)])]
        if role == "root":
            new += [self.operator.new_key(role, place) for place in OFFLINE[:3] if place != there[which]]
        publics = " ".join(f"--public {each}" for each in new)
        self.operator.run(f"rotate repo {publics} {more} {keys}")

    @rule(role=roles, which=st.integers(0, 2), keys=keys, more=st.sampled_from(["", "--gap"]))
    def revoke(self, role: str, which: int, keys: str, more: str) -> None:
        there = home.get(role, ("online",))
        place = there[which % len(there)]
        old = sorted(Path(place).glob(f"{role}*.pub"))
        new = self.operator.new_key(role, place)
        if old:
            public = old[which % len(old)].read_text().split()[2]
            self.operator.run(f"revoke repo {public} --public {new} {more} {keys}")

    @rule(place=st.sampled_from(sorted(PLACES)), which=st.integers(0, 3))
    def lose_a_key(self, place: str, which: int) -> None:
        self.operator.lose(place, which)

    @rule()
    def back_up(self) -> None:
        self.operator.back_up()

    @rule(keys=keys)
    def come_from_a_backup(self, keys: str) -> None:
        self.operator.come_from_backup()
        self.operator.run(f"refresh repo {keys}")
        self.operator.restore(keys)

    @rule(
        signers=st.lists(st.sampled_from(OFFLINE), unique=True),
        keys=keys,
        more=st.sampled_from(["", "--gap"]),
    )
    def offline_round(self, signers: list[str], keys: str, more: str) -> None:
        self.operator.offline_round(signers, keys, more)

    @rule(keys=keys)
    def sign(self, keys: str) -> None:
        self.operator.run(f"sign repo {keys}", touches=CHANNELS)

    @rule()
    def discard(self) -> None:
        self.operator.run("discard repo --yes")

    @rule()
    def prune(self) -> None:
        self.operator.run("prune repo")

    @rule(
        words=st.sampled_from(
            ["refresh repo", "renew repo targets", "sign repo", "rotate repo", "prune repo"]
        ),
        at=st.integers(0, 60),
    )
    def is_killed(self, words: str, at: int) -> None:
        keys = "" if words == "prune repo" else " ".join(f"--keys {place}" for place in PLACES)
        touches = CHANNELS if words == "sign repo" else ()
        self.operator.run(f"{words} {keys}", touches=touches, killed_at=at)

    @rule(days=st.integers(-500, -1), keys=keys)
    def clock_is_behind(self, days: int, keys: str) -> None:
        self.operator.off = timedelta(days=days)
        self.operator.run(f"refresh repo {keys}")
        self.operator.off = timedelta()


TestTwoYears = TwoYears.TestCase
TestTwoYears.settings = settings(
    max_examples=_RUNS,
    stateful_step_count=_STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # A long run says what it found at once.
    phases=[Phase.explicit, Phase.generate] if "PHASE_YEARS" in os.environ else list(Phase),
)
