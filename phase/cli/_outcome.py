"""Exit codes of `phase run`.

0 to 125 and 193 to 255 belong to the module; any other code that a module ends with becomes 255. The codes
between are Phase's own, so that a script can tell both apart. They follow what shells and tools do already:

- 126 and 127 for a command that cannot be run or is not found, as in POSIX shells, env and docker run.
- 128 and 129 for a failure and for wrong usage, as in git.
- 128 plus a signal's number, as shells report a program that a signal has ended. Each limit has the number
  of the signal that a system with such a limit sends.
"""

import signal

from phase.jobs.status import Exited, Killed, LimitHit, Rejected, Status

#: The module is not one that can run here.
REJECTED = 126
#: There is no such file, or it cannot be read.
NOT_FOUND = 127
#: Phase refused the job, or failed; the module did not run.
FAILED = 128
#: The command was typed wrongly.
USAGE = 129
INTERRUPTED = 128 + signal.SIGINT
#: The engine stopped the module.
TRAPPED = 128 + signal.SIGABRT
#: The module ran, and its input could not be read, or its output or its receipt could not be written.
LOST = 128 + signal.SIGPIPE
LIMITS = {
    "wall": 128 + signal.SIGALRM,
    "fuel": 128 + signal.SIGXCPU,
    "output": 128 + signal.SIGXFSZ,
    "memory": 128 + signal.SIGKILL,
    "stdin": 128 + signal.SIGTTIN,
}
#: A module's code in this range, or one that does not fit, could be taken for one of Phase's.
_OWN = range(REJECTED, 128 + 65)
_OTHER = 255


def exit_code(status: Status) -> int:
    """The code that `phase run` ends with when a job has ended like this."""
    match status:
        case Exited(code=code):
            return code if code < 256 and code not in _OWN else _OTHER
        case LimitHit(limit=limit):
            return LIMITS[limit]
        case Rejected():
            return REJECTED
        case Killed(signal=number):
            return 128 + number if number else FAILED
        case _:
            return TRAPPED
