"""The kernel command line: parsing, and what crosses a handoff."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase import cmdline
from phase.fetch.http import parse_url

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
        "phase.node=", "phase.node=everybody", f"phase.node={'a' * 63}", f"phase.node=open,{'a' * 64}",
        "phase.node=" + ",".join(["a" * 64] * 17), "phase.relay=192.0.2.1", "phase.relay=http://a;b:1",
        "phase.rootfs=sha256:12", "phase.mirror=stable", "phase.mirror=a/riscv", "phase.mirror=../arm64",
        "phase.mirror=" + ",".join(["stable/arm64"] * 17),
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


def test_compose_carries_who_may_bring_jobs_unless_it_is_signed() -> None:
    words = f"phase.node={'a' * 64},{'b' * 64} phase.relay=http://192.0.2.1:8080,http://[2001:db8::1]:80"
    assert words in cmdline.compose("quiet", words, rootfs=ROOTFS)
    line = cmdline.compose(f"phase.node={'c' * 64}", words, rootfs=ROOTFS)
    assert f"phase.node={'c' * 64}" in line
    assert "a" * 64 not in line


def test_compose_carries_what_is_mirrored() -> None:
    words = "phase.mirror=stable/arm64,beta/x86_64"
    assert words in cmdline.compose("quiet", words, rootfs=ROOTFS).split()


def test_compose_lets_a_signed_word_win_over_a_carried_one() -> None:
    line = cmdline.compose("phase.mode=private", "phase.mode=internet console=ttyS0", rootfs=ROOTFS)
    assert cmdline.parse(line).mode == "private"
    assert "internet" not in line


@pytest.mark.parametrize("signed", ["quiet", "phase.mode=internet", pytest.param("q " * 767, id="long")])
@pytest.mark.parametrize(
    "running",
    [
        '"phase.mode=private"', 'phase."mode"=private', 'ph"ase.mode=private"', 'phase.mode="private"',
        "phase.mode=local phase.mode=", pytest.param(f"console={'c' * 410} phase.mode=private", id="full"),
    ],
)  # fmt: skip
def test_the_next_kernel_gets_the_mode_that_the_seed_reads(signed: str, running: str) -> None:
    """However it is written, and however little room the signed words leave."""
    assert cmdline.parse(running).mode == "private"
    assert cmdline.parse(cmdline.compose(signed, running, rootfs=ROOTFS)).mode == "private"


@pytest.mark.parametrize("word", ["phase.mdns=off", "phase.dht=off", "phase.nowrite", "console=ttyS0"])
def test_compose_carries_a_quoted_word_without_its_quotes(word: str) -> None:
    assert word in cmdline.compose("quiet", f'"{word}"', rootfs=ROOTFS).split()


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


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [
        ("phase.mode=internet", "mode", "internet"),
        ("phase.mode=local", "mode", "local"),
        ("phase.mode=private", "mode", "private"),
        (f"phase.channel={'a' * 64}", "channel", "a" * 64),
        ("phase.channel=a-b_9", "channel", "a-b_9"),
        ("phase.cache=on", "cache", True),
        ("phase.cache=off", "cache", False),
        ("phase.mdns=on", "mdns", True),
        ("phase.mdns=off", "mdns", False),
        ("phase.nowrite", "nowrite", True),
        ("phase.nowrite=1", "nowrite", True),
        ("phase.timeout=1", "timeout", 1.0),
        ("phase.timeout=86400", "timeout", 86_400.0),
        ("phase.timeout=000060", "timeout", 60.0),
        ("phase.rescue=shell", "rescue", "shell"),
        ("phase.rescue=reboot", "rescue", "reboot"),
        ("phase.rescue=poweroff", "rescue", "poweroff"),
        ("phase.watchdog=off", "watchdog", 0),
        ("phase.watchdog=10", "watchdog", 10),
        ("phase.watchdog=3600", "watchdog", 3600),
        (f"phase.dht={','.join(['a:1'] * 8)}", "dht", (("a", 1),) * 8),
        ("phase.job=hello", "job", "hello"),
        ('phase.job="hello"', "job", "hello"),
        ('"phase.job=hello"', "job", "hello"),
        ("Phase.Timeout=7", "timeout", 7.0),
    ],
)
def test_a_value_at_the_edge_of_what_is_allowed_is_taken(word: str, field: str, value: object) -> None:
    found = cmdline.parse(f"quiet {word} splash")
    assert (getattr(found, field), found.problems) == (value, ())


@pytest.mark.parametrize(
    "word",
    [
        "phase.timeout=", "phase.timeout", "phase.timeout=00", "phase.timeout=86401", "phase.timeout=1e9",
        "phase.timeout=+5", "phase.timeout=5.0", "phase.timeout=0x10", "phase.timeout=\uff15",
        f"phase.timeout={'9' * 5000}", "phase.timeout=1_0",
        f"phase.channel={'a' * 65}", "phase.channel=-a", "phase.channel=_a", "phase.channel=caf\u00e9",
        "phase.channel=a/b", "phase.job=", "phase.job=a.b", f"phase.job={'j' * 65}",
        "phase.nowrite=0", "phase.nowrite=yes", "phase.cache=", "phase.cache", "phase.mdns=no",
        "phase.watchdog=9", "phase.watchdog=3601", "phase.watchdog=0", "phase.watchdog=",
        "phase.rescue=", "phase.rescue=Shell", "phase.marks=0", "phase.marks=10", "phase.marks=",
        "phase.console=sh", "phase.console", "phase.", "phase.=x", "PHASE.COLOUR=red",
        f"phase.rootfs=sha256:{'g' * 64}", f"phase.rootfs=sha256:{'a' * 63}", f"phase.rootfs={'a' * 71}",
        f"phase.dht=a:{'9' * 5000}", "phase.dht=\x1b[2Ja:1",
    ],
)  # fmt: skip
def test_bad_input_on_the_kernel_command_line_is_named_and_never_fatal(word: str) -> None:
    found = cmdline.parse(f"{word} quiet")
    assert found.problems == (word,)
    assert found._replace(problems=()) == cmdline.Parameters()
    (line,) = cmdline.remarks(word)
    assert line.startswith(f"ignored on the kernel command line: {word[:60]}")
    assert len(line) < 200
    assert cmdline.compose("quiet", word, rootfs=ROOTFS) == f"quiet phase.rootfs=sha256:{ROOTFS}"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("10.0.0.2:8080", "http://10.0.0.2:8080"),
        ("10.0.0.2", "http://10.0.0.2:8080"),
        ("boot.example.org", "http://boot.example.org:8080"),
        ("boot", "http://boot:8080"),
        ("boot:81/mirror", "http://boot:81/mirror"),
        ("boot.example.org.", "http://boot.example.org.:8080"),
        ("http://10.0.0.2", "http://10.0.0.2"),
        ("HTTP://10.0.0.2:8080", "http://10.0.0.2:8080"),
        ("http:/10.0.0.2:8080", "http://10.0.0.2:8080"),
        ("http://10.0.0.2:8080/", "http://10.0.0.2:8080"),
        ("http://10.0.0.2:8080///", "http://10.0.0.2:8080"),
        ("http://10.0.0.2:8080/a%20b/", "http://10.0.0.2:8080/a%20b"),
        ("%20http://10.0.0.2:8080%20", "http://10.0.0.2:8080"),
        ('"http://10.0.0.2:8080"', "http://10.0.0.2:8080"),
        ("[2001:db8::1]:8080", "http://[2001:db8::1]:8080"),
        ("[2001:db8::1]", "http://[2001:db8::1]:8080"),
        ("http://[2001:db8::1]", "http://[2001:db8::1]"),
        ("2001:db8::1", "http://[2001:db8::1]:8080"),
        ("http://fe80::5054:ff:fe12:3a56", "http://[fe80::5054:ff:fe12:3a56]"),
        ("2001:db8::1:18080", "http://[2001:db8::1]:18080"),
        ("2001:db8:1:2:3:4:5:6:8080", "http://[2001:db8:1:2:3:4:5:6]:8080"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:8080"),
        ("2001:db8::1:123", "http://[2001:db8::1:123]:8080"),
        (
            f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}",
            f"http://{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}:8080",
        ),
        ("a/" + "p" * 498, "http://a:8080/" + "p" * 498),
    ],
)
def test_a_provider_without_its_scheme_is_understood(text: str, url: str) -> None:
    found = cmdline.parse(f"phase.provider={text}")
    assert (found.providers, found.problems) == ((url,), ())
    assert parse_url(url).host
    said = cmdline.remarks(f"phase.provider={text}")
    assert said == ([] if text.strip('"') == url else [said[0]])
    assert all(line.endswith(f"is read as {url}") for line in said)
    assert f" phase.provider={url} " in cmdline.compose("quiet", f"phase.provider={text}", rootfs=ROOTFS)


@pytest.mark.parametrize(
    "text",
    [
        "https://10.0.0.2", "ftp://a", "http://", "://a", "http://a:b", "a:0", "a:65536", "a:999999", "a:",
        "http://a b", "http://u@h", "http://a/?q", "http://a/#f", "2001:db8::1:8080", "[10.0.0.2]:80",
        "[::1", "1.2.3", "999.1.1.1", "-a", "a..b", "caf\u00e9", "a\x1b[2J", f"{'a' * 300}", "a" * 5000, "/",
        "%20", "http://[fe80::1%../x]", "1::2::3", "2001:db8::1:80",
        f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 62}", "a" * 64, "a/" + "p" * 499,
    ],
)  # fmt: skip
def test_a_provider_that_cannot_be_understood_is_ignored_and_said(text: str) -> None:
    word = f'phase.provider="{text}"' if " " in text else f"phase.provider={text}"
    found = cmdline.parse(f"{word} phase.provider=10.0.0.2")
    assert found.providers == ("http://10.0.0.2:8080",)
    assert len(found.problems) == 1
    assert cmdline.remarks(word)[0].startswith("ignored on the kernel command line: phase.provider=")


def test_one_bad_provider_of_a_list_costs_that_one_only() -> None:
    found = cmdline.parse("phase.provider=https://a,10.0.0.2,,10.0.0.2:8080 phase.provider=http://c")
    assert found.providers == ("http://10.0.0.2:8080", "http://c")
    assert found.problems == ("phase.provider=https://a",)
    many = ",".join(f"h{number}" for number in range(18))
    found = cmdline.parse(f"phase.provider={many}")
    assert len(found.providers) == cmdline.MAX_PROVIDERS == 16
    assert found.problems == ("phase.provider=h16", "phase.provider=h17")


def test_of_a_value_given_twice_the_last_counts_and_that_is_said() -> None:
    text = "phase.timeout=20 phase.timeout=40 phase.cache=off phase.cache=off phase.timeout=x"
    assert cmdline.parse(text).timeout == 40.0
    assert cmdline.remarks(text) == [
        "on the kernel command line: phase.timeout stands there twice; phase.timeout=40 counts",
        "ignored on the kernel command line: phase.timeout=x (write whole seconds, 1 to 86400)",
    ]


def test_what_is_said_of_a_hopeless_line_is_short() -> None:
    said = cmdline.remarks(" ".join(f"phase.a{number}" for number in range(500)) + " phase.b" * 100)
    assert len(said) == 7
    assert said[-1] == "and 495 more like these on the kernel command line"


def test_a_carried_word_that_no_kernel_can_be_given_is_left_behind() -> None:
    running = "console=tty\u2122 console=\x1b[2J console=ttyS0 phase.job=hello"
    assert cmdline.compose("quiet", running, rootfs=ROOTFS) == (
        f"quiet console=ttyS0 phase.job=hello phase.rootfs=sha256:{ROOTFS}"
    )


def test_a_line_too_long_for_the_next_kernel_loses_carried_words_only() -> None:
    signed = "s" * 1536
    long = ",".join(f"http://{'h' * 50}{number}:8080" for number in range(9))
    found = cmdline.compose_within(signed, f"phase.provider={long} console=ttyS0", rootfs=ROOTFS)
    assert found.line == f"{signed} console=ttyS0 phase.rootfs=sha256:{ROOTFS}"
    assert found.left_out == (f"phase.provider={long}",)
    exact = len(f"quiet console=ttyS0 phase.rootfs=sha256:{ROOTFS}")
    for limit, kept in ((exact, True), (exact - 1, False)):
        line = cmdline.compose_within("quiet", "console=ttyS0", rootfs=ROOTFS, limit=limit).line
        assert ("console" in line) == kept
        assert len(line) <= limit


@given(st.text(max_size=300), st.text(max_size=100))
def test_no_command_line_at_all_is_fatal(text: str, value: str) -> None:
    for line in (
        text,
        f"phase.provider={value}",
        f"phase.timeout={value} phase.dht={value}",
        f"phase.{text}",
    ):
        found = cmdline.parse(line)
        for url in found.providers:
            assert parse_url(url).text == url
        cmdline.remarks(line)
        composed = cmdline.compose("quiet", line, rootfs=ROOTFS)
        assert composed.isascii()
        assert len(composed) <= cmdline.MAX_LINE


@pytest.mark.parametrize("word", ["Phase.Mode=internet", '"phase.mode=internet"', "PHASE.MODE=internet"])
def test_no_other_spelling_overrules_a_signed_word(word: str) -> None:
    line = cmdline.compose("phase.mode=private", word, rootfs=ROOTFS)
    assert line == f"phase.mode=private phase.rootfs=sha256:{ROOTFS}"
    assert "ROOTFS" not in cmdline.compose("quiet", f"PHASE.ROOTFS=sha256:{ROOTFS}", rootfs=ROOTFS)


def test_what_the_seed_adds_yields_to_what_is_signed() -> None:
    also = ("rootfstype=ramfs",)
    found = cmdline.compose_within("quiet", "console=ttyS0 rootfstype=evil", rootfs=ROOTFS, also=also)
    assert found.line == f"quiet rootfstype=ramfs console=ttyS0 phase.rootfs=sha256:{ROOTFS}"
    found = cmdline.compose_within("rootfstype=tmpfs", "", rootfs=ROOTFS, also=also)
    assert found.line == f"rootfstype=tmpfs phase.rootfs=sha256:{ROOTFS}"


def test_what_holds_where_nothing_is_said() -> None:
    assert cmdline.parse("quiet console=ttyS0") == (
        "internet", "stable", (), True, False, True, True, (), 300.0, "reboot", 60, "", "", None, (),
    )  # fmt: skip
    # Of these two only the init scripts take notice.
    for text in ("phase.marks=1 phase.console=shell", "phase.marks=9"):
        assert cmdline.parse(text) == cmdline.Parameters()
        assert cmdline.remarks(text) == []


def test_a_remark_quotes_the_start_of_a_word() -> None:
    word = f"phase.{'x' * 54}"
    assert cmdline.remarks(word) == [
        f"ignored on the kernel command line: {word} (there is no such parameter)"
    ]
    assert cmdline.remarks(f"{word}y") == [
        f"ignored on the kernel command line: {word}... (there is no such parameter)"
    ]


def test_each_carried_word_takes_its_room() -> None:
    whole = f"quiet console=tty0 console=ttyS0 phase.rootfs=sha256:{ROOTFS}"
    for limit, left_out in ((len(whole), ()), (len(whole) - 1, ("console=ttyS0",))):
        found = cmdline.compose_within("quiet", "console=tty0 console=ttyS0", rootfs=ROOTFS, limit=limit)
        assert found.left_out == left_out


def test_the_longest_values_that_are_understood_are() -> None:
    assert cmdline.parse("phase.timeout=000000086400").timeout == 86_400.0
    assert cmdline.parse("phase.timeout=0000000086400").problems == ("phase.timeout=0000000086400",)
    for name in ("a" * 64, "0", "A-b_C", "9_", "z-"):
        assert cmdline.parse(f"phase.channel={name}").channel == name
    digest = "0123456789abcdef" * 4
    assert cmdline.parse(f"phase.rootfs=sha256:{digest}").rootfs == digest


def test_a_value_with_an_equals_sign_is_one_value() -> None:
    text = "phase.provider=http://a/b=c console=ttyS0=1"
    assert cmdline.parse(text).providers == ("http://a/b=c",)
    assert cmdline.remarks(text) == []
    assert cmdline.compose("quiet", text, rootfs=ROOTFS) == (
        f"quiet phase.provider=http://a/b=c console=ttyS0=1 phase.rootfs=sha256:{ROOTFS}"
    )


def test_a_provider_in_quotes_is_as_it_was_written() -> None:
    assert cmdline.remarks('phase.provider="http://10.0.0.2:8080"') == []


def test_a_list_of_nothing_is_named_once() -> None:
    assert cmdline.parse("phase.provider=,,").problems == ("phase.provider=,,",)
    assert cmdline.parse("phase.provider=").problems == ("phase.provider=",)
    # One that stands in a list is told as if it stood alone.
    assert cmdline.remarks("phase.provider=10.0.0.2,http://b") == [
        "on the kernel command line: phase.provider=10.0.0.2 is read as http://10.0.0.2:8080"
    ]
    assert cmdline.parse("phase.provider=x:y,").problems == ("phase.provider=x:y,",)


def test_what_is_used_instead_is_said() -> None:
    (line,) = cmdline.remarks("phase.mode=loca")
    assert line.endswith("phase.mode=loca (write internet or local or private; private is used)")
    (line,) = cmdline.remarks("phase.cache=maybe")
    assert line.endswith("phase.cache=maybe (write on or off)")


def test_six_remarks_are_told_in_full() -> None:
    assert cmdline.remarks(" ".join(f"phase.a{number}" for number in range(6)))[-1].startswith("ignored")
    assert len(cmdline.remarks(" ".join(f"phase.a{number}" for number in range(7)))) == 7


def test_a_carried_parameter_has_its_plain_name() -> None:
    assert cmdline.compose("quiet", "Phase.Timeout=20 Phase.Job=Hello", rootfs=ROOTFS) == (
        f"quiet phase.timeout=20 phase.job=Hello phase.rootfs=sha256:{ROOTFS}"
    )
    assert cmdline.compose("quiet", "console=X,XX", rootfs=ROOTFS).startswith("quiet console=X,XX ")


def test_a_kernel_word_in_another_spelling_is_not_carried() -> None:
    made = cmdline.compose("quiet", "conSole=ttyS1 console=ttyS0", rootfs="0" * 64)
    assert made == f"quiet console=ttyS0 phase.rootfs=sha256:{'0' * 64}"
