"""The HTTP gateway, as docs/develop/gateway.md says: real HTTP, real workers."""

import asyncio
import base64
import hashlib
import json
import os
import re
import time
from collections.abc import AsyncIterator

import pytest

from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.node import gateway, requests
from phase.node.admission import Admission
from phase.node.daemon import _both, split_listen
from phase.node.errors import NodeError, RefusedError
from phase.node.gateway import Asked
from phase.node.requests import Checker
from phase.peer.messages import State
from phase.provider import guard, listening
from tests import pages
from tests.phase.node.conftest import CAT, CLIENT, COPY, FLOOD, LOOP, NODE, Start, wasm
from tests.phase.node.gate import Http, http

_EMPTY = hashlib.sha256(b"").hexdigest()
PAGE = (pages.PROJECT / "docs/develop/gateway.md").read_text()


async def test_a_job_by_http_has_output_and_a_receipt_that_holds(start: Start) -> None:
    async with start() as scene, http(scene) as client:
        job = await client.job(wasm(CAT), b"Hello", nonce="n", args=["a"], env={"A": "b"})
        done = await client.call("GET", f"/v1/jobs/{job}?wait=20")
        assert (done.json["state"], done.json["status"]) == ("done", {"kind": "exited", "code": 0})
        assert (await client.call("GET", f"/v1/jobs/{job}/stdout")).body == b"Hello"
        assert (await client.call("GET", f"/v1/jobs/{job}/stderr")).body == b""
        envelope = (await client.call("GET", f"/v1/jobs/{job}/receipt")).body
        assert [each["job"] for each in (await client.call("GET", "/v1/jobs")).json["jobs"]] == [job]
        again = await client.call("POST", "/v1/jobs", {"job": job, "module": done.json["module"]})
        assert (again.status, again.json["reason"]) == (409, "duplicate")
    said = receipts.verify(envelope, key=NODE.public_key, job_id=job, nonce="n", stdout=b"Hello")
    assert (said.args, said.env) == (("a",), {"A": "b"})


async def test_an_answer_may_take_longer_than_a_head(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.3)
    async with start() as scene, http(scene) as client:
        # A body that comes in two parts, with more time between them than a head may take.
        data = os.urandom(1000)
        target = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
        headers = requests.sign(client.identity, "PUT", target, node=NODE.public_key, body=data)

        async def slowly() -> AsyncIterator[bytes]:
            yield data[:500]
            await asyncio.sleep(1)
            yield data[500:]

        sizes = {"Content-Length": str(len(data))}
        async with client.session.put(client.url + target, data=slowly(), headers=headers | sizes) as answer:
            assert answer.status in (200, 201)


async def test_files_go_there_and_back(start: Start) -> None:
    async with start() as scene, http(scene) as client:
        inputs = {"in": await client.put(b"table")}
        job = await client.job(wasm(COPY), inputs=inputs, outputs=["out", "none"])
        done = await client.call("GET", f"/v1/jobs/{job}?wait=20")
        assert done.json["status"] == {"kind": "exited", "code": 0}
        assert (await client.call("GET", f"/v1/jobs/{job}/files/out")).body == b"table"
        missing = await client.call("GET", f"/v1/jobs/{job}/files/none")
        assert (missing.status, missing.json["reason"]) == (404, "no file")
        said = receipts.verify(
            (await client.call("GET", f"/v1/jobs/{job}/receipt")).body, key=NODE.public_key
        )
    assert [each.sha256 for each in said.outputs.values()] == list(inputs.values())


async def test_output_comes_while_the_job_runs_and_a_job_is_cancelled(start: Start) -> None:
    async with start() as scene, http(scene) as client:
        limits = {"output_bytes": 1 << 26, "wall_seconds": 20.0}
        job = await client.job(wasm(FLOOD), limits=limits)
        target = f"/v1/jobs/{job}/stdout"
        headers = requests.sign(CLIENT, "GET", target, node=NODE.public_key)
        async with client.session.get(client.url + target, headers=headers) as answer:
            assert len(await answer.content.readexactly(65_536)) == 65_536
        loop = await client.job(wasm(LOOP))
        assert (await client.call("GET", f"/v1/jobs/{loop}/receipt")).json["reason"] == "not ended"
        assert (await client.call("DELETE", f"/v1/jobs/{loop}")).status == 202
        done = await client.call("GET", f"/v1/jobs/{loop}?wait=20")
        assert done.json["status"] is None or done.json["status"]["kind"] == "killed"


async def test_a_blob_is_sent_once_and_must_be_what_it_is_called(start: Start) -> None:
    async with start() as scene, http(scene) as client:
        sha256 = hashlib.sha256(b"blob").hexdigest()
        target = f"/v1/blobs/{sha256}"
        assert (await client.call("HEAD", target)).status == 404
        assert (await client.call("PUT", target, b"blob")).status == 201
        again = await client.call("PUT", target, b"blob")
        assert (again.status, again.json) == (200, {"sha256": sha256})
        assert (await client.call("HEAD", target)).status == 200
        other = f"/v1/blobs/{'0' * 64}"
        headers = requests.sign(CLIENT, "PUT", other, node=NODE.public_key, body=b"blob")
        assert (await client.send("PUT", other, b"blob", headers)).status == 401
        missing = await client.call("POST", "/v1/jobs", {"job": "x", "module": "1" * 64})
        assert (missing.status, missing.json["reason"]) == (404, "blob missing")


@pytest.mark.parametrize("what", ["Phase-Key", "Phase-Time", "Phase-Nonce", "Phase-Signature"])
async def test_a_request_without_a_whole_signature_is_refused(start: Start, what: str) -> None:
    async with start() as scene, http(scene) as client:
        signed = requests.sign(CLIENT, "GET", "/v1/jobs", node=NODE.public_key)
        for headers in ({k: v for k, v in signed.items() if k != what}, signed | {what: "x"}):
            answer = await client.send("GET", "/v1/jobs", b"", headers)
            assert (answer.status, answer.json["reason"]) == (401, "not authorised")
            assert what in answer.json["detail"]


async def test_a_signature_is_for_one_request_at_one_node_once(start: Start) -> None:
    async with start() as scene, http(scene) as client:
        signed = requests.sign(CLIENT, "GET", "/v1/jobs", node=NODE.public_key)
        assert (await client.send("GET", "/v1/jobs?wait=1", b"", signed)).status == 401
        assert (await client.send("DELETE", "/v1/jobs/x", b"", signed)).status == 401
        assert (await client.send("GET", "/v1/jobs", b"body", signed)).status == 413
        post = requests.sign(CLIENT, "POST", "/v1/jobs", node=NODE.public_key, body=b"{}")
        assert (await client.send("POST", "/v1/jobs", b"{ }", post)).status == 401
        assert (await client.send("GET", "/v1/jobs", b"", signed)).status == 200
        again = await client.send("GET", "/v1/jobs", b"", signed)
        assert (again.status, again.json["detail"]) == (401, "Phase-Nonce was used before")
        forged = requests.sign(Identity.ephemeral(), "GET", "/v1/jobs", node=NODE.public_key)
        forged["Phase-Key"] = CLIENT.public_key
        assert (await client.send("GET", "/v1/jobs", b"", forged)).status == 401
        elsewhere = requests.sign(CLIENT, "GET", "/v1/jobs", node=CLIENT.public_key)
        assert (await client.send("GET", "/v1/jobs", b"", elsewhere)).status == 401


def test_a_request_is_taken_within_the_clocks_difference_only() -> None:
    now = 1_000_000_000.0
    times = iter([now - 1000])
    checker = Checker(NODE.public_key, Admission([CLIENT.public_key]), clock=lambda: next(times, now))
    empty = hashlib.sha256(b"").hexdigest()
    for seconds, good in ((-301, False), (-299, True), (299, True), (301, False)):
        at, nonce = str(int(now + seconds)), os.urandom(16).hex()
        covered = requests.text(
            "GET", "/", node=NODE.public_key, key=CLIENT.public_key, at=at, nonce=nonce, sha256=empty
        )
        headers = {
            "Phase-Key": CLIENT.public_key,
            "Phase-Time": at,
            "Phase-Nonce": nonce,
            "Phase-Signature": CLIENT.sign(covered).hex(),
        }
        if good:
            assert checker.check("GET", "/", headers, empty) == CLIENT.public_key
        else:
            with pytest.raises(requests.UnsignedError):
                checker.check("GET", "/", headers, empty)


def _signed(at: float) -> dict[str, str]:
    """A request of one moment."""
    nonce, said = os.urandom(16).hex(), str(int(at))
    covered = requests.text(
        "GET", "/", node=NODE.public_key, key=CLIENT.public_key, at=said, nonce=nonce, sha256=_EMPTY
    )
    fields = (CLIENT.public_key, said, nonce, CLIENT.sign(covered).hex())
    names = ("Phase-Key", "Phase-Time", "Phase-Nonce", "Phase-Signature")
    return dict(zip(names, fields, strict=True))


def test_what_an_earlier_process_took_is_not_taken_again() -> None:
    """It knew the nonces; this one does not."""
    allowed = Admission([CLIENT.public_key])
    signed = _signed(1_000_000_000)
    earlier = Checker(NODE.public_key, allowed, clock=lambda: 1_000_000_000.0)
    assert earlier.check("GET", "/", signed, _EMPTY) == CLIENT.public_key
    later = Checker(NODE.public_key, allowed, clock=lambda: 1_000_000_010.0)
    with pytest.raises(requests.UnsignedError, match="10 s before this node began"):
        later.check("GET", "/", signed, _EMPTY)


def test_a_client_that_asks_too_often_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "CLIENT_NONCES", 2)
    other = Identity.ephemeral()
    checker = Checker(NODE.public_key, Admission(anyone=True))
    for identity, good in ((CLIENT, 1), (CLIENT, 1), (CLIENT, 0), (other, 1)):
        headers = requests.sign(identity, "GET", "/", node=NODE.public_key)
        if good:
            checker.check("GET", "/", headers, _EMPTY)
        else:
            with pytest.raises(RefusedError, match="quota"):
                checker.check("GET", "/", headers, _EMPTY)


async def test_bodies_under_way_are_bounded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of requests that may not be anybody's, and blobs of a client."""
    monkeypatch.setattr(gateway, "UNPROVEN_BYTES", (1 << 20, 1 << 20))
    monkeypatch.setattr(gateway, "COMING_BYTES", (1 << 20, 1 << 20))
    async with start() as scene, http(scene) as client:
        host, port = client.url.removeprefix("http://").split(":")
        for method, target, size in (
            ("POST", "/v1/jobs", 1 << 20),
            ("PUT", f"/v1/blobs/{'1' * 64}", 1 << 20),
        ):
            signed = requests.sign(CLIENT, method, target, node=NODE.public_key)
            if method == "PUT":
                signed = _blob("1" * 64)
            _, writer = await asyncio.open_connection(host, int(port))
            lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Length: {size}"]
            lines += [f"{name}: {value}" for name, value in signed.items()]
            writer.write("\r\n".join([*lines, "", "x"]).encode())
            await writer.drain()
            await asyncio.sleep(0.2)
            full = await client.call(method, target if method == "POST" else f"/v1/blobs/{_EMPTY}", b"x" * 9)
            if method == "PUT":
                full = await client.send("PUT", f"/v1/blobs/{'2' * 64}", b"x", _blob("2" * 64))
            assert (full.status, full.json["reason"]) == (429, "quota used up")
            writer.close()


def _blob(sha256: str) -> dict[str, str]:
    """A signature for a blob, whatever it is."""
    nonce, at, target = os.urandom(16).hex(), str(int(time.time())), f"/v1/blobs/{sha256}"
    covered = requests.text(
        "PUT", target, node=NODE.public_key, key=CLIENT.public_key, at=at, nonce=nonce, sha256=sha256
    )
    fields = (CLIENT.public_key, at, nonce, CLIENT.sign(covered).hex())
    names = ("Phase-Key", "Phase-Time", "Phase-Nonce", "Phase-Signature")
    return dict(zip(names, fields, strict=True))


async def test_strangers_are_refused_before_their_body_is_read(start: Start) -> None:
    async with start() as scene, http(scene, Identity.ephemeral()) as client:
        sha256 = hashlib.sha256(b"blob").hexdigest()
        target = f"/v1/blobs/{sha256}"
        headers = requests.sign(client.identity, "PUT", target, node=NODE.public_key, body=b"blob")
        host, port = client.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = [f"PUT {target} HTTP/1.1", "Host: x", "Content-Length: 33554432"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 403")
        writer.close()
        assert not scene.daemon.blobs.has(client.identity.public_key, sha256)
        assert (await client.send("GET", "/v1/node", b"", {})).json["node"] == NODE.public_key


async def test_bad_requests_are_problems_that_name_their_reason(start: Start) -> None:
    async with start(queue=0, slots=1, client_jobs=1) as scene, http(scene) as client:
        module = await client.put(wasm(LOOP))
        for body, status, reason in (
            (b"{", 400, "invalid request"),
            (b"x" * (2 << 20), 413, "invalid request"),
            ({"job": "a b", "module": module}, 400, "invalid request"),
            ({"job": "a", "module": module, "more": 1}, 400, "invalid request"),
            ({"job": "a", "module": module, "runtime": "java"}, 501, "runtime not supported"),
            (
                {"job": "a", "module": module, "limits": {"wall_seconds": 9000}},
                503,
                "insufficient resources",
            ),
        ):
            answer = await client.call("POST", "/v1/jobs", body)
            assert (answer.status, answer.json["status"], answer.json["reason"]) == (status, status, reason)
            assert answer.headers["Content-Type"] == "application/problem+json"
        job = await client.job(wasm(LOOP))
        full = await client.call("POST", "/v1/jobs", {"job": "b", "module": module})
        assert (full.status, full.headers["Retry-After"]) == (429, "1")
        assert (await client.call("GET", "/v1/jobs/none")).json["reason"] == "unknown job"
        assert (await client.call("GET", f"/v1/jobs/{job}?wait=x")).status == 400
        assert (await client.call("GET", "/v2")).status == 404
        await client.call("DELETE", f"/v1/jobs/{job}")


def test_a_port_that_is_taken_is_told_in_the_words_of_the_node() -> None:
    [taken] = listening.listen(["127.0.0.1"], 0)
    with taken, pytest.raises(NodeError) as caught:
        _both([f"127.0.0.1:{taken.getsockname()[1]}"])
    assert caught.value.hint == "Is another node running? Choose another --listen."


async def test_browsers_may_call(start: Start) -> None:
    async with start() as scene, http(scene) as client:
        asked = await client.send("OPTIONS", "/v1/jobs", b"", {"Origin": "https://example.org"})
        assert asked.status == 204
        assert "Phase-Signature" in asked.headers["Access-Control-Allow-Headers"]
        assert (await client.send("GET", "/v1/node", b"", {})).headers["Access-Control-Allow-Origin"] == "*"
        assert (await client.send("GET", "/v1/jobs", b"", {})).headers["Access-Control-Allow-Origin"] == "*"


async def test_operators_see_what_goes_on(start: Start) -> None:
    async with start() as scene, http(scene) as client:
        job = await client.job(wasm(CAT))
        await client.call("GET", f"/v1/jobs/{job}?wait=20")
        status = (await client.send("GET", "/status", b"", {})).json
        assert (status["ended"], status["running"], status["problems"]) == ({"done": 1}, 0, [])
        metrics = (await client.send("GET", "/metrics", b"", {})).body.decode()
        assert 'phase_node_jobs_total{state="done"} 1' in metrics
        assert (await client.send("GET", "/health", b"", {})).body == b"ok\n"


async def test_a_body_that_is_named_by_its_hash_is_known_to_be_its_clients_before_it_is_read(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names an allowed key may take the room of the others, and not of this one."""
    monkeypatch.setattr(gateway, "UNPROVEN_BYTES", (0, 0))
    async with start() as scene, http(scene) as client:
        body = json.dumps({"job": "a", "module": await client.put(wasm(CAT))}).encode()
        sha256 = hashlib.sha256(body)
        named = {"Content-Digest": f"sha-256=:{base64.b64encode(sha256.digest()).decode()}:"}

        def signed(what: bytes = body) -> dict[str, str]:
            return requests.sign(CLIENT, "POST", "/v1/jobs", node=NODE.public_key, body=what)

        assert (await client.send("POST", "/v1/jobs", body, signed())).status == 429
        assert (await client.send("POST", "/v1/jobs", body + b" ", signed() | named)).status == 422
        assert (await client.send("POST", "/v1/jobs", body, signed(b"") | named)).status == 401
        wrong = await client.send("POST", "/v1/jobs", body, signed() | {"Content-Digest": "md5=:x:"})
        assert (wrong.status, "Content-Digest" in wrong.json["detail"]) == (401, True)
        assert (await client.send("POST", "/v1/jobs", body, signed() | named)).status == 202


async def test_each_refusal_is_counted_and_the_log_does_not_fill(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "phase.node.refusals")
    async with start() as scene, http(scene) as client:
        for _ in range(20):
            assert (await client.send("GET", "/v1/jobs", b"", {})).status == 401
        other = Http(client.session, client.url, Identity.ephemeral())
        assert (await other.call("GET", "/v1/jobs")).status == 403
        assert (await client.call("GET", "/v1/jobs", b"body")).status == 413
        status = (await client.send("GET", "/status", b"", {})).json
        assert status["refusals"] == {
            "401 not authorised": 20,
            "403 not authorised": 1,
            "413 invalid request": 1,
        }
        metrics = (await client.send("GET", "/metrics", b"", {})).body.decode()
        assert 'phase_node_http_refused_total{reason="401 not authorised"} 20' in metrics
    assert len(caplog.messages) == 3


async def test_a_fault_of_the_node_and_a_wrong_method_are_problems_too(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as scene, http(scene) as client:
        wrong = await client.call("PATCH", "/v1/jobs")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, OPTIONS, POST")
        monkeypatch.setattr(scene.daemon.serving, "jobs", None)
        fault = await client.call("GET", "/v1/jobs")
        assert (fault.status, fault.json["reason"]) == (500, "fault")


def test_the_page_has_every_field_state_and_header() -> None:
    job = json.loads(re.findall(r"### A job\n```json\n(.*?)```", PAGE, re.DOTALL)[0])
    assert set(job) | {"arch", "runtime", "seed", "attempt", "inputs", "outputs"} == set(
        Asked.__struct_fields__
    )
    assert all(f"`{state.value}`" in PAGE for state in State)
    lines = re.findall(r"```\n(phase-request-v1\n.*?)\n```", PAGE, re.DOTALL)[0].split("\n")
    named = dict(zip(("node", "key", "at", "nonce", "sha256"), lines[3:], strict=True))
    assert requests.text("METHOD", "TARGET", **named) == "\n".join(lines).encode()
    assert split_listen("[::]:0") == ("::", 0)
