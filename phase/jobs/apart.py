"""Empty network namespaces for the workers of a zygote, each for one worker at a time.

To make one takes the kernel longer than a small job runs, and to clear it away as long again. So a worker
gets one that an earlier worker has left. Nothing of that worker is in it: it had no right to set up a
network, and its sockets ended with it.
"""

import os

from phase.jobs import mounts, protect

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


class Namespaces:
    """Those that no worker is in. The process that has this object goes from one to the other."""

    def __init__(self) -> None:
        self._free: list[int] = []
        #: Whether this process is in a user namespace of its own, as it must be without root.
        self._own = False

    def enter(self) -> int:
        """Go to a namespace without any other process; what is forked next begins there.

        Returns:
            Its descriptor, to be given back once nothing runs in it; -1 if the kernel gives none.
        """
        while self._free:
            found = self._free.pop()
            if protect.c_library().setns(found, _CLONE_NEWNET) == 0:
                return found
            os.close(found)
        try:
            return self._make()
        except OSError:
            return -1

    def give_back(self, namespace: int) -> None:
        """Nothing runs in it any more.

        Args:
            namespace: as `enter` returned it.
        """
        if namespace >= 0:
            self._free.append(namespace)

    def _make(self) -> int:
        user, group = os.geteuid(), os.getegid()
        alone = bool(user) and not self._own
        if protect.c_library().unshare(_CLONE_NEWNET | (_CLONE_NEWUSER if alone else 0)) != 0:
            return -1
        if alone:
            mounts.own_user(user, group)
            protect.bound()
            self._own = True
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
