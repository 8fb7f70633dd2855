"""What a directory of keys remembers of the repositories that its keys have signed for.

    pinned.json     hash of a repository's first root -> the newest versions that were signed

Others may write to the repository itself: a web server, a shared disk, a host that has the online keys only.
What is in it is believed, and built on, if it verifies from this root and is not older than this.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import msgspec

from phase import files
from phase.foreign import MalformedError, read_json
from phase.release.errors import KeysError, RepositoryError
from phase.trust import Floor, FormatError
from phase.trust import floor as floors

NAME = "pinned.json"
_MAX_BYTES = 8 << 20
#: Repositories that one directory of keys signs for.
_MAX_REPOSITORIES = 64


class Pin:
    """What one or several directories of keys remember of one repository.

    Args:
        directories: of keys.
        root: the first root's bytes, as the repository has it, or as the caller trusts it.
        told: the caller trusts this root: no directory has to know it.

    Raises:
        RepositoryError: a directory knows other repositories, and not this one.
        KeysError: a memory is damaged.
    """

    def __init__(self, directories: Iterable[Path], root: bytes, *, told: bool = False) -> None:
        self.root = root
        self.id = sha256(root).hexdigest()
        self._known = {directory: _load(directory / NAME) for directory in directories}
        for directory, known in self._known.items():
            if known and self.id not in known and not told:
                raise RepositoryError(
                    f"the keys in {directory} have signed for another repository: this one begins with "
                    f"another root, {self.id}",
                    hint="If it is a second repository of yours, name its root with --root.",
                )

    @property
    def known(self) -> bool:
        """Whether a directory has signed for this repository before."""
        return any(self.id in known for known in self._known.values())

    @property
    def floors(self) -> list[Floor]:
        """What each directory remembers."""
        return [known[self.id] for known in self._known.values() if self.id in known]

    def remember(self, floor: Floor) -> list[str]:
        """Note what is published now.

        Returns:
            What could not be noted, a line each: the directory may be on a medium that is write-protected.
        """
        failed = []
        for directory, known in self._known.items():
            known[self.id] = floor
            while len(known) > _MAX_REPOSITORIES:
                known.pop(next(iter(known)))
            text = {name: msgspec.Raw(floors.encode(each)) for name, each in known.items()}
            try:
                files.write(directory / NAME, msgspec.json.encode(text) + b"\n", mode=0o600)
            except OSError as error:
                failed.append(f"{directory / NAME} cannot be written: {error.strerror}")
        return failed


def _load(path: Path) -> dict[str, Floor]:
    try:
        with open(files.open_plain(path), "rb") as handle:
            data = handle.read(_MAX_BYTES + 1)
        found = read_json(data, dict[str, msgspec.Raw])
        return {name: floors.parse(bytes(text), str(path)) for name, text in found.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}") from error
    except (MalformedError, FormatError) as error:
        raise KeysError(
            f"{path} is damaged: {error}",
            hint="Remove it, and name the root that you trust with --root.",
        ) from error
