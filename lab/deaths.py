"""What kills a machine, as its console tells it; each kind by name.

From the console alone: a board has nothing else to tell it with.
"""

import re

#: Kernel messages that mean death. Checked on every line.
KINDS = {
    # Error 8 is ENOEXEC. The kernel's own message does not say what that means; the panic follows.
    "init is a program for another architecture, or not a program": re.compile(
        r"Failed to execute /init \(error -8\)"
    ),
    "kernel panic": re.compile(r"Kernel panic - not syncing: .*"),
    "out of memory": re.compile(
        r"Out of memory: Killed process .*|Out of memory and no killable processes.*"
    ),
    "kernel oops": re.compile(
        r"(Internal error: |BUG: unable to handle|BUG: kernel NULL pointer|kernel BUG at "
        r"|Unable to handle kernel |Oops: [0-9a-f]+ \[#\d+\]|invalid opcode: [0-9a-f]+ \[#\d+\]"
        r"|general protection fault, |[a-z][a-z ]*: [0-9a-f]{4} \[#\d+\]).*"
    ),
    "hung task": re.compile(r"INFO: task .* blocked for more than \d+ seconds.*"),
    "RCU stall": re.compile(r"rcu: INFO: rcu_\w+ (self-)?detected (expedited )?stalls?.*"),
    "lockup": re.compile(r"watchdog: BUG: soft lockup .*|Watchdog detected hard LOCKUP .*"),
}
#: A machine whose kernel started this often since power-on is in a reboot loop.
BIRTHS = 4
#: Every kernel's first line, unless it was told to be quiet; not one that a shell repeats later.
_BANNER = re.compile(r"^(\[ +0\.0+\] )?Linux version \d")


class Watch:
    """Looks at one console from the machine's birth on."""

    def __init__(self) -> None:
        self._banners = 0
        self._first = ""
        self._firsts = 0
        self._clock = 0.0

    def line(self, text: str) -> str:
        """Look at a complete line; returns what killed the machine, or nothing."""
        for name, pattern in KINDS.items():
            found = pattern.search(text)
            if found:
                return f"{name}: {found.group()}"
        if _BANNER.search(text):
            self._banners += 1
            if self._banners >= BIRTHS:
                return f"reboot loop: kernel number {self._banners} since it was switched on"
        return ""

    def mark(self, step: str, t: float) -> str:
        """Look at a boot mark; returns what killed the machine, or nothing.

        Args:
            step: of the mark.
            t: seconds since that kernel started, as it says itself.
        """
        # A step that is tried again is not a birth: the same kernel's clock has gone on since.
        born = not self._first or (step == self._first and t <= self._clock)
        self._first = self._first or step
        self._clock = t
        if born:
            self._firsts += 1
            if self._firsts >= BIRTHS:
                return f"reboot loop: {step} for the {self._firsts}th time since it was switched on"
        return ""
