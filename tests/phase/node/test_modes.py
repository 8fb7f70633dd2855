"""The hello job of a booted system: whether its key outlives it, by the mode."""

import sys

import pytest

from phase import node


@pytest.mark.parametrize(("mode", "ephemeral"), [("internet", False), ("local", False), ("private", True)])
def test_in_private_mode_the_key_is_never_written_down(
    monkeypatch: pytest.MonkeyPatch, mode: str, ephemeral: bool
) -> None:
    asked: list[tuple[str, bool]] = []

    def run(name: str, *, ephemeral: bool) -> bool:
        asked.append((name, ephemeral))
        return True

    monkeypatch.setattr(node, "run_job", run)
    monkeypatch.setattr(sys, "argv", ["-c", "hello", mode])
    assert node.main() == 0
    assert asked == [("hello", ephemeral)]
