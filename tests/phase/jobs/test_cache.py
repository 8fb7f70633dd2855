"""Compiled modules are kept, and nothing that is not whole and ours is ever loaded."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from phase.jobs import cache as caches
from phase.jobs import location, settings, wire
from phase.jobs.cache import Cache, CacheError, Directory
from phase.jobs.flow import Messages
from phase.jobs.limits import MIB, Limits
from phase.jobs.pool import Pool
from phase.jobs.runner import Execution, Job, Worker
from phase.jobs.status import Exited, LimitHit, Rejected, Trapped
from tests.phase.jobs.conftest import ENDINGS

Wasm = Callable[[str], bytes]
Wat = Callable[[str], bytes]
#: With these a module does not run unless it is compiled already.
_NO_COMPILER = Limits(compile_bytes=0)
_NAME, _DATA = "a" * 64, b"some machine code" * 100


def _run(cache: Cache | None, job: Job) -> Execution:
    with Worker() as worker:
        return worker.run(job, cache=cache)


def _entries(path: Path) -> list[Path]:
    return sorted(path.glob("*.compiled"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "compiled"


@pytest.mark.parametrize(
    ("name", "limits"),
    [*ENDINGS, ("sleep", Limits(wall_seconds=0.2))],
)
def test_a_job_ends_the_same_compiled_and_kept(path: Path, wasm: Wasm, name: str, limits: Limits) -> None:
    job = Job(wasm(name), args=["a"], stdin=b"Hello", env={"A": "1"}, limits=limits)
    cache = Cache(Directory(str(path)))
    plain, first, kept = _run(None, job), _run(cache, job), _run(cache, job)
    assert len(_entries(path)) == 1
    for what in ("status", "stdout", "stderr", "fuel_used", "memory_bytes", "module_sha256"):
        assert getattr(plain, what) == getattr(first, what) == getattr(kept, what), what


def test_a_module_is_compiled_once(path: Path, wasm: Wasm) -> None:
    job = Job(wasm("hello"), stdin=b"Hello", limits=_NO_COMPILER)
    assert isinstance(_run(Cache(Directory(str(path))), job).status, Rejected)
    assert _entries(path) == []
    _run(Cache(Directory(str(path))), Job(wasm("hello")))
    done = _run(Cache(Directory(str(path))), job)
    assert (done.status, done.stdout) == (Exited(0), b"olleH")


def test_memory_alone_keeps_modules_for_a_pool(wasm: Wasm) -> None:
    with Pool(1, cache=Cache(memory_bytes=MIB)) as pool:
        pool.run(Job(wasm("hello")))
        assert pool.run(Job(wasm("hello"), stdin=b"ab", limits=_NO_COMPILER)).stdout == b"ba"


def test_tables_and_a_start_that_is_not_the_first_export_are_kept(path: Path, wat: Wat) -> None:
    module = wat(
        """(table 3 9 funcref) (table (export "t") 2 2 externref)
        (func (export "_start") (drop (table.grow 0 (ref.null func) (i32.const 4))) unreachable)"""
    )
    cache = Cache(Directory(str(path)))
    first, kept = _run(cache, Job(module)), _run(cache, Job(module, limits=_NO_COMPILER))
    assert first.status == kept.status == Trapped("unreachable")
    assert first.memory_bytes == kept.memory_bytes == 8 * (7 + 2)


def test_a_module_that_is_refused_is_not_kept(path: Path, wat: Wat) -> None:
    cache = Cache(Directory(str(path)))
    for module in (
        b"not a module",
        wat("(func)"),
        wat('(func (export "_start") (drop (i32.const 1)))')[:-1],
    ):
        assert isinstance(_run(cache, Job(module)).status, Rejected)
    assert _entries(path) == []


def test_a_kept_module_that_imports_too_much_is_still_refused(path: Path, wasm: Wasm) -> None:
    cache = Cache(Directory(str(path)))
    for _ in range(2):
        status = _run(cache, Job(wasm("beyond"))).status
        assert isinstance(status, Rejected)
        assert "host::secret" in status.reason


def test_a_kept_module_starts_within_its_memory(path: Path, wasm: Wasm) -> None:
    cache = Cache(Directory(str(path)))
    _run(cache, Job(wasm("huge"), limits=Limits(memory_bytes=4096 * MIB)))
    kept = _run(cache, Job(wasm("huge"), limits=Limits(memory_bytes=MIB)))
    assert kept.status == LimitHit("memory")


@pytest.mark.parametrize("data", [b"", b"junk", wire.pack(b"0 1 0"), wire.pack(b"0 1 0", b"junk")])
def test_what_the_engine_cannot_load_is_compiled_anew_and_replaced(
    path: Path, wasm: Wasm, data: bytes
) -> None:
    cache = Cache(Directory(str(path)))
    _run(cache, Job(wasm("hello")))
    [entry] = _entries(path)
    good = entry.read_bytes()
    cache.put(entry.stem, data)
    assert _run(cache, Job(wasm("hello"), stdin=b"ab")).stdout == b"ba"
    assert len(entry.read_bytes()) == len(good)


def _kept(path: Path) -> tuple[Directory, Path]:
    directory = Directory(str(path))
    directory.put(_NAME, _DATA)
    assert directory.get(_NAME, len(_DATA)) == _DATA
    [entry] = _entries(path)
    return directory, entry


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100, 1000])
def test_half_of_an_entry_is_none_and_goes_away(path: Path, length: int) -> None:
    directory, entry = _kept(path)
    os.truncate(entry, length)
    assert directory.get(_NAME, 10**6) is None
    assert not entry.exists()


@pytest.mark.parametrize("place", [0, 31, 32, 500, -1])
def test_an_entry_that_was_changed_is_none_and_goes_away(path: Path, place: int) -> None:
    directory, entry = _kept(path)
    changed = bytearray(entry.read_bytes())
    changed[place] ^= 1
    entry.write_bytes(changed)
    assert directory.get(_NAME, 10**6) is None
    assert not entry.exists()


def test_an_entry_of_another_name_is_none(path: Path) -> None:
    directory, entry = _kept(path)
    other = "b" * 64
    entry.rename(path / f"{other}.compiled")
    assert directory.get(other, 10**6) is None


def test_an_entry_of_another_key_is_none(path: Path, tmp_path: Path) -> None:
    _, entry = _kept(tmp_path / "other")
    directory = Directory(str(path))
    (path / entry.name).write_bytes(entry.read_bytes())
    (path / entry.name).chmod(0o600)
    assert directory.get(_NAME, 10**6) is None


def test_an_entry_that_is_longer_than_it_may_be_is_none(path: Path) -> None:
    directory, _ = _kept(path)
    assert directory.get(_NAME, len(_DATA) - 1) is None


def test_an_entry_that_others_can_write_to_is_none(path: Path) -> None:
    directory, entry = _kept(path)
    entry.chmod(0o620)
    assert directory.get(_NAME, 10**6) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_entry_and_a_directory_of_another_user_are_not_used(path: Path) -> None:
    directory, entry = _kept(path)
    os.chown(entry, 12345, 12345)
    assert directory.get(_NAME, 10**6) is None
    os.chown(path, 12345, 12345)
    with pytest.raises(CacheError, match="must belong to this user"):
        Directory(str(path))


def test_links_are_not_followed(path: Path, tmp_path: Path) -> None:
    directory, entry = _kept(path)
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    assert directory.get(_NAME, 10**6) is None
    entry.unlink()
    entry.hardlink_to(tmp_path / "elsewhere")
    assert directory.get(_NAME, 10**6) is None
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(NotADirectoryError):
        Directory(str(tmp_path / "link"))


@pytest.mark.parametrize("mode", [0o770, 0o755, 0o701, 0o777])
def test_a_directory_that_others_can_use_is_refused(path: Path, mode: int) -> None:
    Directory(str(path)).close()
    assert path.stat().st_mode & 0o777 == 0o700
    path.chmod(mode)
    with pytest.raises(CacheError, match="mode 700"):
        Directory(str(path))


def test_a_key_that_others_know_is_refused_and_half_of_one_is_replaced(path: Path) -> None:
    Directory(str(path)).close()
    (path / "key").chmod(0o644)
    with pytest.raises(CacheError, match="the key of the compiled modules: key is not"):
        Directory(str(path))
    (path / "key").chmod(0o600)
    os.truncate(path / "key", 5)
    with pytest.raises(CacheError, match="not whole"):
        Directory(str(path))
    Directory(str(path)).put(_NAME, _DATA)
    assert Directory(str(path)).get(_NAME, 10**6) == _DATA


def test_many_users_at_once_get_one_key(path: Path) -> None:
    made: list[Directory] = []
    threads = [threading.Thread(target=lambda: made.append(Directory(str(path)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made[0].put(_NAME, _DATA)
    assert [each.get(_NAME, 10**6) for each in made] == [_DATA] * 8
    assert sorted(os.listdir(path)) == [f"{_NAME}.compiled", "key"]


def test_what_was_not_used_for_the_longest_time_goes(path: Path) -> None:
    directory = Directory(str(path), most=2500)
    for number in range(3):
        directory.put(f"{number}", b"x" * 1000)
        os.utime(path / f"{number}.compiled", (0, 1000 + number))
    assert directory.get("1", 1000)  # its use is noted
    directory.put("3", b"x" * 1000)
    assert [entry.stem for entry in _entries(path)] == ["1", "3"]


def test_there_are_not_too_many_entries(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "MAX_ENTRIES", 3)
    directory = Directory(str(path))
    for number in range(5):
        directory.put(f"{number}", b"x")
        os.utime(path / f"{number}.compiled", (0, 1000 + number))
    assert len(_entries(path)) == 3


def test_what_a_writer_left_that_died_goes_after_an_hour(path: Path) -> None:
    directory = Directory(str(path))
    for name, age in (("old.new", 4000), ("young.new", 100)):
        (path / name).write_bytes(b"half")
        past = (path / name).stat().st_mtime - age
        os.utime(path / name, (past, past))
    directory.put(_NAME, _DATA)
    assert sorted(each.name for each in path.glob("*.new")) == ["young.new"]


def test_memory_holds_so_many_bytes_and_no_more() -> None:
    cache = Cache(memory_bytes=2500)
    for number in range(3):
        cache.put(f"{number}", b"x" * 1000)
    cache.put("big", b"x" * 2501)
    assert [cache.get(each, 10**6) is not None for each in ("0", "1", "2", "big")] == [
        False,
        True,
        True,
        False,
    ]
    cache.get("1", 10**6)
    cache.put("3", b"x" * 1000)
    assert [cache.get(each, 10**6) is not None for each in ("1", "2", "3")] == [True, False, True]


def test_the_name_tells_engine_processor_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {caches.name("0" * 64), caches.name("1" * 64)}
    monkeypatch.setattr(location, "VERSION", "51.0.0")
    names.add(caches.name("0" * 64))
    monkeypatch.setattr(settings, "narrow", lambda: True)
    names.add(caches.name("0" * 64))
    monkeypatch.setattr(location, "machine", lambda: "riscv64")
    names.add(caches.name("0" * 64))
    assert len(names) == 5


def _messages(*parts: bytes, keep: int) -> Messages:
    seen = Messages(-1, -1, keep)
    for part in parts:
        frame = wire.pack(wire.KEEP, part)
        seen._buffer += len(frame).to_bytes(4, "little") + frame
    seen._understand()
    return seen


def test_no_more_of_a_compiled_module_is_taken_than_was_asked_for() -> None:
    assert _messages(b"abc", b"de", b"", keep=5).kept == b"abcde"
    assert _messages(b"abc", b"de", keep=5).kept is None
    assert _messages(b"abc", b"de", keep=4).broken
    assert _messages(b"abc", b"", b"a", keep=9).broken
    assert _messages(b"a", keep=0).broken


def test_the_usual_directory_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert caches.usual_directory() == "/somewhere/phase/compiled"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert caches.usual_directory() == "/var/cache/phase/compiled"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ada")
    assert caches.usual_directory() == "/home/ada/.cache/phase/compiled"
