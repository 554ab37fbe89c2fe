"""Telemetry by HTTP: POST /v1/ingest, acknowledged once it is on disk; /healthz and /metrics."""

from __future__ import annotations

import asyncio
import hmac
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from relaywatch.live.addresses import Address
from relaywatch.live.channels import ARROW, Channel, TooLargeError, UnknownFormatError, unpacked
from relaywatch.live.figures import Figures
from relaywatch.live.inbox import Inbox
from relaywatch.live.positions import MOST, Positions
from relaywatch.live.taking import LiveError, Taken
from relaywatch.model.errors import SourceError

BODY_BYTES: Final = 32 << 20
HEAD_S: Final = 10.0
"""A connection on which no request has begun by then is closed, at the latest after twice as long."""
BODY_S: Final = 60.0
"""A body that has not come by then is given up."""
CONNECTIONS: Final = 64
SOURCES: Final = 10_000
STALE_S: Final = 60.0
"""Without a judging for so long, the engine is not well."""
_SOURCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_DECODERS: Final = 2
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is not taken: status and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Impatient(H11Protocol):
    """A connection that is closed where no whole request head comes in time; uvicorn itself would wait for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look at the clock."""
        super().connection_made(transport)
        self._look_again(None)

    def _look_again(self, before: object) -> None:
        self.loop.call_later(HEAD_S, self._look, before)

    def _look(self, before: object) -> None:
        """Close where the connection has waited for a request since the last look."""
        waits = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing():
            return
        if waits and self.cycle is before:
            self.transport.close()
        else:
            self._look_again(self.cycle)


class HttpInput:
    """One listening address."""

    ended = False

    def __init__(self, address: Address, device: str, latest: Callable[[], Figures]) -> None:
        """latest: the engine's figures, for /metrics. Raises LiveError where others could send without a token."""
        if address.host not in _LOCAL and not address.token:
            raise LiveError(f"{address.host} can be reached by others: give --http-token-file, or listen on 127.0.0.1.")
        self._address, self._device, self._latest = address, device, latest
        self._lock = threading.Lock()
        self._channels: dict[str, Channel] = {}
        self._keys: dict[str, None] = {}
        self._coming: set[str] = set()
        self.port = address.port
        self.counts = {"refused": 0, "repeated": 0}

    def start(self, inbox: Inbox, positions: Positions) -> None:
        """Listen. Raises LiveError where the address cannot be had."""
        self._inbox = inbox
        self._channels = {name: Channel(f"http/{name}", held["lines"]) for name, held in positions.of("http")}
        self._keys = dict.fromkeys(key for key, _ in positions.of("http-key"))
        family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._address.host, self._address.port))
            listening.listen(CONNECTIONS)
        except OSError as fault:
            listening.close()
            where = f"{self._address.host}:{self._address.port}"
            raise LiveError(f"{where}: cannot listen: {fault.strerror}. Choose another port.") from fault
        self.port = listening.getsockname()[1]
        self._decoders = ThreadPoolExecutor(_DECODERS)
        config = uvicorn.Config(
            self._application(),
            http=Impatient,
            log_level="error",
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer what is at hand and close."""
        self._server.should_exit = True
        self._thread.join(10)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/ingest", self._ingest, methods=["POST"]),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics),
            ]
        )

    async def _health(self, _: Request) -> Response:
        age = time.monotonic() - self._latest().at
        well = age < STALE_S
        return PlainTextResponse("ok\n" if well else f"no judging for {age:.0f} s\n", 200 if well else 503)

    async def _metrics(self, request: Request) -> Response:
        if not self._trusted(request):
            return _answer(401, "no valid token")
        own = "".join(
            f"# TYPE relaywatch_http_{name}_total counter\nrelaywatch_http_{name}_total {count}\n"
            for name, count in self.counts.items()
        )
        return PlainTextResponse(self._latest().prometheus() + own, media_type="text/plain; version=0.0.4")

    def _trusted(self, request: Request) -> bool:
        shown = request.headers.get("authorization", "")
        return not self._address.token or hmac.compare_digest(
            shown.encode("latin-1", "replace"), f"Bearer {self._address.token}".encode()
        )

    async def _ingest(self, request: Request) -> Response:
        try:
            key, source, size = _asked(request, trusted=self._trusted(request))
            async with self._once(key) as fresh:
                if not fresh:
                    self.counts["repeated"] += 1
                    return JSONResponse({"repeated": True})
                return await self._taken(request, key, source, size)
        except Refused as refusal:
            self.counts["refused"] += 1
            return _answer(refusal.status, str(refusal))
        except ClientDisconnect:
            return Response(status_code=400)

    @asynccontextmanager
    async def _once(self, key: str) -> AsyncIterator[bool]:
        """Whether the key is new. Two requests of one key at a time are not taken."""
        if not key:
            yield True
            return
        if key in self._coming:
            raise Refused(409, "a request with this Idempotency-Key is being taken; try again")
        self._coming.add(key)
        try:
            yield key not in self._keys
        finally:
            self._coming.discard(key)

    async def _taken(self, request: Request, key: str, source: str, size: int) -> Response:
        """Take one body in, and wait until it is on disk."""
        if not self._inbox.reserve(size):
            raise Refused(503, "the queue is full; try again")
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[bool] = loop.create_future()

        def done(on_disk: bool) -> None:  # noqa: FBT001 - a callback's one argument
            loop.call_soon_threadsafe(_settle, kept, on_disk)

        try:
            body = await _body(request)
            told = await loop.run_in_executor(self._decoders, self._put, body, key, source, done)
        except RuntimeError as fault:  # the decoders are gone: the watcher ends
            raise Refused(503, "the watcher stops; try again") from fault
        finally:
            self._inbox.release(size)
        if told is None or not await kept:
            raise Refused(503, "the watcher stops; try again")
        if key:
            self._keys[key] = None
            if len(self._keys) > MOST:
                del self._keys[next(iter(self._keys))]
        return JSONResponse(told)

    def _put(self, body: bytes, key: str, source: str, done: Callable[[bool], None]) -> dict[str, Any] | None:
        """Decode a body and hand it over; what it held. None: the engine takes no more."""
        name = f"http/{source}"
        try:
            content = unpacked(body, name)
            with self._lock:
                channel = self._channels.setdefault(source, Channel(name))
                if len(self._channels) > SOURCES:
                    del self._channels[source]
                    raise Refused(400, f"more than {SOURCES} source names")
                form = channel.format_of(content)
                first = channel.number(content) if form != ARROW else 1
            found = channel.rows(form, content, first, self._device)
        except TooLargeError as fault:
            raise Refused(413, str(fault)) from fault
        except UnknownFormatError as fault:
            raise Refused(415, str(fault)) from fault
        except SourceError as fault:
            raise Refused(400, str(fault)) from fault
        with self._lock:  # so that positions reach the spool in the order in which lines were numbered
            moved: dict[str, dict[str, int]] = {f"http:{source}": {"lines": channel.lines}}
            if key:
                moved[f"http-key:{key}"] = {}
            if not self._inbox.add(Taken(found.batches, moved, found.aside, found.aside_total, form, done)):
                return None
        rows: dict[str, int] = {}
        for batch in found.batches:
            rows[batch.table] = rows.get(batch.table, 0) + batch.rows.num_rows
        return {"format": form, "rows": rows, "aside": found.aside_total}


def _asked(request: Request, *, trusted: bool) -> tuple[str, str, int]:
    """Idempotency key (empty: none), source name, and the bytes that the body has or may have."""
    if not trusted:
        raise Refused(401, "no valid token")
    key = request.headers.get("idempotency-key", "")
    source = request.query_params.get("source", "default")
    if key and not _KEY.fullmatch(key):
        raise Refused(400, "an Idempotency-Key is up to 200 visible ASCII characters")
    if not _SOURCE.fullmatch(source):
        raise Refused(400, "a source is up to 100 letters, digits and . _ : -")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > BODY_BYTES:
        raise Refused(413, f"a body of more than {BODY_BYTES} bytes; send it in parts")
    return key, source, int(length) if length.isdecimal() else BODY_BYTES


async def _body(request: Request) -> bytes:
    held = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                held += part
                if len(held) > BODY_BYTES:
                    raise Refused(413, f"a body of more than {BODY_BYTES} bytes; send it in parts")
    except TimeoutError as fault:
        raise Refused(408, f"the body did not come within {BODY_S:.0f} s") from fault
    if not held:
        raise Refused(400, "an empty body")
    return bytes(held)


def _settle(kept: asyncio.Future[bool], on_disk: bool) -> None:  # noqa: FBT001
    if not kept.done():
        kept.set_result(on_disk)


def _answer(status: int, reason: str) -> Response:
    headers = {"Retry-After": "1"} if status in (409, 503) else {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"error": reason}, status, headers)
