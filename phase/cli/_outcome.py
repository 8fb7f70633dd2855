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
#: Of jobs at nodes. The node refuses the job.
REFUSED = 160
#: No node could be reached, or the network failed before a node had the job.
UNREACHABLE = 161
#: The node, or the way to it, ended while it had the job: whether it ran is not known.
JOB_LOST = 162
#: The node took the job, and it did not run: cancelled before, handed back, or the node could not.
NOT_RUN = 163
#: The receipt does not prove what was asked.
UNTRUE = 164
#: Nodes gave different results for the same job.
DISAGREED = 165
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

#: Code, what it means, and whose habit it is; for people.
CODES = (
    ("0 to 125, 193 to 255", "the module's own; every other number becomes 255", "shells"),
    (REJECTED, "rejected: it did not run, as it is not a module that can run here", "`env`, `docker run`"),
    (NOT_FOUND, "there is no such file, or it cannot be read", "the same"),
    (FAILED, "refused (its limits, its job id, a target of the receipt), or Phase failed", "git"),
    (USAGE, "typed wrongly", "git"),
    (INTERRUPTED, "interrupted by Ctrl-C", "128 + SIGINT"),
    (TRAPPED, "trapped", "128 + SIGABRT, as wasmtime"),
    (LIMITS["memory"], "memory limit", "128 + SIGKILL, as containers"),
    (LOST, "it ran; its input, its output or its receipt was lost", "128 + SIGPIPE"),
    (LIMITS["wall"], "wall limit", "128 + SIGALRM"),
    (LIMITS["stdin"], "limit of the input", "128 + SIGTTIN"),
    (LIMITS["fuel"], "fuel limit", "128 + SIGXCPU"),
    (LIMITS["output"], "output limit", "128 + SIGXFSZ"),
    (REFUSED, "`phase job`: the node refuses, and says why; or it does not keep the result", ""),
    (UNREACHABLE, "`phase job`: no node was reached, or the network failed before it had the job", ""),
    (JOB_LOST, "`phase job`: the node or the way to it ended; whether the job ran is not known", ""),
    (
        NOT_RUN,
        "`phase job`: cancelled before it ran, handed back as the node stops, or it could not run",
        "",
    ),
    (UNTRUE, "`phase job`: the receipt does not prove what was asked; believe nothing of the result", ""),
    (DISAGREED, "`phase job`: nodes gave different results", ""),
    ("128 + N", "the worker was ended by signal N from outside", "shells"),
)


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
