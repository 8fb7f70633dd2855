"""The matrix, its history and its pictures: figures worked out by hand, then read in a real browser."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lab.report import history, matrix, matrix_page
from lab.report.build import build
from lab.report.drawing import Phase, Track, draw
from lab.report.errors import ReportError
from lab.report.history import KEPT, Run
from lab.report.records import Record
from tests.browser import Browser

TRACKS = [
    Track(
        machine="server",
        arch="arm64",
        phases=[Phase("firmware", 0, 0.5), Phase("kernel", 0.5, 4), Phase("system", 4, 9)],
    ),
    Track(
        machine="client",
        arch="x86_64",
        phases=[
            Phase("firmware", 9, 9.5),
            Phase("kernel", 9.5, 12),
            Phase("fetch", 12, 14, "retry"),
            Phase("fetch", 14, 17),
            Phase("handoff", 17, 17.1),
            Phase("job", 17.1, 22, "failed"),
        ],
    ),
]


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def record(outcome: str = "passed", *, ended: float = 0.0, accel: str = "tcg", **phases: float) -> Record:
    return Record(
        scenario="loop",
        arch="x86_64",
        topology="server arm64, client x86_64",
        outcome=outcome,
        phases=phases,
        accel=accel,
        kernel="6.1.0",
        nodeid="scenarios/test_loop.py::test_loop[x86_64]",
        duration=sum(phases.values()),
        ended=ended,
        firmware="direct",
        mode="local",
        tracks=TRACKS,
    )


def runs(*records: Record) -> list[Run]:
    return [Run(commit="abc", record=one) for one in records]


def test_rate_median_p95_and_trend() -> None:
    boots = [record(ended=n, kernel=float(n), job=1.0) for n in range(1, 21)]
    (line,) = matrix.lines(runs(*boots, record("failed", ended=21, kernel=99.0), record("skipped")))
    assert (line.passed, len(line.runs)) == (20, 21)
    assert line.phases["kernel"] == matrix.Spread(median=10.5, p95=19.0)
    assert line.phases["job"] == matrix.Spread(median=1.0, p95=1.0)
    assert line.whole == matrix.Spread(median=11.5, p95=20.0)
    assert line.trend == pytest.approx(21 / 11 - 1)
    # 20 of 21 are 95.2 %; and 999 of 1000 would not be all.
    assert matrix_page.percent(line) == "95 %"


@pytest.mark.parametrize(("failed", "shown"), [(0, "100 %"), (1, "99 %"), (300, "0 %")])
def test_one_failure_in_three_hundred_is_not_100_percent(failed: int, shown: str) -> None:
    (line,) = matrix.lines(runs(*[record("failed")] * failed, *[record()] * (300 - failed)))
    assert matrix_page.percent(line) == shown


def test_what_only_went_on_from_a_stage_is_no_boot() -> None:
    clone = msgspec.structs.replace(record(ended=2), stage="one network", booted=False)
    (line,) = matrix.lines(runs(record(ended=1, kernel=1.0), clone))
    assert (line.passed, len(line.runs)) == (1, 1)
    assert matrix.lines(runs(clone)) == []


def test_a_flaky_pass_is_no_success() -> None:
    (line,) = matrix.lines(runs(record(), record("flaky")))
    assert line.rate == 0.5


def test_boots_on_another_accelerator_are_not_compared() -> None:
    (line,) = matrix.lines(runs(*[record(accel="tcg", kernel=9.0)] * 4, record(accel="kvm", kernel=1.0)))
    assert line.boots == (1.0,)
    assert line.trend is None


def test_a_row_is_a_scenario_on_an_architecture_firmware_and_mode() -> None:
    told = [record(), record()]
    told += [msgspec.structs.replace(record(), **{name: "other"}) for name in ("arch", "firmware", "mode")]
    assert sorted(len(line.runs) for line in matrix.lines(runs(*told))) == [1, 1, 1, 2]


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=60))
def test_half_are_at_most_the_median_and_95_of_100_at_most_p95(seconds: list[float]) -> None:
    found = matrix.spread(seconds)
    assert found.p95 in seconds
    assert sum(value <= found.median for value in seconds) * 2 >= len(seconds)
    assert sum(value <= found.p95 for value in seconds) * 100 >= 95 * len(seconds)


def test_the_same_run_counts_once_and_is_kept_without_its_picture(tmp_path: Path) -> None:
    path = tmp_path / "boots.jsonl"
    first, new = history.add(path, [record(ended=1.0)], "abc")
    assert new
    assert history.add(path, [record(ended=1.0)], "abc") == (first, False)
    both, _ = history.add(path, [record(ended=2.0)], "def")
    assert [(run.commit, run.record.ended) for run in both] == [("abc", 1.0), ("def", 2.0)]
    assert history.read(path) == both
    assert both[0].record.tracks == []


def test_a_history_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "boots.jsonl"
    other = msgspec.structs.replace(record(ended=0.5), scenario="rare")
    history.add(path, [other, *(record(ended=float(n)) for n in range(1, 2 * KEPT))], "abc")
    kept = history.read(path)
    assert [run.record.scenario for run in kept].count("loop") == KEPT
    assert kept[0].record.scenario == "rare"
    assert kept[-1].record.ended == 2 * KEPT - 1


def test_a_broken_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "boots.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ReportError, match=r"boots\.jsonl is not a history"):
        history.read(path)


def test_a_picture_has_every_phase_where_it_was() -> None:
    root = ElementTree.fromstring(draw(TRACKS))  # noqa: S314  our own
    space = {"s": "http://www.w3.org/2000/svg"}
    titles = [node.text or "" for node in root.findall(".//s:g/s:title", space)]
    assert len(titles) == 9
    assert "fetch retry: 2.00 s, from 12.00 s" in titles
    kinds = [node.get("class") for node in root.findall(".//s:g/s:rect", space)]
    assert kinds[:9] == ["boot", "boot", "step", "boot", "boot", "again", "step", "step", "bad"]
    # The whole width is 22 s.
    widths = [float(node.get("width", "")) for node in root.findall(".//s:g/s:rect", space)]
    assert widths[8] == pytest.approx(widths[2] * 4.9 / 5, abs=1)


@given(st.lists(st.tuples(st.text(max_size=8), st.floats(0, 1e9), st.floats(0, 1e9)), max_size=80))
def test_any_marks_make_a_picture(told: list[tuple[str, float, float]]) -> None:
    phases = [Phase(name, min(a, b), max(a, b)) for name, a, b in told]
    picture = draw([Track(machine="m", arch="a", phases=phases)])
    assert "nan" not in picture
    ElementTree.fromstring(picture)  # noqa: S314  our own


def test_a_long_name_does_not_run_into_the_picture() -> None:
    picture = draw([Track(machine="great-grandchild" * 3, arch="x86_64", phases=[Phase("kernel", 0, 1)])])
    (name,) = re.findall(r'<text x="0"[^>]*>([^<]*)<', picture)
    assert name.startswith("great-grandchild")
    assert len(name) <= 26


def test_markdown_for_a_ci_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    hostile = msgspec.structs.replace(
        record("failed", ended=2.0), owner="machine", what="a | <b>panic</b>\nmore"
    )
    _write(tmp_path / "out", record(ended=1.0, kernel=2.5), msgspec.structs.replace(hostile, nodeid="two"))
    build(tmp_path / "out", html=False, console=Console(file=io.StringIO()))
    text = page.read_text()
    assert text.startswith("before\n## Boot-success matrix\n")
    assert "- **loop** x86_64: failed (machine) a \\| &lt;b&gt;panic&lt;/b&gt; more\n" in text
    assert "| direct | local | 50 % 1/2 | ✅❌ | 2.50 | 2.50 | - |" in text
    assert "| kernel | 2.50 | 2.50 |" in text
    assert text[len("before\n") :] == (tmp_path / "out" / "matrix.md").read_text()


def test_the_page_says_why_machines_were_emulated(tmp_path: Path) -> None:
    slow = msgspec.structs.replace(record(ended=1.0), refused="runs a CPU: 100000 loops in 110.00 ms")
    other = msgspec.structs.replace(slow, arch="arm64", refused="the host is x86_64", nodeid="two")
    _write(tmp_path, slow, other, msgspec.structs.replace(record(accel="kvm"), nodeid="three"))
    build(tmp_path, html=False, console=Console(file=io.StringIO()))
    text = (tmp_path / "matrix.html").read_text()
    assert "accelerator x86_64 kvm, tcg (runs a CPU: 100000 loops in 110.00 ms)" in text
    assert "accelerator arm64 tcg (the host is x86_64)" in text


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as made:
        yield made


def test_the_matrix_in_a_browser(tmp_path: Path, browser: Browser) -> None:
    script = "<script>document.title='owned'</script><img src=https://a.example/x.png>"
    boots = [record(ended=float(n), kernel=float(n), job=1.0) for n in range(1, 21)]
    failed = msgspec.structs.replace(record("failed", ended=30.0), owner="product", what=script)
    (tmp_path / "history").mkdir()
    history.add(tmp_path / "history" / "boots.jsonl", boots, script)
    _write(tmp_path, failed)
    build(tmp_path, html=False, console=Console(file=io.StringIO()))
    address = (tmp_path / "matrix.html").as_uri()
    browser.open(address)
    assert browser.evaluate("document.title") == "Boot-success matrix"
    row = browser.evaluate("document.querySelector('.matrix tbody tr').innerText")
    for figure in ("loop", "x86_64", "direct", "local", "95 %", "20/21", "11.50", "20.00", "+91%"):
        assert figure in row, figure
    assert "<script>" in browser.text
    assert browser.evaluate("document.querySelectorAll('.picture svg rect').length") == 9 + 4
    assert browser.evaluate("document.querySelectorAll('script, img').length") == 0
    assert _contrast_is_enough(browser)
    browser.open(address, dark=True)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 24, 39)"
    assert _contrast_is_enough(browser)
    browser.open(address, width=360, height=740)
    assert browser.evaluate("document.documentElement.scrollWidth") == 360
    assert browser.problems == []
    assert browser.close() == []


@pytest.mark.timeout(900)  # the first run installs Allure
def test_allure_in_a_browser(tmp_path: Path, browser: Browser) -> None:
    _write(tmp_path, record("failed", ended=1.0, kernel=2.0))
    _result(tmp_path, "boots from a neighbour", draw(TRACKS))
    for _ in range(2):
        build(tmp_path, html=True, console=Console(file=io.StringIO()))
    # One run, reported twice.
    assert len((tmp_path / "history" / "allure.jsonl").read_text().splitlines()) == 1
    browser.open((tmp_path / "report.html").as_uri())
    browser.wait("document.body.innerText.includes('boots from a neighbour')")
    browser.evaluate(
        "[...document.querySelectorAll('*')].find(e => e.childElementCount == 0 && "
        "e.textContent.includes('boots from a neighbour')).click()"
    )
    browser.wait("document.body.innerText.includes('the cable is out')")
    assert "timeline" in browser.text
    assert browser.close() == []


def test_a_page_that_asks_is_caught(tmp_path: Path, browser: Browser) -> None:
    """The log that the other tests trust sees what a page asks for."""
    page = tmp_path / "page.html"
    page.write_text('<body><img src="https://a.example/x.png"><script>fetch("http://b.example/")</script>')
    browser.open(page.as_uri())
    browser.wait("performance.getEntriesByType('resource').length >= 2")
    assert browser.close() == ["http://b.example/", "https://a.example/x.png"]


def _contrast_is_enough(browser: Browser) -> bool:
    """Whether text stands out 4.5 times from what is behind it (WCAG 2.1, 1.4.3)."""
    found = browser.evaluate(
        """(() => {
        const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
          .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
          return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2] };
        const behind = e => { for (; e; e = e.parentElement) {
          const c = getComputedStyle(e).backgroundColor; if (c != 'rgba(0, 0, 0, 0)') return c } };
        const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
          return (x + 0.05) / (y + 0.05) };
        const bad = [];
        for (const e of document.querySelectorAll('body *')) {
          const style = getComputedStyle(e);
          if (!e.childElementCount && e.textContent.trim() && !e.closest('svg'))
            if (ratio(style.color, behind(e)) < 4.5) bad.push(e.outerHTML);
          if (e.matches('text.on') && ratio(style.fill, getComputedStyle(
            e.parentElement.querySelector('rect')).fill) < 4.5) bad.push(e.outerHTML);
        }
        return bad.join('\\n') })()"""
    )
    assert not found, found
    return True


def _write(out: Path, *records: Record) -> None:
    directory = out / "x86_64" / "records"
    directory.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(records):
        (directory / f"{number}.json").write_bytes(msgspec.json.encode(one))


def _result(out: Path, name: str, picture: str) -> None:
    directory = out / "x86_64" / "allure"
    directory.mkdir(parents=True)
    (directory / "one-attachment.svg").write_text(picture)
    result = {
        "uuid": "one",
        "historyId": "one",
        "name": name,
        "fullName": name,
        "status": "failed",
        "statusDetails": {"message": "the cable is out"},
        "attachments": [{"name": "timeline", "source": "one-attachment.svg", "type": "image/svg+xml"}],
        "labels": [{"name": "owner", "value": "infrastructure"}],
        "start": 1,
        "stop": 5,
    }
    (directory / "one-result.json").write_text(json.dumps(result))


def test_what_died_before_it_said_its_topology_has_the_row_of_its_passes() -> None:
    """Else that row would show its old passes alone: 100 %."""
    old = [Run(commit="a", record=record(ended=float(number), kernel=1.0)) for number in range(3)]
    died = Record(
        scenario="test_loop", arch="", topology="", outcome="error", nodeid=record().nodeid, ended=9.0
    )
    other = msgspec.structs.replace(died, nodeid="scenarios/test_new.py::test_new")
    named = history.named([died, other, record()], old)
    assert named[1:] == [other, record()]
    (line,) = matrix.lines([*old, Run(commit="b", record=named[0])])
    assert (line.passed, len(line.runs), line.rate) == (3, 4, 0.75)


def test_what_did_not_run_is_listed_and_says_nothing_of_the_row() -> None:
    runs = [
        Run(commit="a", record=record(outcome, ended=float(n)))
        for n, outcome in enumerate(("passed", "not run"))
    ]
    (line,) = matrix.lines(runs)
    assert (line.passed, len(line.runs)) == (1, 1)
    assert [found.outcome for found in matrix.failures([run.record for run in runs])] == ["not run"]
