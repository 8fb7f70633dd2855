"""What is measured, into a TPM that is a program (swtpm)."""

import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from phase import measured
from phase.boot import tpm
from phase.boot.errors import HandoffError

SHA1, SHA256 = 0x4, 0xB


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """Open to a TPM that has just been switched on."""
    path = tmp_path / "socket"
    words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={tmp_path}", "--flags"]
    words += ["not-need-init,startup-clear", "--server", f"type=unixio,path={path}"]
    process = subprocess.Popen(words)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(path)):
                assert process.poll() is None
                time.sleep(0.02)
            yield client.fileno()
    finally:
        process.kill()
        process.wait()


def pcr(file: int, number: int, bank: int = SHA256) -> bytes:
    """What a PCR holds (TPM2_PCR_Read)."""
    chosen = (1 << number).to_bytes(3, "little")
    os.write(file, struct.pack(">HIIIHB", 0x8001, 20, 0x17E, 1, bank, 3) + chosen)
    answer = os.read(file, 4096)
    assert struct.unpack_from(">I", answer, 6) == (0,)
    (length,) = struct.unpack_from(">H", answer, 28)
    return answer[30 : 30 + length]


def test_a_register_holds_what_was_predicted(file: int) -> None:
    events = measured.events(b'{"signed": 1}', "quiet phase.rootfs=sha256:1")
    assert pcr(file, measured.PCR) == bytes(32)
    for event in events:
        tpm.add(file, measured.PCR, event)
    assert pcr(file, measured.PCR) == measured.extended(events)
    # Nobody who looks at another bank is shown a value that a later program could choose.
    assert pcr(file, measured.PCR, SHA1) != bytes(20)
    assert pcr(file, measured.PCR - 1) == bytes(32)

    # A second handoff goes on from there.
    for event in events:
        tpm.add(file, measured.PCR, event)
    assert pcr(file, measured.PCR) == measured.extended(events, measured.extended(events))


def test_another_manifest_or_command_line_is_another_value() -> None:
    given = [(b"a", "b"), (b"a", "c"), (b"b", "b"), (b"b", "a")]
    assert len({measured.extended(measured.events(*each)) for each in given}) == len(given)


def test_a_tpm_that_refuses_is_an_error(file: int) -> None:
    with pytest.raises(HandoffError, match=r"PCR 99: it answers with code 0x.* without one, nothing"):
        tpm.add(file, 99, b"event")
    with pytest.raises(HandoffError, match="it answers with code"):
        tpm.add(file, measured.PCR, bytes(tpm.MAX_EVENT + 1))
    assert pcr(file, measured.PCR) == bytes(32)


@pytest.mark.parametrize("answer", [b"", b"\x80\x02\0\0\0\x0b\0\0\0\0", b"\x80\x02\0\0\0"])
def test_an_answer_that_is_none_is_an_error(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(answer)
        if not answer:
            theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(HandoffError, match="does not take what is measured"):
            tpm.add(ours.fileno(), measured.PCR, b"event")


def test_a_machine_without_a_tpm_of_that_version_measures_nothing(tmp_path: Path) -> None:
    device, version = tmp_path / "tpm0", tmp_path / "version"
    assert not tpm.measure(measured.PCR, [b"event"], device=str(device), version=str(version))
    device.write_bytes(b"")
    version.write_text("1\n")
    assert not tpm.measure(measured.PCR, [b"event"], device=str(device), version=str(version))
    assert device.read_bytes() == b""


def test_a_tpm_that_is_there_and_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    device, version = tmp_path / "tpm0", tmp_path / "version"
    device.write_bytes(b"")
    with pytest.raises(HandoffError, match="No such file"):
        tpm.measure(measured.PCR, [b"event"], device=str(device), version=str(version))
    version.write_text("2\n")
    with pytest.raises(HandoffError, match="an answer of 0 bytes"):
        tpm.measure(measured.PCR, [b"event"], device=str(device), version=str(version))
