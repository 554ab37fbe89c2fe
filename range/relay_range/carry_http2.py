"""A reverse agent over HTTP/2 (h2): the phone dials by TLS and then is the server; each session is a CONNECT.

Source: RFC 9113, sections 5.2 (flow control) and 8.5 (CONNECT).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from relay_range.agent import trusting
from relay_range.carry import LINK_PORT, Ends, at_phone, play, serve_customers, server_tls
from relay_range.journal import Journal

KEEP_ALIVE_S: Final = 15.0


@dataclass(slots=True)
class Pipe:
    """One stream. waiting: bytes that the other side's window has no room for yet; it is forgotten when both ended."""

    number: int
    connection: Connection
    reader: asyncio.StreamReader = field(default_factory=asyncio.StreamReader)
    waiting: bytearray = field(default_factory=bytearray)
    closed: bool = False
    said: bool = False
    ended: bool = False

    def write(self, data: bytes) -> None:
        """Send as much as the window allows."""
        self.waiting += data
        self.connection.push(self)

    async def drain(self) -> None:
        """Wait until all was sent."""
        while self.waiting and not self.connection.over.is_set():
            self.connection.room.clear()
            await self.connection.room.wait()
        await self.connection.writer.drain()

    def close(self) -> None:
        """End the stream once all was sent."""
        self.closed = True
        self.connection.push(self)


@dataclass(slots=True)
class Connection:
    """One HTTP/2 connection as many pipes. accept: called with each stream that the other side opens."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: H2Connection
    accept: Callable[[Pipe], None]
    pipes: dict[int, Pipe] = field(default_factory=dict)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Handle what comes until the connection ends."""
        self.protocol.initiate_connection()
        self.flush()
        with suppress(OSError, ProtocolError):
            while data := await self.reader.read(1 << 16):
                for event in self.protocol.receive_data(data):
                    self.handle(event)
                for pipe in list(self.pipes.values()):
                    self.push(pipe)
                self.flush()
                self.room.set()
        self.over.set()
        self.room.set()
        for pipe in self.pipes.values():
            pipe.reader.feed_eof()

    def handle(self, event: events.Event) -> None:
        """One event of the protocol."""
        if isinstance(event, events.RequestReceived):
            pipe = self.pipes[event.stream_id] = Pipe(event.stream_id, self)
            self.protocol.send_headers(event.stream_id, [(":status", "200")])
            self.accept(pipe)
        elif isinstance(event, events.DataReceived):
            if (known := self.pipes.get(event.stream_id)) is not None:
                known.reader.feed_data(event.data)
            self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.StreamEnded | events.StreamReset) and event.stream_id in self.pipes:
            self.pipes[event.stream_id].ended = True
            self.pipes[event.stream_id].reader.feed_eof()

    def push(self, pipe: Pipe) -> None:
        """Send what fits of a stream, and its end where it is closed."""
        with suppress(ProtocolError):
            while pipe.waiting:
                size = min(
                    self.protocol.local_flow_control_window(pipe.number),
                    self.protocol.max_outbound_frame_size,
                    len(pipe.waiting),
                )
                if size <= 0:
                    break
                self.protocol.send_data(pipe.number, bytes(pipe.waiting[:size]))
                del pipe.waiting[:size]
            if pipe.closed and not pipe.waiting and not pipe.said:
                pipe.said = True
                self.protocol.end_stream(pipe.number)
        if pipe.said and pipe.ended:
            self.pipes.pop(pipe.number, None)
        self.flush()

    def open(self) -> Pipe:
        """A new stream to the other side."""
        pipe = Pipe(self.protocol.get_next_available_stream_id(), self)
        self.pipes[pipe.number] = pipe
        self.protocol.send_headers(pipe.number, [(":method", "CONNECT"), (":authority", "session:1")])
        self.flush()
        return pipe

    def flush(self) -> None:
        """Give the transport what the protocol has for it."""
        if data := self.protocol.data_to_send():
            self.writer.write(data)


async def gateway(told: dict[str, Any]) -> None:
    """Take the phone's connection and be its client, then take customers."""
    links: list[Connection] = []

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        connection = Connection(reader, writer, protocol, lambda pipe: pipe.close())
        links.append(connection)
        try:
            await connection.run()
        finally:
            links.remove(connection)

    async def opened() -> tuple[Ends, Any]:
        if not links:
            raise ConnectionError("no phone")
        pipe = links[-1].open()
        return (pipe.reader, pipe), links[-1].writer.get_extra_info("peername")

    await asyncio.start_server(link, "0.0.0.0", LINK_PORT, ssl=server_tls(told, "h2"))  # noqa: S104
    await serve_customers(Journal(told["journal"]), opened)


async def phone(told: dict[str, Any]) -> None:
    """Dial the gateway and be its server until the connection ends."""
    tls, name = trusting(), told["gateways"][0]
    tls.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(name, LINK_PORT, ssl=tls, server_hostname=name)
    tasks: set[asyncio.Task[None]] = set()

    def served(pipe: Pipe) -> None:
        task = asyncio.ensure_future(at_phone((pipe.reader, pipe)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    protocol = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection = Connection(reader, writer, protocol, served)
    pings = asyncio.ensure_future(_ping(connection))
    try:
        await connection.run()
    finally:
        pings.cancel()
        writer.close()


async def _ping(connection: Connection) -> None:
    while True:
        await asyncio.sleep(KEEP_ALIVE_S)
        connection.protocol.ping(b"\x00" * 8)
        connection.flush()


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], phone=phone, gateway=gateway))
