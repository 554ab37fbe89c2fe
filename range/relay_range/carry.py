"""What the hold-out's reverse agents share: a stream a session, whose first line names the target."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from relay_range.gateway import SOCKS_PORT, socks_request
from relay_range.journal import Journal

LINK_PORT: Final = 443
DIAL_S: Final = 20.0
REDIAL_S: Final = 3.0
LARGEST_READ: Final = 1 << 16
_GRANTED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
_REFUSED: Final = b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"


class Readable(Protocol):
    """The reading end of a session, whatever carries it."""

    async def read(self, n: int, /) -> bytes:
        """Up to `n` bytes; none at the end."""
        ...

    async def readline(self) -> bytes:
        """Bytes up to a line's end."""
        ...

    async def readexactly(self, n: int, /) -> bytes:
        """`n` bytes, or IncompleteReadError."""
        ...


class Writable(Protocol):
    """The writing end of a session, whatever carries it."""

    def write(self, data: bytes, /) -> None:
        """Send, now or soon."""
        ...

    async def drain(self) -> None:
        """Wait while the other side is slow."""
        ...

    def close(self) -> None:
        """Say that nothing follows."""
        ...


Ends = tuple[Readable, Writable]
Opener = Callable[[], Awaitable[tuple[Ends, Any]]]
"""Opens a stream to the phone; gives it, and the address that the phone's link came from."""


async def dial(host: str, port: int) -> Ends:
    """Connect to a target; raises OSError."""
    async with asyncio.timeout(DIAL_S):
        return await asyncio.open_connection(host, port)


async def join(one: Ends, other: Ends) -> None:
    """Carry bytes between two sessions until both ended."""

    async def one_way(reader: Readable, writer: Writable) -> None:
        with suppress(OSError, EOFError):
            while content := await reader.read(LARGEST_READ):
                writer.write(content)
                await writer.drain()
        writer.close()

    await asyncio.gather(one_way(one[0], other[1]), one_way(other[0], one[1]))


async def at_phone(stream: Ends) -> None:
    """Serve one stream on the phone: its first line is host and port; a byte says whether the target answered."""
    with suppress(OSError, EOFError, ValueError):
        host, _, port = (await stream[0].readline()).decode("ascii").strip().rpartition(":")
        try:
            target = await dial(host, int(port))
        except OSError:
            stream[1].write(b"\x00")
            stream[1].close()
            return
        stream[1].write(b"\x01")
        await stream[1].drain()
        await join(stream, target)


async def serve_customers(journal: Journal, opened: Opener) -> asyncio.Server:
    """Take customers by SOCKS5 at the gateway and send each down a stream of its own."""

    async def customer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            host, port = await socks_request(reader, writer)
            stream, link = await opened()
            journal.event("gateway", client=writer.get_extra_info("peername"), links=[link])
            stream[1].write(f"{host}:{port}\n".encode())
            await stream[1].drain()
            granted = await stream[0].readexactly(1) == b"\x01"
            writer.write(_GRANTED if granted else _REFUSED)
            if granted:
                await join((reader, writer), stream)
        writer.close()

    return await asyncio.start_server(customer, "0.0.0.0", SOCKS_PORT)  # noqa: S104 - inside a namespace


def server_tls(told: dict[str, Any], *protocols: str) -> ssl.SSLContext:
    """TLS with the range's certificate. protocols: of ALPN."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(told["certificate"], told["key"])
    if protocols:
        tls.set_alpn_protocols(list(protocols))
    return tls


async def play(argument: str, **sides: Callable[[dict[str, Any]], Coroutine[Any, Any, None]]) -> None:
    """Be one side until stopped. argument: JSON with side (phone or gateway), gateways, journal, TLS files, ready."""
    told = json.loads(argument)
    if told["side"] == "gateway":
        await sides["gateway"](told)
        Path(told["ready"]).touch()
        await asyncio.Event().wait()
    while True:
        with suppress(OSError, EOFError):
            await sides["phone"](told)
        await asyncio.sleep(REDIAL_S)
