import pytest

from phase.fetch import Client, ExhaustedError, NoSuchFileError
from phase.trust import NotFoundError
from tests.phase.fetch.hostile import Server, good, raw

MISSING = raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


def test_takes_the_next_provider_and_stays_with_it() -> None:
    with (
        Server(raw(b"nonsense\r\n\r\n")) as broken,
        Server(good(b"body")) as works,
        Client([broken.url, works.url], timeout=10) as client,
    ):
        assert client.get("/a", 100) == b"body"
        assert client.get("/b", 100) == b"body"
        assert client.current == works.url
        assert [asked.path for asked in broken.asked] == ["/a"]


def test_a_file_one_provider_lacks_another_may_have() -> None:
    with (
        Server(MISSING) as lacks,
        Server(good(b"body")) as has,
        Client([lacks.url, has.url], timeout=10) as client,
    ):
        assert client.get("/a", 100) == b"body"


def test_missing_everywhere() -> None:
    with Server(MISSING) as server, Client([server.url], timeout=10) as client:
        with pytest.raises(NoSuchFileError):
            client.get("/a", 100)
        with pytest.raises(NotFoundError):
            client.get_metadata("2.root.json", 100)
        assert server.asked[-1].path == "/metadata/2.root.json"


def test_nobody_left_names_everyone() -> None:
    with Server(good(b"much too long")) as one, Server(raw(b"")) as two:
        with Client([one.url, two.url], timeout=10) as client, pytest.raises(ExhaustedError) as caught:
            client.get("/a", 5)
        assert one.url in str(caught.value)
        assert two.url in str(caught.value)


PORTAL = (
    b"\xef\xbb\xbf  <!DOCTYPE html><html><head><style>p { color: red }</style>"
    b"<title>Hotel \x1b[31m Lemon</title></head><body>Log in"
)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"Content-Type: Text/HTML; charset=utf-8\r\nContent-Length: %d\r\n", "text/html: '"),
        (b"Content-Length: %d\r\n", "of no type: '"),
        (b"Content-Type: application/json\r\nContent-Length: %d\r\n", "application/json: '"),
        (b"Content-Type: text/html\r\n", "text/html: '"),
    ],
)
def test_a_captive_portal_is_named(head: bytes, says: str) -> None:
    """200 and a web page to everything, as a network answers that wants a log-in first."""
    head = head % len(PORTAL) if b"%d" in head else head
    with (
        Server(raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + PORTAL)) as portal,
        Client([portal.url], timeout=5) as client,
        pytest.raises(ExhaustedError) as caught,
    ):
        client.get_metadata("2.root.json", 1000)
    said = str(caught.value)
    assert f"{portal.url}: it answers GET /metadata/2.root.json with a web page ({says}" in said
    assert "Hotel" in said
    assert "Lemon" in said
    assert said.isprintable()


def test_a_page_too_long_to_read_is_named_too() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9000\r\n\r\n"
    with (
        Server(raw(head)) as portal,
        Client([portal.url], timeout=5) as client,
        pytest.raises(ExhaustedError, match="with a web page"),
    ):
        client.get("/x", 1000)


def test_a_captive_portal_does_not_keep_a_provider_from_being_asked() -> None:
    with (
        Server(raw(b"HTTP/1.1 200 OK\r\n\r\n" + PORTAL)) as portal,
        Server(good(b"{}")) as honest,
        Client([portal.url, honest.url], timeout=5) as client,
    ):
        assert client.get("/x", 9000) == b"{}"
        assert client.current == honest.url


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_object_store_says_forbidden_of_what_it_has_not(status: int) -> None:
    answer = b"HTTP/1.1 %d No\r\nContent-Type: application/xml\r\n" % status
    with (
        Server(raw(answer + b"Transfer-Encoding: chunked\r\n\r\n5\r\n<Err>\r\n0\r\n\r\n")) as store,
        Client([store.url], timeout=5) as client,
        pytest.raises(NotFoundError, match="it has no /metadata/2"),
    ):
        client.get_metadata("2.root.json", 1000)
