"""The internet side: a name server, web servers on every address, and a UDP service, in one process.

HTTP on 80 and TLS on 443, any host: /bytes/N gives N random bytes, /page/N N bytes of text, /segment/N is /bytes/N,
/front a page with pictures from other hosts, /announce a BitTorrent tracker, /drip (and any Upgrade) a socket that
answers each message and now and then speaks first; whatever is sent by POST or PUT is read and acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
import struct
import sys
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dns.message
import dns.rrset

from relay_range.addresses import RESOLVER, address_of, peer_address
from relay_range.journal import Journal

LARGEST: Final = 64 << 20
UDP_PORT: Final = 7777
IP_PKTINFO: Final = 8
"""ip(7) of Linux; the socket module does not name it."""
_BLOCK: Final = os.urandom(1 << 16)
_TEXT: Final = (b"<p>An ordinary page says ordinary things, and says most of them more than once.</p>\n" * 800)[
    : 1 << 16
]


@dataclass(slots=True)
class Request:
    """One HTTP request, its body read."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    size: int


@dataclass(slots=True)
class Origin:
    """All web servers. seen: sessions already written to the journal, by connection."""

    journal: Journal
    files: Path
    seen: set[tuple[int, str]] = field(default_factory=set)
    peers: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the client is done."""
        try:
            while request := await read_request(reader):
                self._note(request, writer)
                if "upgrade" in request.headers or request.path == "/drip":
                    await drip(reader, writer, request)
                    return
                await self._answer(request, writer)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    def _note(self, request: Request, writer: asyncio.StreamWriter) -> None:
        session = request.headers.get("x-session", "")
        if session and (id(writer), session) not in self.seen:
            self.seen.add((id(writer), session))
            peer, local = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
            self.journal.event("origin", session=session, peer=peer, local=local)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        kind, _, number = request.path.strip("/").partition("/")
        size = min(int(number), LARGEST) if number.isdigit() else 0
        head = request.method == "HEAD"
        if request.method in ("POST", "PUT"):
            await reply(writer, b'{"ok": true, "received": %d}' % request.size)
        elif kind == "front":
            await reply(writer, front_page(request.query.get("n", "1")), kind="text/html")
        elif kind == "announce":
            await reply(writer, tracker_answer(self.peers))
        elif kind == "files":
            stored = self.files / Path(number).name
            await reply(writer, stored.read_bytes() if stored.is_file() else b"")
        else:
            await stream(writer, _TEXT if kind == "page" else _BLOCK, 0 if head else size)


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None at its end."""
    head = await reader.readline()
    if not head.strip():
        return None
    method, target, _ = head.decode("latin-1").split(" ", 2)
    headers = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    parts = urllib.parse.urlsplit(target)
    query = dict(urllib.parse.parse_qsl(parts.query))
    return Request(method, parts.path, query, headers, await read_body(reader, headers))


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> int:
    """Read and forget a body; its size in bytes."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        total = 0
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
            total += size
        await reader.readline()
        return total
    left = total = min(int(headers.get("content-length", "0")), LARGEST)
    while left and (got := await reader.read(min(left, 1 << 16))):
        left -= len(got)
    return total


async def reply(writer: asyncio.StreamWriter, body: bytes, kind: str = "application/octet-stream") -> None:
    """A whole answer."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def stream(writer: asyncio.StreamWriter, block: bytes, size: int) -> None:
    """An answer of `size` bytes made of a block."""
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {size}\r\n\r\n".encode())
    while size > 0:
        writer.write(block[:size])
        await writer.drain()
        size -= len(block)


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
    """A socket that answers every message, at up to `answer` times its size, and speaks first every few seconds."""
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: range\r\nConnection: Upgrade\r\n\r\n")
    chance, every = random.Random(request.query.get("seed", "0")), float(request.query.get("every", "3"))
    answer = float(request.query.get("answer", "8"))
    while True:
        try:
            async with asyncio.timeout(chance.expovariate(1 / every) + 0.2):
                if not (message := await reader.read(1 << 16)):
                    return
            size = min(int(len(message) * chance.uniform(0.1, 1.0) * answer) + 20, 1 << 16)
        except TimeoutError:
            size = int(chance.lognormvariate(5.5, 1.0))
        writer.write(_BLOCK[:size])
        await writer.drain()


def front_page(number: str) -> bytes:
    """A page whose pictures come from other hosts and that goes on to another; the same for the same number."""
    chance = random.Random(number)
    hosts = [f"cdn{chance.randint(1, 60)}.example" for _ in range(4)]
    parts = [
        f'<img src="https://{chance.choice(hosts)}/bytes/{int(chance.lognormvariate(9.5, 1.1))}?{number}-{i}">'
        for i in range(chance.randint(6, 18))
    ]
    after = chance.randint(1, 999)
    forth = f'<meta http-equiv="refresh" content="6;url=https://site{after % 60}.example/front?n={after}">'
    return (
        f"<!doctype html><title>range</title>{forth}{''.join(parts)}".encode() + _TEXT[: chance.randint(5_000, 40_000)]
    )


def tracker_answer(peers: int) -> bytes:
    """A bencoded tracker answer with the compact addresses of the first `peers` peers."""
    packed = b"".join(socket.inet_aton(peer_address(n)) + struct.pack("!H", 6881) for n in range(peers))
    return b"d8:intervali30e5:peers%d:%se" % (len(packed), packed)


class Resolver(asyncio.DatagramProtocol):
    """Answers A queries for .example and .test with address_of, everything else with nothing."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one query."""
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name.to_text()
        if query.question[0].rdtype == 1 and name.rstrip(".").endswith((".example", ".test")):
            answer.answer.append(dns.rrset.from_text(name, 300, "IN", "A", address_of(name)))
        self.transport.sendto(answer.to_wire(), addr)


def serve_udp(loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
    """Answer datagrams on every address from the address asked: the first 16 bit say how many bytes, then a session."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    server.bind(("0.0.0.0", UDP_PORT))  # noqa: S104 - inside a namespace
    server.settimeout(0)
    seen: set[tuple[Any, bytes]] = set()

    def answer() -> None:
        data, ancillary, _, peer = server.recvmsg(2048, 64)
        if len(data) < 4 or not ancillary:
            return
        wanted, session = struct.unpack("!H", data[:2])[0], data[4 : 4 + data[3]]
        _, _, info = ancillary[0]
        if session and (peer, session) not in seen:
            seen.add((peer, session))
            local = socket.inet_ntoa(info[8:12]), UDP_PORT
            journal.event("origin", session=session.decode("latin-1"), peer=peer, local=local, proto="udp")
        # struct in_pktinfo: the source of the answer is ipi_spec_dst, the middle word.
        source = struct.pack("=i4s4x", 0, info[8:12])
        server.sendmsg([_BLOCK[: min(wanted, 1400)]], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, peer)

    loop.add_reader(server, answer)


async def main(argument: str) -> None:
    """Serve until stopped. argument: JSON with journal, certificate, key, files, peers."""
    told = json.loads(argument)
    journal = Journal(told["journal"])
    origin = Origin(journal, Path(told["files"]), peers=told["peers"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(told["certificate"], told["key"])
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Resolver, local_addr=(told.get("resolver", RESOLVER), 53))
    serve_udp(loop, journal)
    async with (
        await asyncio.start_server(origin.serve, "0.0.0.0", 80, backlog=512),  # noqa: S104 - inside a namespace
        await asyncio.start_server(origin.serve, "0.0.0.0", 443, ssl=tls, backlog=512),  # noqa: S104
    ):
        Path(told["ready"]).touch()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
