"""Seeds as their publisher signed them: what a provider sends is verified before it is handed out."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic

from phase.mirror.filling import Filling
from phase.mirror.output import Output
from phase.netboot.errors import NetbootError

#: The artifact that is handed out.
_ARTIFACT = "uki"


class Proven:
    """Fetches seeds that a root of trust vouches for, and none older than one that it has fetched.

    Args:
        root: bytes of the trusted root.
        url: of the provider.
        channel: of the seeds.
        place: a directory, for what is not verified yet, and for what was seen last.
        tell: gets lines for people.
    """

    def __init__(
        self, root: bytes, url: str, channel: str, place: Path, *, tell: Callable[[str], None]
    ) -> None:
        self._root = root
        self._url = url
        self._channel = channel
        self._tell = tell
        self._place = place

    def image(self, arch: str, seconds: float) -> bytes:
        """The unified kernel image of the newest seed. Blocks.

        Args:
            arch: of the seed.
            seconds: for all of it.

        Raises:
            TrustError: the provider proves no release, or an older one than before.
            FetchError: the provider does not answer, or sends other bytes than those that were signed.
            NetbootError: the release has no such image.
        """
        deadline = monotonic() + seconds
        with Output(self._place) as place:
            filling = Filling(place, self._root, deadline=deadline, tell=self._tell)
            proven = filling.prove((self._channel, arch), [self._url])
            artifact = proven.release.manifest.artifacts.get(_ARTIFACT)
            if artifact is None:
                raise NetbootError(f"the signed release {self._channel}/{arch} has no {_ARTIFACT}")
            place.fetch(artifact, [proven.url], deadline=deadline, progress=lambda *_: None, liars=set())
        blob = self._place / "blobs" / "sha256" / artifact.sha256
        try:
            return blob.read_bytes()
        finally:
            blob.unlink()
