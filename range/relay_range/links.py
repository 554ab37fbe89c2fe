"""The multiplexed links of the range's own agent and gateway, with evasion applied to all that is sent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from relay_range.evasion import Evasion
from relay_range.framing import CODECS, Codec, Frame, FramingError, Kind, Sequencer, pack, unpack

READ: Final = 32 * 1024
KEEP_ALIVE_S: Final = 30.0
_QUEUE: Final = 128
_CHUNK: Final = (200, 4000)
_LARGEST_BATCH: Final = 256 * 1024


class Carrier(Protocol):
    """What moves bytes: a TCP or TLS stream, or a WebSocket."""

    async def send(self, content: bytes) -> None:
        """Send, waiting while the other side is slow."""
        ...

    def received(self) -> AsyncIterator[bytes]:
        """What comes, until the end."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


@dataclass(slots=True)
class StreamCarrier:
    """A TCP or TLS connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, content: bytes) -> None:
        """As Carrier.send."""
        self.writer.write(content)
        await self.writer.drain()

    async def received(self) -> AsyncIterator[bytes]:
        """As Carrier.received."""
        while content := await self.reader.read(1 << 16):
            yield content

    async def close(self) -> None:
        """As Carrier.close."""
        self.writer.close()


@dataclass(slots=True)
class WebSocketCarrier:
    """A connection of the `websockets` library."""

    socket: Any

    async def send(self, content: bytes) -> None:
        """As Carrier.send."""
        await self.socket.send(content)

    async def received(self) -> AsyncIterator[bytes]:
        """As Carrier.received."""
        async for message in self.socket:
            yield message if isinstance(message, bytes) else message.encode()

    async def close(self) -> None:
        """As Carrier.close."""
        await self.socket.close()


@dataclass(slots=True)
class Lane:
    """One link: its carrier, its codec, and what waits to be sent on it."""

    carrier: Carrier
    codec: Codec
    waiting: asyncio.Queue[tuple[float, Frame]] = field(default_factory=lambda: asyncio.Queue(_QUEUE))
    last_due: float = 0.0


@dataclass(slots=True)
class Bundle:
    """One end of an agent's links. handle: called with each frame, in its session's order."""

    evasion: Evasion
    framing: str
    handle: Callable[[Frame], Awaitable[None]]
    chance: random.Random
    lanes: list[Lane] = field(default_factory=list)
    delays: dict[int, float] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    order: dict[int, Sequencer] = field(default_factory=dict)

    async def attach(self, carrier: Carrier) -> None:
        """Use a further link until it ends."""
        lane = Lane(carrier, CODECS[self.framing]())
        self.lanes.append(lane)
        duties = [self._pump(lane), self._keep_alive(lane)]
        if self.evasion.chaff_bytes_s:
            duties.append(self._chaff(lane))
        tasks = [asyncio.ensure_future(duty) for duty in duties]
        try:
            async for content in carrier.received():
                for frame in lane.codec.feed(content):
                    await self._take(frame)
        except (OSError, FramingError, asyncio.IncompleteReadError):
            return
        finally:
            self.lanes.remove(lane)
            for task in tasks:
                task.cancel()

    async def send(self, kind: Kind, session: int, data: bytes = b"") -> None:
        """Send one session's event; waits while the links are slow."""
        for part in self._cut(data) if kind is Kind.DATA and self.evasion.rechunk else (data,):
            number = self.numbers.get(session, 0)
            self.numbers[session] = number + 1
            await self._queue(Frame(kind, session, number, part))

    def _cut(self, data: bytes) -> list[bytes]:
        parts, at = [], 0
        while at < len(data):
            size = self.chance.randint(*_CHUNK)
            parts.append(data[at : at + size])
            at += size
        return parts

    async def _queue(self, frame: Frame) -> None:
        if not self.lanes:
            return
        lane = self.chance.choice(self.lanes)
        if frame.session not in self.delays:
            self.delays[frame.session] = self.chance.uniform(*self.evasion.delay_s)
        jitter = self.chance.expovariate(1 / self.evasion.jitter_s) if self.evasion.jitter_s else 0.0
        due = asyncio.get_running_loop().time() + self.delays[frame.session] + jitter
        lane.last_due = max(lane.last_due, due)
        await lane.waiting.put((lane.last_due if jitter else due, frame))

    async def _pump(self, lane: Lane) -> None:
        """Send what is due, alone or in batches."""
        while True:
            batch = [await self._due(lane)]
            if self.evasion.batch_s[1]:
                await asyncio.sleep(self.chance.uniform(*self.evasion.batch_s))
                size = 0
                while not lane.waiting.empty() and size < _LARGEST_BATCH:
                    batch.append(await self._due(lane))
                    size += len(batch[-1].data)
            if self.evasion.compress:
                batch = [pack(batch)]
            await lane.carrier.send(b"".join(lane.codec.encode(frame, self._padding(frame)) for frame in batch))

    async def _due(self, lane: Lane) -> Frame:
        due, frame = await lane.waiting.get()
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        return frame

    def _padding(self, frame: Frame) -> int:
        return min(int(len(frame.data) * self.chance.uniform(0, self.evasion.padding)), 65_535)

    async def _keep_alive(self, lane: Lane) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            await lane.waiting.put((0.0, Frame(Kind.PING)))

    async def _chaff(self, lane: Lane) -> None:
        while True:
            pause = self.chance.expovariate(1.0)
            await asyncio.sleep(pause)
            if lane.waiting.empty():
                size = int(self.evasion.chaff_bytes_s * pause * self.chance.uniform(0.3, 2.0))
                await lane.waiting.put((0.0, Frame(Kind.CHAFF, data=self.chance.randbytes(min(size, 60_000)))))

    async def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.PACK:
            for inner in unpack(frame):
                await self._take(inner)
        elif frame.kind not in (Kind.PING, Kind.CHAFF):
            for ready in self.order.setdefault(frame.session, Sequencer()).add(frame):
                await self.handle(ready)


async def forward(
    reader: asyncio.StreamReader, send: Callable[[bytes], Awaitable[None]], close: Callable[[], Awaitable[None]]
) -> None:
    """Send on what a stream gives, then say that it ended."""
    try:
        while content := await reader.read(READ):
            await send(content)
    except OSError:
        pass
    await close()


async def splice(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Carry bytes between two streams, both ways, until both ended."""

    async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while content := await reader.read(READ):
                writer.write(content)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    await asyncio.gather(one_way(one[0], other[1]), one_way(other[0], one[1]))
