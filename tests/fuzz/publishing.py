"""What a publisher reads that others can write to: a stick, the repository's own directory."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tuf.api.metadata import Metadata

from phase.errors import PhaseError
from phase.release import journal, pinned, staging
from phase.release.keys import ReleaseKeys


def carried(role: str, files: dict[str, bytes]) -> Callable[[bytes], None]:
    """A stick with a file that is to be signed, and all that is shown of it."""

    def run(data: bytes) -> None:
        with TemporaryDirectory() as name:
            stick = Path(name)
            (stick / staging.BEFORE).mkdir()
            for file in ("1.root.json", "1.targets.json", "1.stable-x86_64.json"):
                target = file if "root" in file else file.removeprefix("1.")
                (stick / staging.BEFORE / target).write_bytes(files[file])
            (stick / f"{role}.json").write_bytes(data)
            try:
                found = staging.load_carried(stick)
                for each, metadata in found.staged.items():
                    for line in staging.summary(each, metadata, found.before.get(each)):
                        assert line.isprintable(), line
                staging.sign(found, KEYS)
                staging.save(stick, found.staged)
            except PhaseError as error:
                short(error)
                return
            # What was signed is what was shown.
            for each, metadata in staging.load(stick).items():
                assert metadata.signed_bytes == found.staged[each].signed_bytes

    return run


def short(error: PhaseError) -> None:
    """An error about hostile bytes is no longer than a person reads."""
    assert len(str(error)) < 2000, type(error)


def left_over(data: bytes) -> None:
    """What a publication that was killed has left; others may have written it."""
    with TemporaryDirectory() as name:
        repository = Path(name, "repository")
        place = repository / journal.PLACE
        place.mkdir(parents=True)
        (place / "order.json").write_bytes(data)
        for number in range(4):
            (place / str(number)).write_bytes(b"{}")
        try:
            journal.finish(repository)
        except PhaseError as error:
            short(error)
        there = {path.name for path in Path(name).iterdir()}
        assert there == {"repository"}
        shutil.rmtree(place, ignore_errors=True)
        assert {path.name for path in repository.iterdir()} <= {"metadata", "staged"}


def remembered(data: bytes) -> None:
    """What a directory of keys remembers."""
    with TemporaryDirectory() as name:
        Path(name, pinned.NAME).write_bytes(data)
        try:
            pinned.Pin([Path(name)], "0" * 64, told=True)
        except PhaseError as error:
            short(error)


KEYS = ReleaseKeys.from_seed("fuzz")
#: What is left over, and what is remembered.
ORDER = json.dumps(
    [{"path": "metadata/2.targets.json"}, {"path": "staged/root.json", "remove": True}]
).encode()
MEMORY = json.dumps({"0" * 64: {"root": 1, "timestamp": 2, "snapshot": 2, "meta": {"a.json": 1}}}).encode()


def next_version(data: bytes) -> bytes:
    """Metadata as it is to replace what is published."""
    metadata = Metadata.from_bytes(data)
    metadata.signed.version += 1
    return metadata.to_bytes()
