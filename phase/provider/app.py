"""The provider's HTTP application over a repository directory."""

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from phase.arch import canonical
from phase.errors import PhaseError
from phase.provider import access, guard, ipxe, page
from phase.provider.blobs import no_metadata, send_blob, send_document
from phase.provider.catalog import Blob, Release
from phase.provider.health import Health, Part, announcing
from phase.provider.limits import Limits
from phase.provider.measure import measured
from phase.provider.metrics import Metrics
from phase.provider.problems import cut_off, problem
from phase.provider.status import Advertisement, Status, status
from phase.provider.store import Store
from phase.provider.together import Row, Together

if TYPE_CHECKING:
    # Loaded only where it is wanted.
    from phase.peer.relay import Relay

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)
STORE: web.AppKey[Store] = web.AppKey("store", Store)
ADVERTISEMENT: web.AppKey[Advertisement] = web.AppKey("advertisement", Advertisement)
LIMITS: web.AppKey[Limits] = web.AppKey("limits", Limits)
TOGETHER: web.AppKey[Together] = web.AppKey("together", Together)
HEALTH: web.AppKey[Health] = web.AppKey("health", Health)
#: The artifact of a seed's release that UEFI firmware starts: a unified kernel image.
UKI = "uki"


def make_app(
    repository: Path,
    *,
    channel: str = "stable",
    arch: str | None = None,
    row: Row | None = None,
    relay: "Relay | None" = None,
) -> web.Application:
    """Build the application.

    Args:
        repository: directory with `metadata/` and `blobs/sha256/`; only ever read.
        channel: what `/manifest.json` means.
        arch: what `/manifest.json` means; the only architecture of the channel when left out.
        row: the place of this process among others that serve the same; None if it is alone.
        relay: of peers, on the same port.

    Raises:
        RepositoryError: the directory is not a repository.
    """
    store, metrics = Store(repository), Metrics()
    routes = _Routes(store, metrics, channel, arch, row, relay)
    app = web.Application(middlewares=[_answer], client_max_size=1 << 10)
    app[METRICS], app[STORE], app[ADVERTISEMENT] = metrics, store, routes.advertisement
    app[LIMITS], app[TOGETHER], app[HEALTH] = routes.limits, routes.together, routes.health_
    app.router.add_get("/", routes.root)
    app.router.add_get("/health", routes.health)
    app.router.add_get("/status", routes.status)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/manifest.json", routes.default_manifest)
    app.router.add_get("/metadata/{file}", routes.metadata)
    app.router.add_get("/targets/{path:.+}", routes.target)
    app.router.add_get("/blobs/sha256/{hex}", routes.blob)
    app.router.add_get("/peers/sha256/{hex}", routes.peers)
    if relay is not None:
        app.add_routes(relay.routes())
    app.router.add_get("/{channel}/{arch}/manifest.json", routes.manifest)
    app.router.add_get("/{channel}/{arch}/boot.ipxe", routes.ipxe)
    app.router.add_get("/{channel}/{arch}/boot.efi", routes.efi)
    app.router.add_get("/{channel}/{arch}/{artifact}", routes.artifact)
    return app


class _Routes:
    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        channel: str,
        arch: str | None,
        row: Row | None,
        relay: "Relay | None",
    ) -> None:
        self._store = store
        self._relay = relay
        self._channel = channel
        self._arch = arch
        self.advertisement = Advertisement()
        self.limits = Limits(row=row)
        metrics.refused = self.limits.refused
        self.health_ = Health()
        self.health_.add(
            store.problems,
            lambda: announcing(Part.MDNS, self.advertisement),
            lambda: announcing(Part.DHT, self.advertisement.dht),
        )
        self.together = Together(row, metrics, self.advertisement, store, self.health_)

    async def root(self, request: web.Request) -> web.StreamResponse:
        found = self._status()
        if "text/html" in request.headers.get("Accept", ""):
            return web.Response(
                text=page.render(found),
                content_type="text/html",
                headers={
                    "Vary": "Accept",
                    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
                    "X-Content-Type-Options": "nosniff",
                },
            )
        answer = _json(found)
        answer.headers["Vary"] = "Accept"
        return answer

    async def health(self, request: web.Request) -> web.StreamResponse:
        self._store.current()
        problems = self.together.problems()
        answer = _json(
            {
                "status": "degraded" if problems else "ok",
                "problem": problems[0].text if problems else "",
                "problems": problems,
                "warnings": self._store.warnings(),
            }
        )
        if problems and "strict" in request.query:
            answer.set_status(503)
        return answer

    async def status(self, request: web.Request) -> web.StreamResponse:
        return _json(self._status())

    def _status(self) -> Status:
        return status(
            self._store,
            *self.together.all(),
            now=time.time(),
            problems=self.together.problems(),
            workers=self.together.workers(),
        )

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        more = self._relay.metrics() if self._relay is not None else {}
        text = measured(self._store, self.together, now=time.time(), more=more)
        # content_type may not carry the version the format asks for, the header may.
        return web.Response(
            body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def default_manifest(self, request: web.Request) -> web.StreamResponse:
        found = [
            release
            for (channel, arch), release in self._store.current().releases.items()
            if channel == self._channel and self._arch in (None, arch)
        ]
        if len(found) != 1:
            return problem(404, f"{len(found)} releases answer to this; name one: {self._offered()}")
        return send_document(request, found[0].manifest, content_type="application/json")

    async def metadata(self, request: web.Request) -> web.StreamResponse:
        document = self._store.current().metadata.get(request.match_info["file"])
        if document is None:
            return no_metadata()
        return send_document(request, document, content_type="application/json")

    async def target(self, request: web.Request) -> web.StreamResponse:
        blob = self._store.target(request.match_info["path"])
        if blob is None:
            return problem(404, "no release names this target")
        # Only a path with the hash in it always means the same bytes.
        fixed = blob.sha256 in request.match_info["path"]
        return await self._send(request, blob, immutable=fixed)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["hex"]
        lengths = self._store.lengths(digest)
        if lengths is None:
            return problem(404, "no release here names this blob")
        return await send_blob(request, self._store, digest, lengths, immutable=True)

    async def peers(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["hex"]
        if self._store.lengths(digest) is None:
            return problem(404, "no release here names this blob")
        address = request.transport.get_extra_info("peername") if request.transport else None
        found = self.together.peers.ask(digest, address, request.query.get("port", ""))
        # Lines: a seed that boots has not loaded the decoder of everything else here.
        text = "".join(f"{each}\n" for each in found)
        return web.Response(text=text, headers={"Cache-Control": "no-store"})

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        release = self._release(request)
        if release is None:
            return self._no_release()
        return send_document(request, release.manifest, content_type="application/json")

    async def artifact(self, request: web.Request) -> web.StreamResponse:
        release = self._release(request)
        if release is None:
            return self._no_release()
        blob = release.artifacts.get(request.match_info["artifact"])
        if blob is None:
            return problem(404, f"the release has no such artifact, but {', '.join(release.artifacts)}")
        return await self._send(request, blob)

    async def ipxe(self, request: web.Request) -> web.StreamResponse:
        release = self._release(request)
        if release is None:
            return self._no_release()
        return ipxe.script(request, release)

    async def efi(self, request: web.Request) -> web.StreamResponse:
        release = self._release(request)
        if release is None:
            return self._no_release()
        blob = release.artifacts.get(UKI)
        if blob is None:
            has = ", ".join(release.artifacts)
            return problem(404, f"UEFI starts one file, the artifact {UKI!r}; this release has {has}")
        # Firmware goes by the type where the name says nothing.
        return await self._send(request, blob, content_type="application/efi")

    async def _send(
        self,
        request: web.Request,
        blob: Blob,
        *,
        immutable: bool = False,
        content_type: str = "application/octet-stream",
    ) -> web.StreamResponse:
        return await send_blob(
            request,
            self._store,
            blob.sha256,
            (blob.length,),
            immutable=immutable,
            content_type=content_type,
        )

    def _release(self, request: web.Request) -> Release | None:
        try:
            arch = canonical(request.match_info["arch"])
        except PhaseError:
            return None
        return self._store.current().releases.get((request.match_info["channel"], arch))

    def _no_release(self) -> web.Response:
        return problem(404, f"there is no such release here; offered: {self._offered()}")

    def _offered(self) -> str:
        return ", ".join("/".join(key) for key in self._store.current().releases) or "none"


@web.middleware
async def _answer(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Count the request, inform the connection's guard, and answer every error with a problem."""
    metrics = request.app[METRICS]
    watched = guard.of(request)
    if watched is not None:
        watched.request_started()
    metrics.active += 1
    begun = time.monotonic()
    length = 0
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    code = 499  # the reader left, or the provider stops; nginx introduced this number
    try:
        response = await _respond(request, handler)
        code = response.status
        if request.method != "HEAD" and code != 499:
            length = response.content_length or 0
            metrics.bytes_sent[route] += length
        return response
    finally:
        metrics.active -= 1
        metrics.requests[route, code] += 1
        access.note(request, code, length, time.monotonic() - begun)
        if watched is not None:
            watched.request_done()


async def _respond(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = problem(error.status, error.reason)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except (ConnectionError, TimeoutError):
        return cut_off(request)
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        return problem(500, "the provider failed; its log says why")


def _json(value: object) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
