"""A reverse agent over QUIC (aioquic): one connection from the phone, a stream that the gateway opens per session."""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any, Final

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent

from relay_range.addresses import address_of
from relay_range.carry import LINK_PORT, Ends, at_phone, play, serve_customers
from relay_range.journal import Journal

ALPN: Final = ["h3"]
KEEP_ALIVE_S: Final = 20.0


class Link(QuicConnectionProtocol):
    """The gateway's end of the phone's connection. peer: where it came from; up: all that stand."""

    up: Final[list[Link]] = []
    peer: tuple[Any, ...] = ()

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        """Keep the address."""
        self.peer = addr
        super().datagram_received(data, addr)

    def quic_event_received(self, event: QuicEvent) -> None:
        """Keep those that stand."""
        if isinstance(event, HandshakeCompleted):
            self.up.append(self)
        elif isinstance(event, ConnectionTerminated) and self in self.up:
            self.up.remove(self)
        super().quic_event_received(event)


async def gateway(told: dict[str, Any]) -> None:
    """Take the phone's connection, then customers."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
    configuration.load_cert_chain(told["certificate"], told["key"])
    # Bound to the one address: datagrams from 0.0.0.0 would leave from another than was asked.
    address = address_of(told["gateways"][0])
    await serve(address, LINK_PORT, configuration=configuration, create_protocol=Link)

    async def opened() -> tuple[Ends, Any]:
        if not Link.up:
            raise ConnectionError("no phone")
        return await Link.up[-1].create_stream(), Link.up[-1].peer

    await serve_customers(Journal(told["journal"]), opened)


async def phone(told: dict[str, Any]) -> None:
    """Dial the gateway and serve its streams until the connection ends."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=ALPN, verify_mode=ssl.CERT_NONE)
    configuration.server_name = told["gateways"][0]
    tasks: set[asyncio.Task[None]] = set()

    def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(at_phone((reader, writer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop = asyncio.get_running_loop()
    (*_, where), *_ = await loop.getaddrinfo(told["gateways"][0], LINK_PORT)
    transport, link = await loop.create_datagram_endpoint(
        lambda: QuicConnectionProtocol(QuicConnection(configuration=configuration), served),
        local_addr=("0.0.0.0", 0),  # noqa: S104 - inside a namespace
    )
    try:
        link.connect(where)
        await link.wait_connected()
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            await link.ping()
    finally:
        transport.close()


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], phone=phone, gateway=gateway))
