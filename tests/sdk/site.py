"""The project's files over HTTP, and one page at `/`."""

import base64 as codec
import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator

from tests.sdk.node import PROJECT


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *words: object, page: bytes, **more: object) -> None:
        self.page = page
        super().__init__(*words, **more)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path not in ("/", "/favicon.ico"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.page if self.path == "/" else b"")
        return None

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(page: str) -> Iterator[str]:
    """Serves; the address of the page."""
    handler = functools.partial(_Handler, page=page.encode(), directory=str(PROJECT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def base64(data: bytes) -> str:
    """As a page can hold it."""
    return codec.b64encode(data).decode()
