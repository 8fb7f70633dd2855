"""What a seed measures before it hands over, and what `phase release predict` says of it beforehand."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from phase import measured
from phase.boot.errors import HandoffError
from phase.cli.facts import Predicted
from phase.cli.release import command
from tests.phase.boot.conftest import ARCH, Boot, Publish, Serve


def predicted(repository: Path, running: str, *words: str) -> Predicted:
    argv = ["predict", str(repository), "stable", ARCH, "--running", running, *words, "--json"]
    done = CliRunner().invoke(command, argv)
    assert done.exit_code == 0, done.output
    return msgspec.json.decode(done.stdout, type=Predicted)


def test_what_is_measured_is_what_was_predicted(boot: Boot, publish: Publish, serve: Serve) -> None:
    repository = publish().directory
    boot.machine.tpm = []
    assert boot(serve(), words="phase.job=hello")[0] == 0
    said = predicted(repository, boot.machine.line)
    assert (said.cmdline, said.pcr) == (boot.machine.loaded[0][0], measured.PCR)
    assert said.value == measured.extended(boot.machine.tpm).hex()
    assert [event.decode() for event in boot.machine.tpm] == said.events
    # Loaded first: what this machine does not take is not measured.
    assert boot.machine.did[-2:] == ["measure", "start"]

    # A second handoff, of a running system perhaps, goes on from there.
    assert boot(serve(), words="phase.job=hello")[0] == 0
    twice = predicted(repository, boot.machine.line, "--start", said.value)
    assert twice.value == measured.extended(boot.machine.tpm).hex()


def test_another_line_or_release_is_another_value(boot: Boot, publish: Publish, serve: Serve) -> None:
    repository = publish().directory
    boot.machine.tpm = []
    assert boot(serve(), words="phase.job=hello")[0] == 0
    value = measured.extended(boot.machine.tpm).hex()
    line = boot.machine.line
    assert predicted(repository, line).value == value
    for other in (line.replace("hello", "bye"), f"{line} phase.nowrite"):
        assert predicted(repository, other).value != value
    assert predicted(repository, line, "--also", "rootfstype=ramfs").value != value
    # What no seed carries over is not measured.
    assert predicted(repository, f"{line} init=/bin/sh").value == value
    assert predicted(publish("other").directory, line).value != value


def test_nothing_starts_where_the_tpm_refuses(
    boot: Boot, publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()

    def refuse(events: object) -> bool:
        raise HandoffError("this machine's TPM does not take what is measured")

    monkeypatch.setattr(boot.machine, "measure", refuse)
    assert boot(serve())[0] == 1
    assert "start" not in boot.machine.did


@pytest.mark.parametrize(
    ("words", "why"),
    [(("--before",), "names no release before it"), (("--start", "xy"), "--start is 64 hex digits")],
)
def test_what_cannot_be_predicted_is_said(publish: Publish, words: tuple[str, ...], why: str) -> None:
    argv = ["predict", str(publish().directory), "stable", ARCH, "--running", "quiet", *words]
    done = CliRunner().invoke(command, argv)
    assert done.exit_code != 0
    assert why in f"{done.output}{done.exception}"
