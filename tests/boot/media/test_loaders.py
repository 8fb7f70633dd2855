"""What boot loaders are told, read as they read it."""

import shlex
import subprocess

from boot.media import loaders
from boot.media.disk import Files
from boot.media.loaders import Entry

ENTRIES = [
    Entry(arch, mode, f"quiet phase.mode={mode} a=$x;b|c")
    for arch in ("x86_64", "arm64")
    for mode in ("internet", "local", "private")
]


def text(files: Files) -> dict[str, str]:
    """Files that are text."""
    return {name: content.decode() for name, content in files.items() if isinstance(content, bytes)}


def shell(line: str) -> list[str]:
    """What a shell makes of a line's words: variables are replaced, and some characters end a command."""
    script = f"linux() {{ printf '%s\\n' \"$@\"; }}; {line}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def test_systemd_boot_offers_each_mode_to_each_architecture() -> None:
    files = text(loaders.systemd_boot(ENTRIES, mode="local"))
    settings = dict(line.split(" ", 1) for line in files.pop("loader/loader.conf").splitlines())
    assert settings == {
        "default": "phase-*-local.conf",
        "timeout": "3",
        "editor": "no",
        "auto-entries": "no",
    }
    read = [dict(line.split(" ", 1) for line in content.splitlines()) for content in files.values()]
    read.sort(key=lambda entry: entry["sort-key"])
    assert [(entry["architecture"], entry["options"]) for entry in read] == [
        ({"x86_64": "x64", "arm64": "aa64"}[entry.arch], entry.options) for entry in ENTRIES
    ]
    assert read[5]["linux"] == "/phase/arm64/kernel"
    assert read[5]["initrd"] == "/phase/arm64/initramfs"
    assert "loader/entries/phase-arm64-private.conf" in files


def test_grub_reads_a_command_line_word_by_word() -> None:
    """Its language has the quotes of a shell."""
    (read,) = text(loaders.grub(ENTRIES, mode="private")).values()
    lines = [line.strip() for line in read.splitlines()]
    assert "set timeout=3" in lines
    assert "set default=private" in lines
    assert "set superusers=phase" in lines
    said = [shell(line) for line in lines if line.startswith("linux ")]
    assert said == [[f"/{e.kernel}", *e.options.split(" ")] for e in ENTRIES]
    menu = [shlex.split(line) for line in lines if line.startswith("menuentry ")]
    assert [(words[3], words[4]) for words in menu] == [(e.mode, "--unrestricted") for e in ENTRIES]
