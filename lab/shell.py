"""Commands over a console, with exit codes, that kernel messages cannot confuse.

Results come back through the guest's kernel log where it lets us: the kernel prints whole records,
so a driver's message cannot stand in the middle of a result. Each piece is base64 with a nonce the
command line itself does not contain, and the whole carries a checksum.
"""

import base64
import hashlib
import re
import secrets
import shlex
import time
from typing import NamedTuple

from lab.console import Console
from lab.errors import MachineError, MisuseError, ProductError, WaitTimeout

#: A terminal in line mode keeps at most 4095 bytes of a line and drops the rest silently.
MAX_LINE = 4000
#: Bytes of a file that one typed line carries: a command is base64, and so is the file's piece in it.
_PIECE = 1500
#: Typed once: no echo, and a shell that reads the terminal as a script: no prompt, no line editor.
_SETUP = 'stty -echo; exec sh "$(tty)"'
# The nonce is a variable on its way there: what a terminal echoes can never look like an answer.
_READY = (
    "for O in /tmp /run /dev; do O=$O/.lab-$$; ( : >$O ) 2>/dev/null && break; done; "
    "L=/dev/kmsg; [ -w $L ] && echo on 2>/dev/null >/proc/sys/kernel/printk_devkmsg || L=/dev/stdout; "
    'lab_say() {{ echo "<3>lab-$*" >$L; }}; n={nonce}; lab_say ready $n'
)
_RUN = (
    'n={nonce}; c="$(echo {command} | base64 -d)"; ( eval "$c" ) </dev/null >$O 2>&1; r=$?; '
    "s=$(sha256sum <$O); base64 -w 600 $O | while read -r l; do lab_say out $n $l; done; "
    "lab_say end $n $r ${{s%% *}}"
)


class Result(NamedTuple):
    """What a command said (standard output and error together) and its exit code."""

    code: int
    output: str


class Shell:
    """A shell on a console. Use one at a time.

    Args:
        console: where.
        timeout: seconds until the shell must have answered for the first time.
        factor: timeouts are multiplied by this, that first one too.
    """

    def __init__(self, console: Console, *, timeout: float = 60, factor: float = 1.0) -> None:
        self._console = console
        self._factor = factor
        deadline = time.monotonic() + timeout * factor
        nonce = secrets.token_hex(4)
        since = len(console.lines)
        console.send(f"\n{_SETUP}\n")
        while True:
            console.send(_READY.format(nonce=nonce) + "\n")
            left = deadline - time.monotonic()
            try:
                # Asked again now and then: what was typed before the shell was there may be lost.
                console.wait_line(rf"lab-ready {nonce}\b", timeout=min(5.0, max(left, 0.1)), since=since)
            except WaitTimeout as error:
                if left <= 5.0:
                    raise WaitTimeout(
                        f"{console.name}: no shell answered within {timeout * factor:.0f} s",
                        evidence=error.evidence,
                    ) from error
                console.send(f"\n{_SETUP}\n")
            else:
                return

    def run(self, command: str, *, timeout: float = 60) -> Result:
        """Run a command.

        Args:
            command: for the guest's `sh`; may have several lines.
            timeout: seconds until it must have ended.

        Returns:
            Its exit code and output.

        Raises:
            MisuseError: the command is too long to type.
            WaitTimeout: it did not end; the transcript is in the message.
            MachineError: the answer did not arrive whole.
        """
        nonce = secrets.token_hex(4)
        typed = _RUN.format(nonce=nonce, command=base64.b64encode(command.encode()).decode())
        if len(typed) > MAX_LINE:
            raise MisuseError(
                f"a command of {len(command.encode())} bytes cannot be typed; put() it into a file first"
            )
        since = len(self._console.lines)
        self._console.send(typed + "\n")
        end = self._console.wait_line(
            rf"lab-end {nonce} (\d+) ([0-9a-f]{{64}})", timeout=timeout * self._factor, since=since
        )
        piece = re.compile(rf"lab-out {nonce} ([A-Za-z0-9+/=]+)")
        lines = self._console.lines[since:]
        encoded = "".join(found[1] for line in lines if (found := piece.search(line.text)))
        try:
            output = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise MachineError(
                f"{self._console.name}: the output of `{command}` arrived garbled",
                evidence=self._console.tail(),
            ) from error
        if hashlib.sha256(output).hexdigest() != end[2]:
            raise MachineError(
                f"{self._console.name}: the output of `{command}` did not arrive whole",
                evidence=self._console.tail(),
            )
        return Result(int(end[1]), output.decode("utf-8", "replace"))

    def succeed(self, command: str, *, timeout: float = 60) -> str:
        """Run a command that must exit 0; returns its output without the last newline."""
        result = self.run(command, timeout=timeout)
        if result.code != 0:
            raise ProductError(
                f"{self._console.name}: `{command}` exited {result.code}", evidence=result.output[-2000:]
            )
        return result.output.removesuffix("\n")

    def fail(self, command: str, *, timeout: float = 60) -> str:
        """Run a command that must not exit 0; returns its output without the last newline."""
        result = self.run(command, timeout=timeout)
        if result.code == 0:
            raise ProductError(
                f"{self._console.name}: `{command}` succeeded and should not", evidence=result.output[-2000:]
            )
        return result.output.removesuffix("\n")

    def wait_until_succeeds(self, command: str, *, timeout: float = 60, pause: float = 0.5) -> str:
        """Run a command again and again until it exits 0; returns its output."""
        deadline = time.monotonic() + timeout * self._factor
        while True:
            left = max(deadline - time.monotonic(), 1)
            result = self.run(command, timeout=left / self._factor)
            if result.code == 0:
                return result.output.removesuffix("\n")
            if time.monotonic() + pause > deadline:
                raise ProductError(
                    f"{self._console.name}: `{command}` still exits {result.code} after "
                    f"{timeout * self._factor:.0f} s",
                    evidence=result.output[-2000:],
                )
            time.sleep(pause)

    def put(self, path: str, data: bytes) -> None:
        """Write a file on the machine, piece by piece; for kilobytes, not megabytes.

        Args:
            path: where, on the machine.
            data: its content.

        Raises:
            MachineError: what arrived is not what was sent.
        """
        target = shlex.quote(path)
        self.succeed(f": >{target}")
        for start in range(0, len(data), _PIECE):
            piece = base64.b64encode(data[start : start + _PIECE]).decode()
            self.succeed(f"echo {piece} | base64 -d >>{target}")
        arrived = self.succeed(f"sha256sum <{target}").split()[0]
        if arrived != hashlib.sha256(data).hexdigest():
            raise MachineError(f"{self._console.name}: {path} did not arrive whole")
