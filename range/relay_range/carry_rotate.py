"""A reverse agent that moves: WebSockets (websockets, with deflate) to one gateway after the other.

Two links at a time. A link takes new sessions for some seconds, is then retired, and closes when its last session ends.
A message is a kind, a session's number, and bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import WebSocketException

from relay_range.agent import trusting
from relay_range.carry import LINK_PORT, Ends, at_phone, play, serve_customers, server_tls
from relay_range.journal import Journal

SLOTS: Final = 2
LIFE_S: Final = (12.0, 25.0)
LONGEST_S: Final = 60.0
_HEAD: Final = struct.Struct("!BI")
_OPEN, _DATA, _END, _RETIRE = range(4)


@dataclass(slots=True)
class Channel:
    """One session on a link; it is forgotten when both sides have ended it."""

    number: int
    link: Link
    reader: asyncio.StreamReader = field(default_factory=asyncio.StreamReader)
    closed: bool = False
    ended: bool = False

    def write(self, data: bytes) -> None:
        """Queue a message."""
        self.link.put(_DATA, self.number, data)

    async def drain(self) -> None:
        """Wait until the link sent what was queued."""
        await self.link.queue.join()

    def close(self) -> None:
        """Tell the other side that nothing follows."""
        if not self.closed:
            self.closed = True
            self.link.put(_END, self.number)
            self.link.forget(self)


@dataclass(slots=True)
class Link:
    """One WebSocket. accept: called with each session that the other side opens; retired: takes no new ones."""

    socket: Any
    accept: Callable[[Channel], None]
    channels: dict[int, Channel] = field(default_factory=dict)
    queue: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    retired: bool = False

    def put(self, kind: int, number: int, data: bytes = b"") -> None:
        """Queue one message."""
        self.queue.put_nowait(_HEAD.pack(kind, number) + data)

    async def run(self) -> None:
        """Handle what comes until the socket closes."""
        pump = asyncio.ensure_future(self._pump())
        try:
            async for message in self.socket:
                kind, number = _HEAD.unpack(message[: _HEAD.size])
                self.handle(kind, number, message[_HEAD.size :])
        finally:
            pump.cancel()
            for channel in self.channels.values():
                channel.reader.feed_eof()

    def handle(self, kind: int, number: int, data: bytes) -> None:
        """One message."""
        if kind == _RETIRE:
            self.retired = True
        elif kind == _OPEN:
            channel = self.channels[number] = Channel(number, self)
            self.accept(channel)
        elif (known := self.channels.get(number)) is not None:
            if kind == _DATA:
                known.reader.feed_data(data)
            else:
                known.ended = True
                known.reader.feed_eof()
                self.forget(known)

    def forget(self, channel: Channel) -> None:
        """Drop a session that both sides ended."""
        if channel.closed and channel.ended:
            self.channels.pop(channel.number, None)

    async def _pump(self) -> None:
        while True:
            message = await self.queue.get()
            with suppress(WebSocketException):
                await self.socket.send(message)
            self.queue.task_done()


async def gateway(told: dict[str, Any]) -> None:
    """Take links, then customers, each on a link that is not retired."""
    links: list[Link] = []
    chance, numbers = random.Random(told["seed"]), itertools.count(1)

    async def taken(socket: Any) -> None:  # noqa: ANN401 - the library's connection
        link = Link(socket, lambda channel: channel.close())
        links.append(link)
        try:
            await link.run()
        finally:
            links.remove(link)

    async def opened() -> tuple[Ends, Any]:
        if not (fresh := [link for link in links if not link.retired]):
            raise ConnectionError("no phone")
        link, number = chance.choice(fresh), next(numbers)
        channel = link.channels[number] = Channel(number, link)
        link.put(_OPEN, number)
        return (channel.reader, channel), link.socket.remote_address

    await serve(taken, "0.0.0.0", LINK_PORT, ssl=server_tls(told), max_size=None)  # noqa: S104
    await serve_customers(Journal(told["journal"]), opened)


async def phone(told: dict[str, Any]) -> None:
    """Keep the slots filled, each with a link to another gateway than before."""
    chance, names = random.Random(told["seed"]), itertools.cycle(told["gateways"])
    tasks: set[asyncio.Task[None]] = set()

    def kept(task: asyncio.Task[None]) -> None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def slot() -> None:
        while True:
            life = chance.uniform(*LIFE_S)
            kept(asyncio.ensure_future(_link(next(names), life, kept)))
            await asyncio.sleep(life)

    await asyncio.gather(*(slot() for _ in range(SLOTS)))


async def _link(name: str, life: float, kept: Callable[[asyncio.Task[None]], None]) -> None:
    with suppress(OSError, WebSocketException):
        async with connect(f"wss://{name}:{LINK_PORT}/feed", ssl=trusting(), max_size=None, proxy=None) as socket:

            def accept(channel: Channel) -> None:
                kept(asyncio.ensure_future(at_phone((channel.reader, channel))))

            link = Link(socket, accept)
            running = asyncio.ensure_future(link.run())
            await asyncio.wait([running], timeout=life)
            link.put(_RETIRE, 0)
            for _ in range(int(LONGEST_S)):
                if running.done() or not link.channels:
                    break
                await asyncio.sleep(1)
            running.cancel()


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], phone=phone, gateway=gateway))
