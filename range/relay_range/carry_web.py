"""A back-connect agent over the web (aiohttp): long polls for jobs, and a WebSocket of its own for each session.

Each WebSocket goes to another of the gateway's names than the one before.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web

from relay_range.carry import LINK_PORT, Ends, at_phone, play, serve_customers, server_tls
from relay_range.journal import Journal

POLL_S: Final = 20.0


@dataclass(slots=True)
class SocketEnds:
    """A WebSocket as reader and writer. over: set when the session is done with it."""

    socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse
    reader: asyncio.StreamReader = field(default_factory=asyncio.StreamReader)
    waiting: list[bytes] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def pump(self) -> None:
        """Feed the reader until the socket ends."""
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.reader.feed_data(message.data)
        self.reader.feed_eof()

    def write(self, data: bytes) -> None:
        """Keep until `drain`."""
        self.waiting.append(data)

    async def drain(self) -> None:
        """Send what waits, as one message."""
        data = b"".join(self.waiting)
        self.waiting.clear()
        if data:
            await self.socket.send_bytes(data)

    def close(self) -> None:
        """The session is done."""
        self.over.set()

    async def until_over(self) -> None:
        """Wait for the session, send the last, and close the socket."""
        await self.over.wait()
        with suppress(OSError):
            await self.drain()
        await self.socket.close()


@dataclass(slots=True)
class Front:
    """The gateway. jobs: sessions not yet told to the phone; waiting: by number, for the phone's socket."""

    jobs: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    waiting: dict[int, asyncio.Future[tuple[SocketEnds, Any]]] = field(default_factory=dict)
    numbers: Callable[[], int] = field(default_factory=lambda: itertools.count(1).__next__)

    async def poll(self, _: web.Request) -> web.Response:
        """The next job, or none after a while."""
        try:
            async with asyncio.timeout(POLL_S):
                return web.json_response({"job": await self.jobs.get()})
        except TimeoutError:
            return web.json_response({})

    async def session(self, request: web.Request) -> web.WebSocketResponse:
        """The phone's WebSocket of one session."""
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        waiting = self.waiting.pop(int(request.match_info["number"]), None)
        if waiting is not None and not waiting.done():
            ends = SocketEnds(socket)
            waiting.set_result((ends, request.get_extra_info("peername")))
            pump = asyncio.ensure_future(ends.pump())
            await ends.until_over()
            pump.cancel()
        return socket

    async def opened(self) -> tuple[Ends, Any]:
        """A session's stream, once the phone dialled for it."""
        number = self.numbers()
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        await self.jobs.put(number)
        async with asyncio.timeout(POLL_S):
            ends, peer = await future
        return (ends.reader, ends), peer


async def gateway(told: dict[str, Any]) -> None:
    """Serve polls, WebSockets and customers."""
    front, app = Front(), web.Application()
    app.router.add_get("/v2/next", front.poll)
    app.router.add_get("/v2/stream/{number}", front.session)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", LINK_PORT, ssl_context=server_tls(told)).start()  # noqa: S104
    await serve_customers(Journal(told["journal"]), front.opened)


async def phone(told: dict[str, Any]) -> None:
    """Poll one name, and dial the others in turn."""
    control, *names = told["gateways"]
    tasks: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, limit=0)) as client:
        for name in itertools.cycle(names):
            job = await _next_job(client, control)
            task = asyncio.ensure_future(_serve(client, f"https://{name}/v2/stream/{job['job']}"))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def _next_job(client: aiohttp.ClientSession, control: str) -> dict[str, Any]:
    while True:
        with suppress(aiohttp.ClientError):
            async with client.get(f"https://{control}/v2/next") as answer:
                if job := await answer.json():
                    return dict(job)
        await asyncio.sleep(0.05)


async def _serve(client: aiohttp.ClientSession, address: str) -> None:
    with suppress(OSError, aiohttp.ClientError):
        async with client.ws_connect(address, compress=0, heartbeat=25) as socket:
            ends = SocketEnds(socket)
            pump, served = asyncio.ensure_future(ends.pump()), asyncio.ensure_future(at_phone((ends.reader, ends)))
            await ends.until_over()
            await served
            pump.cancel()


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], phone=phone, gateway=gateway))
