"""Lets one virtual CPU count, in a process of its own that may be killed: `python -m lab.doctor.kvm`.

Prints one JSON object per rung as soon as it is known, so that a hang still tells where it hung. That KVM
opens proves nothing: on some nested hosts the device is there, a VM and its CPU can be made and run, and yet
they run a thousand times too slowly for any kernel to boot. The numbers are those of `linux/kvm.h`.
"""

import ctypes
import fcntl
import json
import mmap
import os
import platform
import sys
import time

DEVICE = "/dev/kvm"
#: Iterations of the loop, and the longest it may take: a sound host needs well under a millisecond.
LOOPS, LIMIT_SECONDS = 100_000, 0.010

_GET_API_VERSION, _CREATE_VM, _GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
_CREATE_VCPU, _RUN, _SET_MEMORY = 0xAE41, 0xAE80, 0x4020AE46
_GET_SREGS, _SET_SREGS, _SET_REGS = 0x8138AE83, 0x4138AE84, 0x4090AE82
_API_VERSION, _EXIT_HLT = 12, 5
_SREGS_SIZE, _REGS_SIZE, _EXIT_REASON = 312, 144, 8
_PAGE = 0x1000

#: 16-bit: mov ecx, LOOPS; 1: dec ecx; jnz 1b; hlt
_CODE = b"\x66\xb9" + LOOPS.to_bytes(4, "little") + b"\x66\x49\x75\xfc\xf4"


def main() -> int:
    """Climbs until a rung breaks."""
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        version = fcntl.ioctl(device, _GET_API_VERSION, 0)
    except OSError as error:
        return _rung("opens", ok=False, detail=error.strerror or str(error))
    if version != _API_VERSION:
        return _rung(
            "opens", ok=False, detail=f"speaks version {version} of the interface, not {_API_VERSION}"
        )
    _rung("opens", ok=True, detail=f"interface version {version}")
    try:
        machine = fcntl.ioctl(device, _CREATE_VM, 0)
    except OSError as error:
        return _rung("creates a VM", ok=False, detail=error.strerror or str(error))
    _rung("creates a VM", ok=True, detail="")
    if platform.machine() != "x86_64":
        # The decisive rung, a booted kernel, follows on every architecture.
        return 0
    try:
        return _count(device, machine)
    except OSError as error:
        return _rung("runs a CPU", ok=False, detail=error.strerror or str(error))


def _count(device: int, machine: int) -> int:
    memory = mmap.mmap(-1, _PAGE)
    memory[: len(_CODE)] = _CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    # slot, flags, guest address, size, our address
    region = b"".join(
        number.to_bytes(size, "little")
        for number, size in ((0, 4), (0, 4), (_PAGE, 8), (_PAGE, 8), (address, 8))
    )
    fcntl.ioctl(machine, _SET_MEMORY, region)
    cpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    state = mmap.mmap(cpu, fcntl.ioctl(device, _GET_VCPU_MMAP_SIZE, 0))

    special = bytearray(_SREGS_SIZE)
    fcntl.ioctl(cpu, _GET_SREGS, special)
    # The code segment comes first: base (8 bytes), limit (4), selector (2).
    special[0:8] = bytes(8)
    special[12:14] = bytes(2)
    fcntl.ioctl(cpu, _SET_SREGS, bytes(special))
    registers = bytearray(_REGS_SIZE)
    # Sixteen general registers, then the instruction pointer, then the flags, whose bit 1 is always set.
    registers[128:136] = _PAGE.to_bytes(8, "little")
    registers[136:144] = (2).to_bytes(8, "little")
    fcntl.ioctl(cpu, _SET_REGS, bytes(registers))

    start = time.perf_counter()
    fcntl.ioctl(cpu, _RUN, 0)
    seconds = time.perf_counter() - start
    reason = int.from_bytes(state[_EXIT_REASON : _EXIT_REASON + 4], "little")
    if reason != _EXIT_HLT:
        return _rung("runs a CPU", ok=False, detail=f"the CPU stopped for reason {reason}, not at its halt")
    detail = f"{LOOPS} loops in {seconds * 1000:.2f} ms, at most {LIMIT_SECONDS * 1000:.0f} ms will do"
    return _rung("runs a CPU", ok=seconds <= LIMIT_SECONDS, detail=detail)


def _rung(name: str, *, ok: bool, detail: str) -> int:
    print(json.dumps({"name": name, "ok": ok, "detail": detail}), flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
