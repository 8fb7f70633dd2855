"""A process that has loaded the engine and nothing else, and forks workers: started by `phase.jobs.pool`.

    fd 0  /dev/null
    fd 1, 2  what goes wrong in it
    fd 3  requests (SOCK_SEQPACKET): each is a grant's words (`phase.jobs.grant`), and carries the seven
          descriptors of a worker to be

Loading the engine takes most of a small job's time; a fork takes a millisecond. It has one thread, or a fork
would be a copy with locks that are never released: the engine starts threads when a job runs, and none runs
here. A worker forked from it closes its cage before it reads its job, as any other does.

The last descriptor of a request is the worker's leash (a socket), which stays here: the zygote writes the
worker's number on it, or a negative errno where it could not fork, and at the worker's end the wait
status, 4 bytes each. A byte from the other end, or its end, ends the worker. Only the zygote signals and
reaps, so no signal goes to a number that another process has got meanwhile.
"""

import _socket
import errno
import gc
import os
import select
import sys

from phase.jobs import grant, protect, wire, worker
from phase.jobs.apart import Namespaces
from phase.jobs.engine import Engine
from phase.jobs.host import READER

REQUESTS = 3
#: Descriptors of a request: the six of a worker, and its leash.
DESCRIPTORS = 7
_SIGKILL = 9
_SIZE = 4
_REQUEST_BYTES = 1 << 16


class _Child:
    """A worker: its number, its leash, a descriptor that tells when it has ended, and its namespace."""

    def __init__(self, pid: int, leash: int, handle: int, namespace: int) -> None:
        self.pid, self.leash, self.handle, self.namespace = pid, leash, handle, namespace


class Zygote:
    """Forks workers when asked, ends them when asked, and tells how they ended.

    Args:
        engine: loaded; nothing has run in it.
        requests: the socket.
    """

    def __init__(self, engine: Engine, requests: _socket.socket) -> None:
        self._engine = engine
        self._requests = requests
        self._children: dict[int, _Child] = {}
        self._namespaces = Namespaces()
        self._poll = select.poll()
        self._poll.register(requests.fileno(), select.POLLIN)

    def run(self) -> None:
        """Serve until the other end of the socket is closed; its end is the end of all workers."""
        own, asked = self._requests.fileno(), True
        while asked:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            # Those that end first: a new worker may get the numbers of their descriptors.
            for descriptor in ready - {own}:
                self._attend(descriptor)
            asked = own not in ready or self._answer()

    def _attend(self, descriptor: int) -> None:
        child = self._children.get(descriptor)
        if child is None:
            return  # its worker was reaped just now
        if descriptor == child.handle:
            self._reap(child)
        else:
            os.kill(child.pid, _SIGKILL)
            self._poll.unregister(child.leash)
            del self._children[child.leash]

    def _answer(self) -> bool:
        """Take a request; whether there was one."""
        data, ancillary, _, _ = self._requests.recvmsg(_REQUEST_BYTES, _socket.CMSG_SPACE(DESCRIPTORS * 4))
        given = [
            int.from_bytes(found[at : at + 4], sys.byteorder)
            for _, _, found in ancillary
            for at in range(0, len(found), 4)
        ]
        if not data:
            return False
        try:
            if len(given) == DESCRIPTORS:
                self._fork(given, data)
        finally:
            for each in given[: DESCRIPTORS - 1]:
                os.close(each)
        return True

    def _fork(self, given: list[int], data: bytes) -> None:
        leash, namespace = given[-1], self._namespaces.enter()
        pid = -1
        try:
            # Keeps a place for what the worker is watched by: without that, it may have run a job
            # before that is seen.
            place = os.dup(leash)
            try:
                pid = os.fork()
                if pid == 0:
                    self._work(given, data, apart=namespace >= 0)
            finally:
                os.close(place)
            handle = os.pidfd_open(pid)
        except OSError as error:
            if pid > 0:  # it cannot be watched
                os.kill(pid, _SIGKILL)
                os.waitpid(pid, 0)
            self._namespaces.give_back(namespace)
            _tell(leash, -(error.errno or errno.EAGAIN))
            os.close(leash)
            return
        child = _Child(pid, leash, handle, namespace)
        self._children[leash] = self._children[child.handle] = child
        _tell(leash, pid)
        self._poll.register(leash, select.POLLIN)
        self._poll.register(child.handle, select.POLLIN)

    def _work(self, given: list[int], data: bytes, *, apart: bool) -> None:
        """Be a worker. Never returns: above is the zygote's loop."""
        try:
            for number, each in enumerate(given[:-1]):
                os.dup2(each, number)
            os.closerange(worker.REQUEST + 1, 1 << 20)
            words = [word.decode("utf-8", "surrogateescape") for word in wire.unpack(data)]
            worker.serve(self._engine, os.getppid(), grant.read(words), apart=apart)
        except BaseException:
            import traceback

            os.write(worker.DIAGNOSTICS, traceback.format_exc().encode()[-4096:])
        finally:
            os._exit(1)

    def _reap(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        _tell(child.leash, status)
        self._namespaces.give_back(child.namespace)
        for each in (child.leash, child.handle):
            if self._children.pop(each, None) is not None:
                self._poll.unregister(each)
            os.close(each)


def _tell(leash: int, number: int) -> None:
    try:
        os.write(leash, number.to_bytes(_SIZE, "little", signed=True))
    except OSError:  # its other end is closed
        return


def main() -> None:
    """Serve the requests that arrive. Never returns."""
    os.closerange(REQUESTS + 1, 1 << 20)
    requests = _socket.socket(fileno=REQUESTS)
    # The numbers of a worker's own descriptors stay taken, so that none of a request's is among them.
    for _ in range(REQUESTS + 1, worker.REQUEST + 1):
        os.dup(0)
    engine = Engine(sys.argv[1])
    engine.reader = engine.compile(READER)
    engine.prepare()
    protect.prepare()
    gc.disable()  # a worker runs one job, and a collection would copy every page that it looks at
    gc.freeze()
    if len(os.listdir("/proc/self/task")) != 1:
        os.write(2, b"the engine has started threads; no worker can be forked\n")
        os._exit(1)
    requests.send(b"up")
    Zygote(engine, requests).run()
    os._exit(0)
