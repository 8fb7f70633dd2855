"""A machine's TPM: a program, swtpm, that QEMU talks to. It ends with its QEMU."""

import time
from pathlib import Path

from lab.errors import InfrastructureError
from lab.qemu.command import TPM
from lab.qemu.process import Process

#: Seconds for it to open its socket.
_START = 10


def start(directory: Path) -> Process:
    """Start a TPM 2.0 for a machine, and wait until it listens.

    Args:
        directory: of the machine; what the TPM keeps without power stays in it.

    Returns:
        Its process, which ends by itself when QEMU has gone.

    Raises:
        InfrastructureError: swtpm is not installed, or does not start.
    """
    socket, state, log = directory / TPM, directory / "tpm-state", directory / "swtpm.log"
    socket.unlink(missing_ok=True)
    state.mkdir(exist_ok=True)
    words = ["swtpm", "socket", "--tpm2", "--terminate"]
    words += ["--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={socket}"]
    process = Process(words, log)
    deadline = time.monotonic() + _START
    while not socket.exists():
        if not process.running or time.monotonic() > deadline:
            process.stop()
            said = log.read_text(errors="replace")[-2000:].strip()
            raise InfrastructureError("swtpm did not start", evidence=f"swtpm said: {said or 'nothing'}")
        time.sleep(0.02)
    return process
