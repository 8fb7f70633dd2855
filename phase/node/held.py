"""Memory of jobs that wait or run: their modules, each once, their files, and what input came before."""

from collections import Counter

from phase.jobs.receipt import Content
from phase.node.errors import RefusedError
from phase.peer.messages import Reason

#: Bytes for the jobs of one client, and of all. The largest job must fit in.
CLIENT_BYTES, ALL_BYTES = 256 << 20, 512 << 20


class Held:
    """Counts the bytes before they come.

    Args:
        each: most for one client.
        total: most for all.
    """

    def __init__(self, each: int = 0, total: int = 0) -> None:
        self._each, self._total = each or CLIENT_BYTES, total or ALL_BYTES
        self._of: Counter[str] = Counter()
        #: Jobs by client and module; a module of another length is another one, and is found out later.
        self._jobs: Counter[tuple[str, Content]] = Counter()
        self._modules: dict[Content, bytes] = {}
        self._users: Counter[Content] = Counter()

    def take(self, client: str, module: Content, own: int) -> None:
        """Count a job.

        Args:
            client: whose.
            module: counted once for a client.
            own: further bytes.

        Raises:
            RefusedError: there is too little room; nothing is counted.
        """
        more = own + (0 if self._jobs[client, module] else module.length)
        held = self._of[client]
        if held + more > self._each:
            detail = f"this client's jobs here have {held} bytes in memory, and may have {self._each}"
            raise RefusedError(Reason.QUOTA, detail)
        if self._of.total() + more > self._total:
            raise RefusedError(Reason.QUEUE_FULL, f"all jobs here have {self._of.total()} bytes in memory")
        self._of[client] += more
        self._jobs[client, module] += 1
        self._users[module] += 1

    def shared(self, module: Content, data: bytes) -> bytes:
        """The bytes of a module that has been counted: the same for all jobs that have it."""
        return self._modules.setdefault(module, data)

    def give_back(self, client: str, module: Content, own: int) -> None:
        """Count a job no more."""
        self._jobs[client, module] -= 1
        self._of[client] -= own
        if not self._jobs[client, module]:
            del self._jobs[client, module]
            self._of[client] -= module.length
        self._of = +self._of
        self._users[module] -= 1
        if not self._users[module]:
            del self._users[module]
            self._modules.pop(module, None)
