"""The status page, in headless Chromium."""

import http.client
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from phase.provider import page
from phase.provider.status import MdnsStatus, ProblemStatus, ReleaseStatus, Status
from tests.browser import Browser
from tests.phase.provider.conftest import Publish
from tests.phase.provider.service import serving

_WIDE = "document.documentElement.scrollWidth > innerWidth"


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_read_on_a_desk_and_on_a_phone(publish: Publish, tmp_path: Path, dark: bool) -> None:
    publish(channel="testing")
    with serving(publish()) as (url, _), Browser() as browser:
        for width in (1280, 320):
            browser.open(url, width=width, dark=dark)
            assert not browser.evaluate(_WIDE), f"it does not fit {width} pixels"
            text = browser.text
            for word in ("stable/x86_64", "testing/x86_64", "1.0.0", "rootfs", "2.3 MB", "0 transfers now"):
                assert word in text, (width, word, text)
            size = browser.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)")
            assert size >= 16
        # On a phone there is no head above the columns: each value has its name beside it.
        name = "getComputedStyle(document.querySelectorAll('td')[2], '::before').content"
        assert "Version" in browser.evaluate(name)
        assert "Expires" not in text
        colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(24, 24, 24)") is dark
        assert browser.problems == [] or all("favicon" in found for found in browser.problems)
        outside = [asked for asked in browser.close() if not asked.startswith(url)]
    assert outside == []


def test_it_says_what_is_being_sent(publish: Publish) -> None:
    with serving(publish(kernel=b"k", rootfs=b"x" * (24 << 20))) as (url, _), Browser() as browser:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        connection.request("GET", "/stable/x86_64/rootfs")
        connection.getresponse().read(1000)
        browser.open(url)
        deadline = time.monotonic() + 30
        while "1 transfers now" not in browser.text:
            assert time.monotonic() < deadline
            browser.open(url)
        connection.close()


def test_what_others_wrote_stays_text(tmp_path: Path) -> None:
    """A release's name comes from a publisher, a neighbour's from anybody."""
    evil = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    release = ReleaseStatus("stable", "x86_64", 1, evil, evil, f"/{evil}", {evil: 1})
    mdns = MdnsStatus(False, [], evil, [evil])
    wrong = ProblemStatus(evil, evil)
    status = Status("phase-provider", evil, 1.0, 1.0, evil, 1, [release], mdns, 1, 1, 1, problems=[wrong])
    (tmp_path / "page.html").write_text(page.render(status))
    with Browser() as browser:
        browser.open((tmp_path / "page.html").as_uri())
        assert browser.evaluate("document.title") == "Phase provider"
        assert browser.evaluate("document.querySelectorAll('script, img').length") == 0
        assert browser.text.count("<script>") == 8
