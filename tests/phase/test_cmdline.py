"""The kernel command line: parsing, and what crosses a handoff."""

import pytest

from phase import cmdline

ROOTFS = "ab" * 32


def test_parse_reads_every_documented_parameter() -> None:
    text = (
        "BOOT_IMAGE=/vmlinuz quiet phase.mode=local phase.channel=testing phase.cache=off phase.nowrite "
        "phase.provider=http://a:8080,http://b phase.timeout=45 phase.rescue=shell "
        "phase.job=hello phase.mdns=off phase.dht=192.0.2.1:8080,node.example:99 "
        f"phase.rootfs=sha256:{ROOTFS}"
    )
    assert cmdline.parse(text) == cmdline.Parameters(
        mode="local",
        channel="testing",
        providers=("http://a:8080", "http://b"),
        cache=False,
        nowrite=True,
        mdns=False,
        dht=(("192.0.2.1", 8080), ("node.example", 99)),
        timeout=45.0,
        rescue="shell",
        rootfs=ROOTFS,
        job="hello",
    )


@pytest.mark.parametrize(
    "word",
    [
        "phase.channel=../x", "phase.channel=", "phase.timeout=0", "phase.timeout=-1",
        "phase.timeout=1e3", "phase.rescue=never", "phase.cache=enabled", "phase.colour=red",
        "phase.provider=",
        "phase.rootfs=sha256:12",
    ],
)  # fmt: skip
def test_parse_reports_what_it_cannot_use_and_keeps_the_default(word: str) -> None:
    parsed = cmdline.parse(f"quiet {word}")
    assert parsed.problems == (word,)
    assert parsed._replace(problems=()) == cmdline.Parameters()


def test_compose_keeps_the_signed_words_and_carries_only_the_allowed() -> None:
    running = (
        "console=ttyS0 init=/evil root=/dev/sda phase.channel=stable module.sig_enforce=0 phase.job=hello"
    )
    line = cmdline.compose("quiet panic=-1", running, rootfs=ROOTFS)
    assert line == (
        f"quiet panic=-1 console=ttyS0 phase.channel=stable phase.job=hello phase.rootfs=sha256:{ROOTFS}"
    )


def test_compose_lets_a_signed_word_win_over_a_carried_one() -> None:
    line = cmdline.compose("phase.mode=private", "phase.mode=internet console=ttyS0", rootfs=ROOTFS)
    assert cmdline.parse(line).mode == "private"
    assert "internet" not in line


def test_compose_carries_every_console_in_order() -> None:
    line = cmdline.compose("quiet", "console=tty0 console=ttyS0,115200", rootfs=ROOTFS)
    assert line.startswith("quiet console=tty0 console=ttyS0,115200 ")


@pytest.mark.parametrize("where", ["signed", "running"])
def test_compose_believes_a_rootfs_hash_only_from_the_seed(where: str) -> None:
    lines = {"signed": "quiet", "running": "quiet"} | {where: f"phase.rootfs=sha256:{'cd' * 32}"}
    line = cmdline.compose(lines["signed"], lines["running"], rootfs=ROOTFS)
    assert cmdline.parse(line).rootfs == ROOTFS
    assert line.count("phase.rootfs") == 1


def test_a_quoted_value_cannot_smuggle_in_a_word() -> None:
    running = 'phase.job="hello init=/evil" console=ttyS0'
    assert 'init=/evil"' not in cmdline.split(running)
    line = cmdline.compose("quiet", 'console="ttyS0 init=/evil"', rootfs=ROOTFS)
    assert "init=/evil" not in cmdline.split(line)


@pytest.mark.parametrize(
    "word",
    [
        "phase.job=xphase.console=shell",
        'phase.provider="http://a phase.console=shell phase.rootfs=sha256:e"',
        'console="ttyS0 phase.console=shell"',
    ],
)
def test_what_cannot_be_used_is_not_carried(word: str) -> None:
    """Whoever searches the line, or splits it without knowing quotes, finds no word that was not allowed."""
    line = cmdline.compose("quiet", f"{word} console=ttyS0", rootfs=ROOTFS)
    assert line == f"quiet console=ttyS0 phase.rootfs=sha256:{ROOTFS}"


def test_the_dht_is_switched_off_or_named_rightly() -> None:
    assert cmdline.parse("phase.dht=off").dht is None
    assert cmdline.parse("").dht == ()
    for word in ("phase.dht=", "phase.dht=host", "phase.dht=host:0", "phase.dht=a:1,", "phase.dht=$(x):1"):
        assert cmdline.parse(word).problems == (word,)
        assert cmdline.parse(word).dht == ()
    many = f"phase.dht={','.join(['a:1'] * 9)}"
    assert cmdline.parse(many).problems == (many,)


def test_a_mode_that_is_none_is_the_most_careful_one() -> None:
    found = cmdline.parse("phase.mode=Private")
    assert (found.mode, found.problems) == ("private", ("phase.mode=Private",))
    assert "phase.mode=private" in cmdline.compose("quiet", "phase.mode=Private", rootfs=ROOTFS).split()
