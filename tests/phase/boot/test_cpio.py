"""The archive the kernel unpacks, judged by the archiver everybody has."""

import io
import shutil
import subprocess
from pathlib import Path

from phase.boot import cpio


def archive(*nodes: cpio.Node) -> bytes:
    out = io.BytesIO()
    cpio.write(out, nodes)
    return out.getvalue()


def test_cpio_unpacks_what_was_written(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 70_001)
    data = archive(
        cpio.regular("etc/phase/root.json", b"{}"),
        cpio.regular("bin/tool", big, 0o755),
        cpio.symlink("bin/sh", "tool"),
        cpio.directory("empty"),
    )
    tool = shutil.which("cpio")
    assert tool, "cpio is not installed; lab/doctor/needs.py declares it"
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([tool, "-id", "--quiet"], input=data, cwd=out, check=True)
    assert (out / "etc/phase/root.json").read_bytes() == b"{}"
    assert (out / "bin/tool").read_bytes() == big.read_bytes()
    assert (out / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (out / "bin/sh").readlink() == Path("tool")
    assert (out / "empty").is_dir()


def test_an_archive_is_the_same_whatever_the_host_says(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "d").mkdir(parents=True)
        for file in ("b", "a") if name == "one" else ("a", "b"):
            (tmp_path / name / "d" / file).write_text(file)
    assert archive(*cpio.tree(tmp_path / "one")) == archive(*cpio.tree(tmp_path / "two"))


def test_an_archive_ends_on_a_block() -> None:
    assert len(archive(cpio.regular("a", b"b"))) % 512 == 0


def test_each_parent_comes_once_and_before_what_is_in_it() -> None:
    data = archive(
        cpio.regular("a/b/one", b""), cpio.directory("a/b"), cpio.directory("c"), cpio.regular("c/two", b"")
    )
    names: list[str] = []
    at = 0
    while names[-1:] != ["TRAILER!!!"]:
        size = int(data[at + 94 : at + 102], 16)
        names.append(data[at + 110 : at + 110 + size - 1].decode())
        at += (110 + size + 3) // 4 * 4
    assert names == ["a", "a/b", "a/b/one", "c", "c/two", "TRAILER!!!"]


def test_a_tree_is_packed_with_its_empty_directories_links_and_programs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bin/tool").write_text("x")
    (tmp_path / "bin/tool").chmod(0o700)
    (tmp_path / "bin/sh").symlink_to("tool")
    (tmp_path / "bin/data").write_text("y")
    assert {(node.path, node.mode & 0o777) for node in cpio.tree(tmp_path)} == {
        ("bin", 0o755),
        ("bin/data", 0o644),
        ("bin/sh", 0o777),
        ("bin/tool", 0o755),
        ("empty", 0o755),
    }
