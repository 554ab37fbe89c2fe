"""The operator's side of the range's own agents: customers come by SOCKS5, sessions go down the agent's links."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import struct
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relay_range.agent import CONTROL_PORT, DATA_PORT, LINK_PORT, TIER_ONE_PORT, evasion_from
from relay_range.evasion import Evasion
from relay_range.framing import Frame, Kind
from relay_range.journal import Journal
from relay_range.links import Bundle, StreamCarrier, WebSocketCarrier, forward, splice

SOCKS_PORT: Final = 1080
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_GRANTED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
_REFUSED: Final = b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00"


async def socks_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
    """The target that a SOCKS5 client asks for (RFC 1928, no authentication, CONNECT)."""
    _, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    writer.write(b"\x05\x00")
    kind = (await reader.readexactly(4))[3]
    if kind == 3:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode("ascii")
    else:
        host = socket.inet_ntoa(await reader.readexactly(4))
    return host, struct.unpack("!H", await reader.readexactly(2))[0]


@dataclass(slots=True)
class Front:
    """Takes customers. waiting: sessions that the agent has not opened yet; links: where the agent dialled from."""

    journal: Journal
    evasion: Evasion
    framing: str
    carrier: str
    seed: int
    bundle: Bundle = field(init=False)
    customers: dict[int, asyncio.StreamWriter] = field(default_factory=dict)
    opened: dict[int, asyncio.Future[bool]] = field(default_factory=dict)
    links: list[Any] = field(default_factory=list)
    sessions: int = 0
    jobs: deque[dict[str, Any]] = field(default_factory=deque)
    tokens: dict[str, asyncio.Future[Stream]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bundle = Bundle(self.evasion, self.framing, self._handle, random.Random(self.seed + 1))

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One of the agent's links."""
        await self._attached(writer.get_extra_info("peername"), StreamCarrier(reader, writer))

    async def web_socket(self, connection: Any) -> None:  # noqa: ANN401 - the library's connection
        """One of the agent's links, as a WebSocket."""
        await self._attached(connection.remote_address, WebSocketCarrier(connection))

    async def _attached(self, peer: Any, carrier: StreamCarrier | WebSocketCarrier) -> None:  # noqa: ANN401
        self.links.append(peer)
        try:
            await self.bundle.attach(carrier)
        finally:
            self.links.remove(peer)

    async def _handle(self, frame: Frame) -> None:
        if (known := self.opened.get(frame.session)) is not None and not known.done():
            known.set_result(frame.kind is Kind.OPENED)
        elif (writer := self.customers.get(frame.session)) is not None:
            with suppress(OSError):
                if frame.kind is Kind.DATA:
                    writer.write(frame.data)
                    await writer.drain()
                else:
                    writer.close()

    async def multiplexed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One customer's session, over the links."""
        with suppress(OSError, asyncio.IncompleteReadError):
            host, port = await socks_request(reader, writer)
            self.sessions += 1
            session, send = self.sessions, self.bundle.send
            self.journal.event("gateway", client=writer.get_extra_info("peername"), links=list(self.links))
            self.opened[session] = asyncio.get_running_loop().create_future()
            self.customers[session] = writer
            await send(Kind.OPEN, session, f"{host}:{port}".encode())
            granted = await self.opened[session]
            writer.write(_GRANTED if granted else _REFUSED)
            if granted:
                await forward(reader, lambda data: send(Kind.DATA, session, data), lambda: send(Kind.CLOSE, session))
        writer.close()

    async def back_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One customer's session, over a data connection that the agent dials for it."""
        with suppress(OSError, asyncio.IncompleteReadError):
            host, port = await socks_request(reader, writer)
            self.sessions += 1
            token = f"{self.seed:08x}{self.sessions:08x}"
            self.tokens[token] = asyncio.get_running_loop().create_future()
            self.jobs.append({"token": token, "host": host, "port": port})
            data = await self.tokens[token]
            peer = data[1].get_extra_info("peername")
            self.journal.event("gateway", client=writer.get_extra_info("peername"), links=[peer])
            writer.write(_GRANTED)
            await splice((reader, writer), data)
        writer.close()

    async def data(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A data connection: its first line is the token."""
        token = (await reader.readline()).decode("ascii", "replace").strip()
        if (known := self.tokens.pop(token, None)) is not None:
            known.set_result((reader, writer))

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A poll for jobs a line."""
        with suppress(OSError):
            while await reader.readline():
                writer.write(json.dumps(list(self.jobs)).encode() + b"\n")
                self.jobs.clear()
                await writer.drain()


async def tier_one(nodes: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Tells an agent the nodes of the second tier."""
    await reader.readline()
    writer.write(json.dumps({"nodes": nodes}).encode() + b"\n")
    await writer.drain()
    writer.close()


async def main(argument: str) -> None:
    """Serve until stopped. argument: JSON with journal, mode, nodes, carrier, framing, evasion, seed, TLS files."""
    told = json.loads(argument)
    journal, any_address = Journal(told["journal"]), "0.0.0.0"  # noqa: S104 - inside a namespace
    front = Front(journal, evasion_from(told["evasion"]), told["framing"], told["carrier"], told["seed"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(told["certificate"], told["key"])
    if told["mode"] == "back-connect":
        await asyncio.start_server(front.control, any_address, CONTROL_PORT)
        await asyncio.start_server(front.data, any_address, DATA_PORT)
        first = lambda reader, writer: tier_one(told["nodes"], reader, writer)  # noqa: E731
        await asyncio.start_server(first, any_address, TIER_ONE_PORT, ssl=tls)
        await asyncio.start_server(front.back_connected, any_address, SOCKS_PORT)
    elif told["carrier"] == "websocket":
        from websockets.asyncio.server import serve

        await serve(front.web_socket, any_address, LINK_PORT, ssl=tls, compression=None, max_size=None)
        await asyncio.start_server(front.multiplexed, any_address, SOCKS_PORT)
    else:
        secured = tls if told["carrier"] == "tls" else None
        await asyncio.start_server(front.link, any_address, LINK_PORT, ssl=secured)
        await asyncio.start_server(front.multiplexed, any_address, SOCKS_PORT)
    Path(told["ready"]).touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
