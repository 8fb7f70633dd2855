"""Tools are found, and their versions read as they print them."""

import re
import sys
from pathlib import Path

import pytest

from lab.doctor.needs import ARCHES, NEEDS, PURPOSES, Need, needed
from lab.doctor.tools import look, packages_for, parse_version

PROJECT = Path(__file__).parents[3]
#: Of packages that every Debian has; `make` has started the set-up, and Node is in a wheel.
BASE = {
    *(
        "bash",
        "cat",
        "dpkg-query",
        "echo",
        "losetup",
        "mount",
        "sh",
        "sha256sum",
        "sleep",
        "tar",
        "true",
        "umount",
        "unshare",
    ),
    *("make", "node", "nodejs", "npm"),
}
#: Looked for, and done without. Once nginx is installed, it listens on port 80 of the host.
# Node and npm come with a wheel.
OPTIONAL = {
    *("mkfs.exfat", "mount.exfat-fuse", "nginx", "node", "npm", "sudo", "systemctl"),
    "systemd-socket-activate",
}
_STARTED = re.compile(
    r'(?:subprocess\.\w+\(\s*\[|port\.run\()\s*"(?:/usr/s?bin/)?([a-z][\w.-]*)"|which\("([a-z][\w.-]*)"'
)


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", (7, 2, 22)),
        ("*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***", (1, 5, 4)),
        ("mksquashfs version 4.5.1 (2022/03/17)", (4, 5, 1)),
        ("kmod version 30\n+ZSTD +XZ", (30,)),
        ("v18.20.4", (18, 20, 4)),
        ("apt 2.6.1 (amd64)", (2, 6, 1)),
        ("qemu-system-aarch64: not a version", ()),
    ],
)
def test_versions(printed: str, version: tuple[int, ...]) -> None:
    assert parse_version(printed) == version


def _tool(directory: Path, name: str, prints: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{prints}'\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(("prints", "state"), [("v 2.1", "ok"), ("v 2.0.9", "old"), ("garbage", "old")])
def test_a_tool_is_ok_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prints: str, state: str
) -> None:
    _tool(tmp_path, "phase-thing", prints)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    need = Need("thing", "why", ("pkg",), ("phase-thing",), ("--version",), (2, 1))
    assert look(need).state == state


def test_what_is_missing_names_its_packages_once() -> None:
    gone = [
        look(Need("a", "why", ("one", "two"), commands=("phase-no-such-tool",))),
        look(Need("b", "why", ("two",), files=("/no/such/file",))),
        look(Need("c", "why", ("three",), modules=("no_such_module",))),
        look(Need("d", "why", ("four",), modules=("json",))),
    ]
    assert [tool.state for tool in gone] == ["missing", "missing", "missing", "ok"]
    assert packages_for(gone) == ["one", "two", "three"]


def test_every_need_can_be_looked_for_and_says_why() -> None:
    for need in NEEDS:
        assert need.why
        assert need.packages
        assert sum(map(bool, (need.commands, need.files, need.modules))) == 1
        assert bool(need.version) == bool(need.minimum)


@pytest.mark.parametrize(("arch", "other"), [ARCHES, ARCHES[::-1]])
def test_a_run_of_one_architecture_asks_for_nothing_of_the_other(arch: str, other: str) -> None:
    qemu = {"x86_64": "qemu-system-x86", "arm64": "qemu-system-arm"}
    for purpose in PURPOSES:
        packages = {name for need in needed(purpose, [arch]) for name in need.packages}
        assert qemu[arch] in packages
        assert qemu[other] not in packages
        assert not packages & {name for need in NEEDS if need.arch == other for name in need.packages}


def test_each_purpose_needs_what_the_one_before_does_and_more() -> None:
    loop, scenarios, tests = map(set, map(needed, PURPOSES))
    assert loop < scenarios < tests == {*NEEDS}
    assert not {"chromium", "tshark", "softhsm2"} & {name for need in loop for name in need.packages}


def test_the_python_that_asks_is_the_one_that_is_tried() -> None:
    (need,) = (need for need in NEEDS if need.modules)
    assert look(need).where in (sys.executable, "")


def test_what_the_project_starts_is_what_is_installed() -> None:
    found = {directory: _started(PROJECT / directory) for directory in ("boot", "lab", "scenarios", "tests")}
    assert "ip" in found["scenarios"]
    assert {"mke2fs", "nginx"} <= found["tests"]
    for purpose, directories in (("scenarios", ("boot", "lab", "scenarios")), ("tests", ("tests",))):
        known = {
            name
            for need in needed(purpose)
            for name in (*need.commands, *({need.name} if need.files else ()))
        }
        for directory in directories:
            assert found[directory] - known - BASE - OPTIONAL == set()


def _started(directory: Path) -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in directory.rglob("*.py")]
    return {one or other for text in texts for one, other in _STARTED.findall(text)}
