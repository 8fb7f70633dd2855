import pytest

from phase.fetch import Client, ExhaustedError, NotFoundError
from phase.trust import NotFoundError as NoMetadataError
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
        with pytest.raises(NotFoundError):
            client.get("/a", 100)
        with pytest.raises(NoMetadataError):
            client.get_metadata("2.root.json", 100)
        assert server.asked[-1].path == "/metadata/2.root.json"


def test_nobody_left_names_everyone() -> None:
    with Server(good(b"much too long")) as one, Server(raw(b"")) as two:
        with Client([one.url, two.url], timeout=10) as client, pytest.raises(ExhaustedError) as caught:
            client.get("/a", 5)
        assert one.url in str(caught.value)
        assert two.url in str(caught.value)
