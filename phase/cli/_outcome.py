"""Exit codes of `phase run`.

0 to 125 belong to the module; WASI preview 1 gives it no others. Phase uses only codes above them, so that
a script can tell both apart. They follow what shells and tools do already:

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
#: The module ran, and its output or its receipt could not be written.
LOST = 128 + signal.SIGPIPE
LIMITS = {
    "wall": 128 + signal.SIGALRM,
    "fuel": 128 + signal.SIGXCPU,
    "output": 128 + signal.SIGXFSZ,
    "memory": 128 + signal.SIGKILL,
}


def exit_code(status: Status) -> int:
    """The code that `phase run` ends with when a job has ended like this."""
    match status:
        case Exited(code=code):
            return code
        case LimitHit(limit=limit):
            return LIMITS[limit]
        case Rejected():
            return REJECTED
        case Killed(signal=number):
            return 128 + number if number else FAILED
        case _:
            return TRAPPED
