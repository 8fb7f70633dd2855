"""Parts that commands share: files and passphrases that a person names, options, and single lines."""

import errno
import json
import os
import select
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner

from fixtures import artifacts
from fixtures.hostile.provider import Provider
from fixtures.hostile.server import Server
from fixtures.hostile.world import ARCH, CHANNEL, World
from phase.cli import COMMANDS, LazyGroup, _artifacts, _given, _options, _passphrases, cli, fetch
from phase.cli._keys import Token
from phase.cli._target import Target
from phase.cli.provider import describe, read_status
from phase.discovery import Provider as Found
from phase.errors import PhaseError
from phase.release.errors import KeysError, ManifestError
from phase.release.keys import Place
from tests.phase.cli.conftest import Inside
from tests.phase.cli.statuses import said


def test_a_file_may_have_as_many_bytes_as_its_limit(tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"12345")
    assert _given.read(tmp_path / "words", "thing", 5) == b"12345"
    with pytest.raises(PhaseError) as refused:
        _given.read(tmp_path / "words", "thing", 4)
    assert str(refused.value) == f"thing {tmp_path / 'words'} is too long; the limit is 4 bytes"


def test_a_pipe_is_read_to_its_end_whenever_its_writer_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    waited, wait = threading.Event(), select.select

    def select_(*words: Any) -> object:
        waited.set()
        return wait(*words)

    def write() -> None:
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            pipe.write(b"Hello, ")
            assert waited.wait(20)
            pipe.write(b"World")

    monkeypatch.setattr(select, "select", select_)
    writer = threading.Thread(target=write)
    writer.start()
    assert _given.read(tmp_path / "pipe", "", 100) == b"Hello, World"
    writer.join()


def test_a_pipe_whose_writer_is_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(_given, "WRITE_SECONDS", 0.01)
    opened = os.open(tmp_path / "pipe", os.O_RDWR)
    with pytest.raises(PhaseError, match="cannot be read: nothing is written to it"):
        _given.read(tmp_path / "pipe", "", 100)
    os.close(opened)
    for path, why in ((tmp_path, "it is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(PhaseError) as refused:
            _given.read(path, "thing", 100)
        assert str(refused.value) == f"thing {path} cannot be read: {why}"


def _ask() -> str:
    """`new_of` at a terminal, and what it returns."""
    sys.stdin.isatty = lambda: True  # type: ignore[method-assign]
    return _passphrases.new_of(Path("root-1.json"), None)


def test_a_new_passphrase_is_typed_twice() -> None:
    typed = "one\nother\nnew words\nnew words\n"
    done = CliRunner().invoke(click.command()(lambda: click.echo(_ask())), input=typed)
    assert (done.exit_code, done.stdout) == (0, "new words\n")
    assert done.stderr.count("New passphrase of root-1.json: ") == 2
    empty = CliRunner().invoke(click.command()(_ask), input=" \n \n")
    assert isinstance(empty.exception, KeysError)
    assert "what was typed is empty" in str(empty.exception)


@pytest.mark.parametrize("word", ["label", "label=", "=file", ""])
def test_a_pin_file_names_its_token(word: str) -> None:
    context = click.Context(cli)
    with pytest.raises(click.BadParameter, match="is not TOKEN=FILE"):
        _passphrases.note_pin_files(context, click.Option(["--pin-file"]), (word,))


def test_the_last_equals_sign_ends_the_token(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("482915\n")
    context = click.Context(cli)
    _passphrases.note_pin_files(context, click.Option(["--pin-file"]), (f"a=b={tmp_path / 'pin'}",))
    with context:
        found = _passphrases.Passphrases.of_command(None)
    assert found.at_hand
    assert found.pin(Path("root-1.json"), Place("lib", "a=b", "root-1"))() == "482915"


def test_a_key_on_a_token_is_called_as_its_file_unless_it_is_named() -> None:
    assert Token("lib", "safe", None, False).place(Path("root-1.json")) == Place("lib", "safe", "root-1")
    assert Token("lib", "safe", "mine", False).place(Path("root-1.json")) == Place("lib", "safe", "mine")
    assert Token(None, None, None, False).place(Path("root-1.json")) is None
    for half in (Token("lib", None, None, False), Token(None, "safe", None, False)):
        with pytest.raises(click.UsageError, match="needs both --pkcs11 and --token"):
            half.place(Path("root-1.json"))


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("nan", "Invalid value for '--timeout': 'nan' is not a number of seconds"),
        ("0.5", "Invalid value for '--timeout': 0.5 is not in the range 1<=x<=9."),
        ("soon", "Invalid value for '--timeout': 'soon' is not a valid float range."),
    ],
)
def test_seconds_have_a_range(word: str, why: str) -> None:
    command = click.command()(_options.timeout(3.0, 1, 9)(click.echo))
    refused = CliRunner().invoke(command, ["--timeout", word])
    assert (refused.exit_code, why in refused.stderr) == (2, True), refused.stderr


def test_seconds_that_nobody_gives_are_the_usual_ones() -> None:
    command = click.command()(_options.timeout(3.0, 1, 9)(lambda timeout: click.echo(timeout)))
    assert CliRunner().invoke(command, []).stdout == "3.0\n"
    told = CliRunner().invoke(command, ["--help"]).stdout
    assert "--timeout SECONDS  How long it may take.  [default: 3 s; 1 to 9]" in told


def test_what_a_directory_holds_besides_a_release_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("kernel", "initramfs", "notes.txt", "README"):
        (tmp_path / name).write_bytes(b"x")
    other = tmp_path / "elsewhere/kernel"
    found = _artifacts.gathered(tmp_path, {"kernel": other, "initramfs": None}, [Path("boards/Virt.dts")])
    assert found == {
        "kernel": other,
        "initramfs": tmp_path / "initramfs",
        "dtb-virt": Path("boards/Virt.dts"),
    }
    assert capsys.readouterr().err == "phase: left out of the release: README, notes.txt\n"
    assert _artifacts.gathered(None, {}, []) == {}
    with pytest.raises(click.UsageError, match="two device trees have the same name"):
        _artifacts.gathered(None, {}, [Path("a/virt.dtb"), Path("b/virt.dtb")])
    with pytest.raises(ManifestError, match="cannot be an artifact under its name"):
        _artifacts.gathered(None, {}, [Path("a b.dtb")])


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_target_leaves_nothing_open_and_nothing_beside_it(tmp_path: Path) -> None:
    before = _open_files()
    with Target(tmp_path / "r.json", module=tmp_path / "m") as target:
        assert _open_files() == before + 1
        target.write(b"receipt")
    assert (_open_files(), (tmp_path / "r.json").read_bytes()) == (before, b"receipt")
    with Target(tmp_path / "none.json", module=tmp_path / "m"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_target_that_is_mounted_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> NoReturn:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    (tmp_path / "r.json").write_bytes(b"an older and longer receipt")
    monkeypatch.setattr(os, "replace", busy)
    with Target(tmp_path / "r.json", module=tmp_path / "m") as target:
        target.write(b"receipt")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("r.json", b"receipt")]


def test_a_target_that_is_the_root_is_no_file() -> None:
    with pytest.raises(PhaseError, match="receipt / cannot be written: Is a directory"):
        Target(Path("/"), module=Path("m"))


def test_scripts_are_told_what_is_published(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmlinuz").write_bytes(artifacts.kernel())
    begun = json.loads(inside("release", "init", "repo", "--new-keys", "keys", "--plain", "--json").out)
    assert begun["published"] == ["root", "targets"]
    words = ("release", "add", "repo", "stable", "x86_64", "--kernel", "vmlinuz", "--keys", "keys", "--json")
    added = json.loads(inside(*words, "--release", "1").out)
    assert (added["waiting"], added["renewed"], added["urgent"]) == ([], [], [])
    assert sorted(added["published"]) == ["stable-x86_64", "targets"]


def test_a_provider_in_one_line() -> None:
    found = read_status("http://one", said(uptime_seconds=61.4, requests=7, bytes_sent=123_456_789_000))
    assert describe(found) == ("ok; up 61 s, 7 requests, 123456.8 MB sent, 0 releases, mDNS on, DHT off")
    found = read_status(
        "http://one", said(dht={"running": True, "nodes": 3}, problems=[{"part": "blobs", "text": "gone"}])
    )
    assert describe(found).startswith("degraded; up ")
    assert describe(found).endswith(", DHT with 3 nodes")


def test_the_version_is_known_where_it_is_installed(inside: Inside) -> None:
    told = inside("version")
    found = json.loads(inside("version", "--json").out)
    commit = f" (commit {found['commit']})" if found["commit"] else ""
    assert told.out.decode() == (
        f"phase {found['version']}{commit}, wasmtime {found['engine']}, Python {found['python']}\n"
    )
    assert found["version"] != "unknown"
    assert inside("--version") == told


def test_all_commands_are_known_to_completion() -> None:
    assert isinstance(cli, LazyGroup)
    context = click.Context(cli)
    assert cli.list_commands(context) == list(COMMANDS)
    assert [each.value for each in cli.shell_complete(context, "re")] == ["receipt", "release"]


def test_providers_are_looked_for_where_none_is_named(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    (tmp_path / "root.json").write_bytes(world.root)
    asked: list[object] = []
    found: list[Found] = []

    def discover(channel: str, arch: str, **more: object) -> list[Found]:
        asked.append((channel, arch, more))
        return found

    monkeypatch.setattr(fetch, "discover", discover)
    words = ("fetch", "--root", str(tmp_path / "root.json"), "--output", str(tmp_path / "out"))
    name = ("--channel", CHANNEL, "--arch", ARCH, "--dht", "127.0.0.1:1")
    nobody = inside(*words, *name)
    assert (nobody.code, nobody.out) == (1, b"")
    assert nobody.err == (f"phase: no provider of {CHANNEL}/{ARCH} was found. Name one with --provider.\n")
    with Server(Provider(world).answer) as server:
        found.append(Found(server.url, CHANNEL, ARCH, None, "mdns", "12345678"))
        done = inside(*words, *name)
    assert done.code == 0, done
    assert done.out.decode().splitlines()[-1].endswith(f" is in {tmp_path / 'out'}")
    more = {"dht": (("127.0.0.1", 1),), "timeout": 5.0, "gather": 0.5}
    assert asked == [(CHANNEL, ARCH, more)] * 2
