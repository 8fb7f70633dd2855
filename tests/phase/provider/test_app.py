import base64
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from phase import files
from phase.provider import RepositoryError, make_app, store
from phase.provider.app import ADVERTISEMENT
from phase.provider.blobs import CACHE_FOREVER
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from tests.phase.provider.conftest import FILES, KEYS, Publish

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[[web.Application], Awaitable[Client]]
ROOTFS = FILES["rootfs"]
HEX = hashlib.sha256(ROOTFS).hexdigest()
TAG = f'"sha256-{HEX}"'
DIGEST = f"sha-256=:{base64.b64encode(bytes.fromhex(HEX)).decode()}:"
BLOB = f"/blobs/sha256/{HEX}"


@pytest.fixture
async def client(publish: Publish, aiohttp_client: MakeClient) -> Client:
    return await aiohttp_client(make_app(publish()))


@pytest.mark.parametrize(
    "path",
    [
        BLOB,
        "/stable/x86_64/rootfs",
        "/stable/amd64/rootfs",
        "/targets/stable/x86_64/rootfs",
        f"/targets/stable/x86_64/{HEX}.rootfs",
    ],
)
async def test_every_way_to_a_blob(client: Client, path: str) -> None:
    # `gzip` asked for: the bytes of the release must come all the same.
    answer = await client.get(path, headers={"Accept-Encoding": "gzip"})
    assert answer.status == 200
    assert await answer.read() == ROOTFS
    assert answer.headers["ETag"] == TAG
    assert answer.headers["Repr-Digest"] == DIGEST
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert ("immutable" in answer.headers["Cache-Control"]) is (HEX in path)


async def test_head(client: Client) -> None:
    answer = await client.head(BLOB, headers={"Range": "bytes=0-1"})
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(ROOTFS)))
    assert await answer.read() == b""
    assert (await client.head("/stable/x86_64/manifest.json")).status == 200
    # The connection is still in step.
    assert await (await client.get(BLOB)).read() == ROOTFS


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("0-0", 0, 0), ("5-99", 5, 99), ("-7", -7, -1), ("2303999-", -1, -1)]
)
async def test_parts(client: Client, asked: str, first: int, last: int) -> None:
    answer = await client.get(BLOB, headers={"Range": f"bytes={asked}", "If-Range": TAG})
    first, last = first % len(ROOTFS), last % len(ROOTFS)
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(ROOTFS)}"
    assert answer.headers["Repr-Digest"] == DIGEST
    assert await answer.read() == ROOTFS[first : last + 1]


async def test_part_of_another_file_is_the_whole_of_this(client: Client) -> None:
    answer = await client.get(BLOB, headers={"Range": "bytes=0-1", "If-Range": '"sha256-old"'})
    assert answer.status == 200
    assert await answer.read() == ROOTFS


async def test_no_such_part(client: Client) -> None:
    answer = await client.get(BLOB, headers={"Range": f"bytes={len(ROOTFS)}-"})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(ROOTFS)}"
    assert answer.content_type == "application/problem+json"


async def test_conditions(client: Client) -> None:
    answer = await client.get(BLOB, headers={"If-None-Match": TAG, "Range": "bytes=0-1"})
    assert (answer.status, answer.headers["ETag"]) == (304, TAG)
    assert await answer.read() == b""
    assert (await client.get(BLOB, headers={"If-Match": '"x"'})).status == 412


async def test_manifest_is_the_role_as_signed(client: Client, tmp_path: Path) -> None:
    signed = (tmp_path / "repository/metadata/1.stable-x86_64.json").read_bytes()
    for path in (
        "/manifest.json",
        "/stable/x86_64/manifest.json",
        "/stable/x86-64/manifest.json",
        "/metadata/1.stable-x86_64.json",
    ):
        answer = await client.get(path)
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.read() == signed
        again = await client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/beta/x86_64/manifest.json",
        "/stable/mips/manifest.json",
        "/stable/arm64/kernel",
        "/stable/x86_64/nothing",
        "/metadata/9.root.json",
        "/metadata/..%2f..%2fetc%2fpasswd",
        "/metadata/../metadata/nothing.json",
        "/blobs/sha256/" + "0" * 64,
        "/blobs/sha256/" + HEX.upper(),
        "/blobs/sha256/..%2f" + HEX,
        "/targets/../blobs",
        "/targets/stable/x86_64/%00",
        "/stable/x86_64/boot.ipxe",
        "/stable/x86_64/boot.efi",
        "/none/x86_64/boot.efi",
    ],
)
async def test_what_is_not_there(client: Client, path: str) -> None:
    from yarl import URL

    answer = await client.get(URL(path, encoded=True))
    assert answer.status == 404
    assert answer.content_type == "application/problem+json"
    body = await answer.json(content_type=None)
    assert body["status"] == 404
    assert body["title"] == "Not Found"


async def test_other_methods(client: Client) -> None:
    answer = await client.post(BLOB, data=b"x")
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]
    assert answer.content_type == "application/problem+json"


async def test_a_stored_file_of_the_wrong_length_is_not_served(client: Client, tmp_path: Path) -> None:
    blob = tmp_path / "repository" / BLOB[1:]
    blob.chmod(0o644)
    os.truncate(blob, 10)
    assert (await client.get(BLOB)).status == 500
    blob.unlink()
    assert (await client.get(BLOB)).status == 404
    os.mkfifo(blob)
    assert (await client.get(BLOB)).status == 404


async def test_a_new_release_is_picked_up(
    client: Client, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    publish("2.0.0", kernel=b"new", initramfs=b"new too")
    answer = await client.get("/stable/x86_64/kernel")
    assert await answer.read() == b"new"
    found = await (await client.get("/status")).json()
    assert [(r["release"], r["version"]) for r in found["releases"]] == [("2.0.0", 2)]


async def test_a_rotation_is_picked_up_also_when_it_is_met_half_way(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new root comes after the timestamp: whoever asks between the two must not hide it."""
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    directory = tmp_path / "repository/metadata"
    repository = Repository.open(directory.parent, keys=KEYS)
    repository.rotate(ReleaseKeys.from_seed("rotated"))
    repository.publish()
    new = {name: (directory / name).read_bytes() for name in ("2.root.json", "root.json")}
    (directory / "2.root.json").unlink()
    (directory / "root.json").write_bytes((directory / "1.root.json").read_bytes())
    assert (await client.get("/metadata/2.root.json")).status == 404
    for name, data in new.items():
        files.write(directory / name, data)
        for written in list(new)[: list(new).index(name) + 1]:
            answer = await client.get(f"/metadata/{written}")
            assert (answer.status, await answer.read()) == (200, new[written])


async def test_a_rotation_takes_no_release_before_it_off_the_offer(
    client: Client, tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    publish("2.0.0", kernel=b"new", initramfs=b"new too")
    for _ in range(store.KEEP_RELEASES + 1):
        assert (await client.get(BLOB)).status == 200
        Repository.open(tmp_path / "repository", keys=KEYS).publish()
    assert (await client.get(BLOB)).status == 200


async def test_a_release_is_given_for_a_while_after_the_next(
    client: Client, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    before = hashlib.sha256(FILES["kernel"]).hexdigest()
    publish("2.0.0", kernel=b"new", initramfs=b"new too")
    for path in (f"/blobs/sha256/{before}", f"/targets/stable/x86_64/{before}.kernel", BLOB):
        answer = await client.get(path)
        assert (answer.status, answer.headers["Cache-Control"]) == (200, CACHE_FOREVER)
        await answer.read()
    # What a name means is the newest release's to say.
    assert await (await client.get("/targets/stable/x86_64/kernel")).read() == b"new"
    assert (await client.get("/targets/stable/x86_64/rootfs")).status == 404


async def test_a_release_is_not_given_for_ever(
    client: Client, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(store, "KEEP_SECONDS", 0.0)
    publish("2.0.0", kernel=b"new", initramfs=b"new too")
    assert (await client.get(BLOB)).status == 404


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"signed":{"expires":"\xff"}}',
        b'{"signed":{"x":' + b"[" * 9999,
        b'{"signed":{"meta":{"snapshot.json":{"version":%s}}}}' % (b"9" * 5000),
    ],
    ids=["cut off", "no text", "deep", "a number without end"],
)
async def test_a_broken_release_leaves_the_one_before(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    (tmp_path / "repository/metadata/timestamp.json").write_bytes(content)
    assert (await client.get(BLOB)).status == 200
    health = await (await client.get("/health")).json()
    assert health["status"] == "degraded"
    assert "timestamp.json" in health["problem"]
    assert "repository_ok 0" in await (await client.get("/metrics")).text()


async def test_a_machine_that_booted_has_only_its_own_release(
    publish: Publish, aiohttp_client: MakeClient, tmp_path: Path
) -> None:
    publish()
    directory = publish(arch="arm64")
    for name in ("targets", "metadata/1.root.json"):
        assert (directory / name).exists()
    (directory / "metadata/1.stable-arm64.json").unlink()
    client = await aiohttp_client(make_app(directory))
    found = await (await client.get("/status")).json()
    assert [release["arch"] for release in found["releases"]] == ["x86_64"]
    assert await (await client.get(BLOB)).read() == ROOTFS


async def test_two_releases_have_no_default(publish: Publish, aiohttp_client: MakeClient) -> None:
    publish()
    directory = publish(arch="arm64")
    answer = await (await aiohttp_client(make_app(directory))).get("/manifest.json")
    assert answer.status == 404
    assert "stable/arm64" in (await answer.json(content_type=None))["detail"]
    chosen = await (await aiohttp_client(make_app(directory, arch="arm64"))).get("/manifest.json")
    assert json.loads(await chosen.read())["signed"]["x-phase"]["arch"] == "arm64"


async def test_ipxe_starts_a_seed(publish: Publish, aiohttp_client: MakeClient) -> None:
    directory = publish(channel="seed", kernel=b"k", initramfs=b"i")
    client = await aiohttp_client(make_app(directory))
    answer = await client.get("/seed/x86_64/boot.ipxe", headers={"Host": "boot.example:8080"})
    base = "http://boot.example:8080/seed/x86_64"
    assert await answer.text() == (
        f"#!ipxe\nkernel {base}/kernel initrd=initramfs console=ttyS0 BOOTIF=01-${{netX/mac:hexhyp}}\n"
        f"initrd --name initramfs {base}/initramfs\nboot\n"
    )


@pytest.mark.parametrize("word", ["||", "&&", ";", "#", "#x", "${net0/mac}", "a=${b}"])
async def test_ipxe_is_not_given_what_it_would_run(
    publish: Publish, aiohttp_client: MakeClient, word: str
) -> None:
    client = await aiohttp_client(
        make_app(publish(channel="seed", cmdline=f"a {word} shell", kernel=b"k", initramfs=b"i"))
    )
    answer = await client.get("/seed/x86_64/boot.ipxe")
    assert (answer.status, answer.content_type) == (404, "application/problem+json")
    assert repr(word) in (await answer.json(content_type=None))["detail"]


async def test_ipxe_takes_what_only_looks_special(publish: Publish, aiohttp_client: MakeClient) -> None:
    line = "a=x||y b;c d# $e {f} &&g"
    client = await aiohttp_client(
        make_app(publish(channel="seed", cmdline=line, kernel=b"k", initramfs=b"i"))
    )
    assert f"initrd=initramfs {line} BOOTIF=" in await (await client.get("/seed/x86_64/boot.ipxe")).text()


async def test_uefi_starts_a_seed(publish: Publish, aiohttp_client: MakeClient) -> None:
    repository = publish(channel="seed", kernel=b"kernel", initramfs=b"initramfs", uki=b"MZ and so on")
    client = await aiohttp_client(make_app(repository))
    answer = await client.get("/seed/x86_64/boot.efi")
    assert (answer.status, answer.content_type) == (200, "application/efi")
    assert await answer.read() == b"MZ and so on"
    part = await client.get("/seed/x86_64/boot.efi", headers={"Range": "bytes=0-1"})
    assert (part.status, part.content_type, await part.read()) == (206, "application/efi", b"MZ")


async def test_status_says_what_runs(client: Client) -> None:
    for path in ("/", "/status"):
        found = await (await client.get(path)).json()
        assert found["releases"][0]["artifacts"]["rootfs"] == len(ROOTFS)
        assert (found["mdns"]["running"], found["mdns"]["instances"]) == (False, [])
        assert found["mdns"]["problem"] == "not asked for"
    assert client.app is not None
    client.app[ADVERTISEMENT].instances.append("phase-<b>")
    page = await client.get("/", headers={"Accept": "text/html,*/*"})
    text = await page.text()
    assert page.content_type == "text/html"
    assert "stable/x86_64" in text
    assert "phase-&lt;b&gt;" in text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


async def test_metrics(client: Client) -> None:
    await (await client.get(BLOB)).read()
    await (await client.get("/nothing")).read()
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = (await answer.text()).splitlines()
    assert 'phase_provider_requests_total{route="/blobs/sha256/{hex}",status="200"} 1' in lines
    assert 'phase_provider_requests_total{route="none",status="404"} 1' in lines
    assert f'phase_provider_sent_bytes_total{{route="/blobs/sha256/{{hex}}"}} {len(ROOTFS)}' in lines


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="not a repository"):
        make_app(tmp_path)
