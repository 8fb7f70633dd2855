"""What a booted system's provider is started with, by the kernel command line."""

from pathlib import Path

import pytest

from tests.boot.scripts import started

_MIRROR = "--follow found {}--root /phase/release/metadata/1.root.json --mirror {}/auto --mirror "


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("", ""),
        ("phase.mdns=off phase.dht=off", "--no-mdns --no-dht"),
        ("phase.dht=a:1,b:2", "--dht a:1 --dht b:2"),
        ("phase.provider=http://a:1", ""),
    ],
)
def test_the_command_line_decides(words: str, options: str, tmp_path: Path) -> None:
    expected = f"serve --artifacts /phase/release --mode internet --channel stable {options} --port 8080"
    assert started("daemon", words, tmp_path) == " ".join(expected.split())


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("phase.mirror=stable/arm64", _MIRROR.format("", "stable") + "stable/arm64"),
        (
            "phase.mirror=a/arm64,b/x86_64 phase.channel=a phase.provider=http://a:1,http://b:2",
            _MIRROR.format("--follow http://a:1 --follow http://b:2 ", "a") + "a/arm64 --mirror b/x86_64",
        ),
    ],
)
def test_a_mirror_is_a_place_of_its_own(words: str, options: str, tmp_path: Path) -> None:
    """The release that booted stays as it is: what comes lies over it."""
    said = started("daemon", words, tmp_path)
    assert said.startswith("serve --artifacts /run/phase/mirror --mode internet --channel ")
    assert options in said


@pytest.mark.parametrize("fails", [1, 2])
def test_a_mirror_that_has_no_place_yet_serves_nothing(tmp_path: Path, fails: int) -> None:
    """Neither at once nor at its next start: an empty directory is nobody's release."""
    count = f"echo x >>{tmp_path}/mounts; [ $(wc -l <{tmp_path}/mounts) != {fails} ]"
    words = "phase.mirror=stable/arm64"
    assert not started("daemon", words, tmp_path / "once", mount=count)
    (tmp_path / "mounts").unlink()
    assert "--artifacts /run/phase/mirror" in started(
        "daemon", words, tmp_path / "twice", mount=count, times=2
    )


def test_a_mirror_fills_memory_of_its_own(tmp_path: Path) -> None:
    """Not that of /run, where an update is put together."""
    started("daemon", "phase.mirror=stable/arm64", tmp_path, mount=f'echo "$*" >>{tmp_path}/mounts')
    memory, over = (
        (tmp_path / "mounts").read_text().replace(str(tmp_path / "run"), "/run/phase").splitlines()
    )
    assert memory == "-t tmpfs -o mode=0755,size=40% layers /run/phase/layers"
    assert "upperdir=/run/phase/layers/upper,workdir=/run/phase/layers/work" in over


@pytest.mark.parametrize(
    ("mode", "said"), [("local", "serve --artifacts /phase/release --mode local "), ("private", "")]
)
def test_the_mode_is_handed_on_or_nothing_listens(mode: str, said: str, tmp_path: Path) -> None:
    found = started("daemon", f"phase.mode={mode} phase.mirror=stable/arm64", tmp_path)
    assert found.replace("/run/phase/mirror", "/phase/release").startswith(said)
    assert bool(found) == bool(said)


@pytest.mark.parametrize(("status", "times"), [(0, 1), (1, 3)])
def test_a_provider_that_starts_again_does_not_say_again_that_it_is_well(
    status: int, times: int, tmp_path: Path
) -> None:
    """Only where it could not be said before."""
    started("daemon", "", tmp_path, metadata={"2.a.json": '{"before": 1}'}, times=3, status=status)
    assert (tmp_path / "python").read_text().split("\n")[:-1] == ["-s -m phase.boot.healthy"] * times


def test_a_mirror_believes_the_root_that_the_seed_had(tmp_path: Path) -> None:
    """After a rotation, too: the newest root comes beside it."""
    roots = dict.fromkeys(("root.json", "10.root.json", "9.root.json", "11.root.json", "x.root.json"), "")
    said = started("daemon", "phase.mirror=stable/arm64", tmp_path, metadata=roots)
    assert "--root /phase/release/metadata/9.root.json" in said
