"""No page that goes out as a report asks anything of another host."""

import base64

import pytest

from lab.report.errors import ReportError
from lab.report.page import POLICY, outside_requests, seal

ANALYTICS = """
    <script async src="https://www.googletagmanager.com/gtag/js?id=G-1"></script>
    <script>
        window.dataLayer = window.dataLayer || [];
        function gtag(){dataLayer.push(arguments);}
        gtag('config', 'G-1', {"report": "awesome"});
    </script>
"""


@pytest.mark.parametrize(
    "markup",
    [
        '<script async src="https://a.example/x.js"></script>',
        "<img alt='' src='//a.example/x.png'>",
        "<img srcset=https://a.example/x.png>",
        '<link rel="stylesheet" href="http://a.example/x.css">',
        '<iframe src="https://a.example/"></iframe>',
        '<object data="https://a.example/x"></object>',
        '<meta http-equiv="refresh" content="0; url=https://a.example/">',
        '<form action="https://a.example/"></form>',
        "<style>@import 'https://a.example/x.css';</style>",
        "<style>p { background: url(https://a.example/x.png) }</style>",
        '<script>fetch("https://a.example/x")</script>',
        "<script>fetch(`https:\\/\\/a.example/x`)</script>",
        '<script>navigator.sendBeacon("https://a.example/x")</script>',
        '<script>new WebSocket("wss://a.example/x")</script>',
        '<script>x.open("GET", "https://a.example/x")</script>',
        '<script>image.src = "https://a.example/x"</script>',
        '<script type="module">import x from "https://a.example/x.js"</script>',
    ],
)
def test_every_way_to_ask_is_found(markup: str) -> None:
    (found,) = outside_requests(f"<html><head></head><body>{markup}</body></html>")
    assert "a.example" in found


def test_code_inside_a_data_address_is_read() -> None:
    code = base64.b64encode(b'fetch("https://a.example/x")').decode()
    page = f'<script defer src="data:text/javascript;base64,{code}"></script>'
    assert outside_requests(page) == ["https://a.example/x"]


def test_what_a_browser_does_not_fetch_is_left_alone() -> None:
    page = (
        '<a href="https://a.example/">a link</a> <svg xmlns="http://www.w3.org/2000/svg"></svg>'
        '<p>console: GET http://10.0.0.1:8080/manifest.json</p> <img src="data:image/png;base64,AA==">'
    )
    assert outside_requests(page) == []


def test_analytics_go_and_the_policy_comes_first() -> None:
    sealed = seal(
        f"<html><head>\n<title>x</title></head><body>{ANALYTICS}<script>keep()</script></body></html>"
    )
    assert "gtag" not in sealed
    assert "<script>keep()</script>" in sealed
    assert sealed.startswith(f'<html><head><meta http-equiv="Content-Security-Policy" content="{POLICY}">')


def test_analytics_from_elsewhere_are_refused() -> None:
    with pytest.raises(ReportError, match=r"metrics\.example"):
        seal('<html><head></head><body><script src="https://metrics.example/a.js"></script></body></html>')


def test_a_page_without_a_head_is_refused() -> None:
    with pytest.raises(ReportError, match="without a head"):
        seal("<html><body></body></html>")
