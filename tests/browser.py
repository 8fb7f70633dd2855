"""A headless Chromium, driven over the pipe of its own DevTools protocol: no driver, no port, no package."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT = 60.0
#: It is a browser for one page: nothing of its own to ask of anybody.
_QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--proxy-server=direct://",
    # It asks its maker for news all the same; what is not this host has no address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)  # fmt: skip
#: What its log calls a request that no page has asked for.
_ITS_OWN = "not an origin"
#: It reads from descriptor 3 and writes to 4.
_START = "import os,sys;a,b,*c=sys.argv[1:];os.dup2(int(a),3);os.dup2(int(b),4);os.execv(c[0],c)"


class Browser:
    """One page of one browser; a context manager."""

    def __init__(self) -> None:
        program = next(
            (
                found
                for name in ("chromium", "chromium-browser", "google-chrome")
                if (found := shutil.which(name))
            ),
            None,
        )
        assert program, "no chromium: python3 -m lab doctor says how to get it"
        self._home = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        self._log = Path(self._home.name, "net.json")
        there, self._to = _pipe()
        self._from, here = _pipe()
        words = [program, *_QUIET, f"--user-data-dir={self._home.name}", f"--log-net-log={self._log}"]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _START,
                str(there),
                str(here),
                *words,
                "--remote-debugging-pipe",
                "about:blank",
            ],
            pass_fds=(there, here),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(here)
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.problems: list[str] = []
        try:
            targets = self._call("Target.getTargets")["targetInfos"]
            page = next(target["targetId"] for target in targets if target["type"] == "page")
            told = self._call("Target.attachToTarget", targetId=page, flatten=True)
            self._session = told["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page, at the size of a screen in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        told = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression holds in the page."""
        deadline = time.monotonic() + _TIMEOUT
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"never: {expression}"
            time.sleep(0.05)

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return str(self.evaluate("document.body.innerText"))

    def screenshot(self, path: Path) -> None:
        """A picture of the whole page."""
        told = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))

    def close(self) -> list[str]:
        """End the browser.

        Returns:
            Every address that a page asked for, from the browser's own log of the network; not files, nor
            what a page carries in itself.
        """
        if self._process.poll() is None:
            try:
                self._call("Browser.close")
                self._process.wait(20)
            except (AssertionError, OSError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        text = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
        self._home.cleanup()
        return requests(text)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self.close()

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _TIMEOUT
        while True:
            told = self._read(deadline)
            if told.get("id") == self._number:
                assert "error" not in told, (method, told["error"])
                return dict(told["result"])
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        """Remember what the page's own developer would want to know."""
        if told.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(told["params"]["exceptionDetails"]))
        entry = told.get("params", {}).get("entry", {})
        if told.get("method") == "Log.entryAdded" and entry.get("level") == "error":
            self.problems.append(str(entry["text"]))

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))


def requests(log: str) -> list[str]:
    """The addresses in a Chromium network log that pages asked for and that lead out of the browser."""
    events = [event.get("params", {}) for event in json.loads(log)["events"]] if log else []
    found = {
        event["url"] for event in events if event.get("initiator", _ITS_OWN) != _ITS_OWN and "url" in event
    }
    return sorted(url for url in found if urlsplit(url).scheme in ("http", "https", "ws", "wss", "ftp"))


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are not among the numbers that the browser wants."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
