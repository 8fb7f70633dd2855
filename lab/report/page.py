"""What an HTML page would ask of the outside world, and how to stop it.

A report is opened on machines without a network and carries consoles that strangers' machines wrote to. It
must not call anyone: the generator's analytics are taken out, a content security policy forbids every other
request, and a page that still refers to an outside host is refused.
"""

import base64
import binascii
import re

from lab.report.errors import ReportError

#: Inline code and data only. `connect-src` leaves the page its own embedded data and nothing else.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'unsafe-inline' data: blob:; img-src data: blob:; media-src data: blob:; font-src data:; "
    "connect-src data: blob:; frame-src data: blob:; worker-src blob: data:; form-action 'none'"
)

_ANALYTICS = re.compile(
    r"<script\b[^>]*\bsrc=[\"']https://www\.googletagmanager\.com/[^\"']*[\"'][^>]*>\s*</script>"
    r"(?:\s*<script\b[^>]*>(?:(?!</script>).)*\bgtag\((?:(?!</script>).)*</script>)?",
    re.DOTALL | re.IGNORECASE,
)
_OUTSIDE = r"(?:(?:https?|wss?|ftp):(?:\\?/){2}|(?:\\?/){2}(?=[\w-]+(?:\.[\w-]+)+))"
#: What makes a browser fetch something by itself. Links that a person clicks are no requests of the page.
_CONTEXTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # <script src>, <img src>, <iframe src>, <video poster>, <object data> ...
        rf"<(?:script|img|iframe|frame|embed|source|track|audio|video|input|object)\b[^>]*?"
        rf"\s(?:src|srcset|poster|data)\s*=\s*[\"']?\s*({_OUTSIDE}[^\"'\s>]*)",
        rf"<(?:link|image|use)\b[^>]*?\s(?:xlink:)?href\s*=\s*[\"']?\s*({_OUTSIDE}[^\"'\s>]*)",
        rf"<(?:base|form)\b[^>]*?\s(?:href|action)\s*=\s*[\"']?\s*({_OUTSIDE}[^\"'\s>]*)",
        rf"<meta\b[^>]*\burl\s*=\s*({_OUTSIDE}[^\"'\s>]*)",
        # CSS
        rf"url\(\s*[\"']?\s*({_OUTSIDE}[^\"')\s]*)",
        rf"@import\s+[\"']({_OUTSIDE}[^\"']*)",
        # Code
        rf"\b(?:fetch|import|importScripts|sendBeacon|WebSocket|EventSource|Worker|open)\(\s*"
        rf"(?:[\"'](?:GET|POST|HEAD)[\"']\s*,\s*)?[\"'`]({_OUTSIDE}[^\"'`]*)",
        rf"\.(?:src|srcset)\s*=\s*[\"'`]({_OUTSIDE}[^\"'`]*)",
        rf"\bfrom\s*[\"']({_OUTSIDE}[^\"']*)",
    )
)
_EMBEDDED = re.compile(r"<script\b[^>]*\ssrc=[\"']data:[^\"',]*;base64,([A-Za-z0-9+/=]+)", re.IGNORECASE)
_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)


def seal(html: str) -> str:
    """Makes a page that asks nothing of anyone.

    Args:
        html: the page as generated.

    Returns:
        The page without analytics and with a policy that forbids outside requests.

    Raises:
        ReportError: it still refers to an outside host, or has no head to put the policy in.
    """
    html = _ANALYTICS.sub("", html)
    if left := outside_requests(html):
        raise ReportError(
            f"The report would ask {', '.join(left[:3])} for something",
            hint="The generator was changed: strip this in lab/report/page.py, or pin the earlier version.",
        )
    tag = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    sealed, count = _HEAD.subn(lambda match: match.group() + tag, html, count=1)
    if not count:
        raise ReportError("The generator wrote a page without a head", hint="Pin the earlier version.")
    return sealed


def outside_requests(html: str) -> list[str]:
    """What a browser would fetch from other hosts on opening a page.

    Looks at markup, style sheets and code, embedded scripts included. It reads the text of a page, it does
    not run it; what a program puts together at run time is stopped by the policy instead.

    Args:
        html: the page.

    Returns:
        The addresses, each once, in the order found.
    """
    texts = [html, *(_decode(match.group(1)) for match in _EMBEDDED.finditer(html))]
    found = (match.group(1) for text in texts for pattern in _CONTEXTS for match in pattern.finditer(text))
    return list(dict.fromkeys(found))


def _decode(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", errors="replace")
    except binascii.Error:
        return ""
