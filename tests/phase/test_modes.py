"""What a mode allows, and who may change it."""

import pytest

from phase import cmdline, modes

ROOTFS = "5" * 64


def test_each_mode_allows_no_more_than_the_one_before() -> None:
    for looser, stricter in zip(modes.MODES, modes.MODES[1:], strict=False):
        assert looser != stricter
        for may, may_too in zip(looser[1:], stricter[1:], strict=True):
            assert may >= may_too
    assert all(modes.INTERNET[1:])
    assert not any(modes.PRIVATE[1:])


def test_a_name_that_is_none_is_the_strictest() -> None:
    assert modes.of("Private") == modes.of("") == modes.PRIVATE


@pytest.mark.parametrize("chosen", modes.NAMES)
@pytest.mark.parametrize("signed", modes.NAMES)
def test_a_signed_line_can_only_be_stricter(chosen: str, signed: str) -> None:
    line = cmdline.compose(f"quiet phase.mode={signed}", f"phase.mode={chosen}", rootfs=ROOTFS)
    expected = modes.NAMES[max(modes.NAMES.index(chosen), modes.NAMES.index(signed))]
    assert [word for word in line.split() if "mode" in word] == [f"phase.mode={expected}"]


@pytest.mark.parametrize(
    "signed",
    [
        "phase.mode=private phase.mode=internet",
        '"phase.mode=internet"',
        'phase.mode="internet"',
        "Phase.MODE=internet",
        "phase.mode=internet phase.mode=internet",
    ],
)
def test_however_it_is_signed(signed: str) -> None:
    """There is one word in the end, so that whoever reads the line finds the same mode."""
    line = cmdline.compose(signed, "phase.mode=private", rootfs=ROOTFS)
    assert line == f"phase.mode=private phase.rootfs=sha256:{ROOTFS}"


def test_where_nobody_has_chosen_the_signed_mode_counts() -> None:
    line = cmdline.compose("phase.mode=local", "quiet", rootfs=ROOTFS)
    assert line == f"phase.mode=local phase.rootfs=sha256:{ROOTFS}"
