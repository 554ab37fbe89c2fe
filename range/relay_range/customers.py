"""The relay's customers: sessions through a proxy, by workload. The same seed asks for the same things."""

from __future__ import annotations

import asyncio
import json
import math
import random
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from relay_range.addresses import address_of
from relay_range.agent import trusting
from relay_range.journal import Journal
from relay_range.origin import UDP_PORT

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
TIMEOUT_S: Final = 40.0
CONCURRENT: Final = 24


@dataclass(slots=True)
class Session:
    """One customer session: its target and what it does there."""

    name: str
    host: str
    port: int
    chance: random.Random


@dataclass(slots=True)
class Customers:
    """All customers of one relay. sources: their own addresses; proxy: where they enter."""

    protocol: str
    proxy: tuple[str, int]
    sources: list[str]
    journal: Journal
    plain_share: float
    failed: int = 0
    done: int = 0
    limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENT))

    async def visit(self, session: Session, act: Callable[[Stream, Session], Awaitable[None]]) -> None:
        """One session from connect to close; failures are counted, not raised."""
        try:
            async with self.limit, asyncio.timeout(TIMEOUT_S * 3):
                stream = await self._enter(session)
                try:
                    await act(stream, session)
                finally:
                    stream[1].close()
            self.done += 1
        except (OSError, EOFError, ValueError, asyncio.IncompleteReadError):
            self.failed += 1

    async def _enter(self, session: Session) -> Stream:
        source = session.chance.choice(self.sources)
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*self.proxy, local_addr=(source, 0) if source else None)
            local = writer.get_extra_info("sockname")
            self.journal.event("client", session=session.name, local=local, proxy=self.proxy)
            await _ENTRIES[self.protocol](reader, writer, session)
            if session.port == 443:
                await writer.start_tls(trusting(), server_hostname=session.host)
        return reader, writer


async def enter_socks5(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Session) -> None:
    """SOCKS5 CONNECT by name (RFC 1928)."""
    writer.write(b"\x05\x01\x00")
    await reader.readexactly(2)
    host = session.host.encode()
    writer.write(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + struct.pack("!H", session.port))
    answer = await reader.readexactly(4)
    if answer[1]:
        raise OSError(f"SOCKS refused: {answer[1]}")
    length = {1: 4, 4: 16}.get(answer[3]) or (await reader.readexactly(1))[0]
    await reader.readexactly(length + 2)


async def enter_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Session) -> None:
    """HTTP CONNECT."""
    target = f"{session.host}:{session.port}"
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise OSError("CONNECT refused")


async def enter_nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _session: Session) -> None:
    """The proxy is a plain forwarder to one target."""


_ENTRIES: Final = {
    "socks5": enter_socks5,
    "connect": enter_connect,
    "http": enter_nothing,
    "forward": enter_nothing,
}


async def ask(stream: Stream, session: Session, path: str, body: bytes = b"", *, method: str = "GET") -> int:
    """One HTTP request; the size of the answer's body."""
    reader, writer = stream
    agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36"
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: {session.host}\r\nUser-Agent: {agent}\r\nX-Session: {session.name}\r\n"
        f"Accept: */*\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    writer.write(body)
    await writer.drain()
    async with asyncio.timeout(TIMEOUT_S):
        head = await reader.readuntil(b"\r\n\r\n")
    size = left = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
    while left > 0:
        async with asyncio.timeout(TIMEOUT_S):
            got = await reader.read(min(left, 1 << 16))
        if not got:
            raise EOFError
        left -= len(got)
    return size


def size_of(chance: random.Random, median: float, spread: float) -> int:
    """A log-normal object size in bytes."""
    return min(int(chance.lognormvariate(math.log(median), spread)), 8 << 20)


async def scrape(stream: Stream, session: Session) -> None:
    """A few pages of one site."""
    for _ in range(session.chance.choice((1, 1, 1, 2, 3))):
        await ask(stream, session, f"/bytes/{size_of(session.chance, 18_000, 1.2)}")
        await asyncio.sleep(session.chance.expovariate(2.0))


async def video(stream: Stream, session: Session) -> None:
    """Segments, one every few seconds."""
    for _ in range(session.chance.randint(4, 8)):
        await ask(stream, session, f"/segment/{session.chance.randint(200_000, 700_000)}")
        await asyncio.sleep(session.chance.uniform(1.5, 4.0))


async def upload(stream: Stream, session: Session) -> None:
    """A form, and then what it uploads."""
    await ask(stream, session, f"/page/{size_of(session.chance, 8_000, 0.7)}")
    for _ in range(session.chance.randint(1, 4)):
        body = session.chance.randbytes(size_of(session.chance, 60_000, 1.0))
        await ask(stream, session, "/upload", body, method="POST")
        await asyncio.sleep(session.chance.expovariate(1.0))


async def chat(stream: Stream, session: Session) -> None:
    """A socket with small messages both ways, slowly."""
    reader, writer = stream
    seed = session.chance.randrange(1 << 30)
    writer.write(
        f"GET /drip?every=3&seed={seed} HTTP/1.1\r\nHost: {session.host}\r\nX-Session: {session.name}\r\n"
        "Upgrade: range\r\nConnection: Upgrade\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    for _ in range(session.chance.randint(6, 16)):
        writer.write(session.chance.randbytes(size_of(session.chance, 180, 0.8)))
        with suppress(TimeoutError):
            async with asyncio.timeout(session.chance.expovariate(1 / 3)):
                while await reader.read(1 << 16):
                    pass


async def absolute(stream: Stream, session: Session) -> None:
    """A page over plain HTTP with the whole URL in the request line, as HTTP proxies take it; small ones close then."""
    await ask(stream, session, f"http://{session.host}/bytes/{size_of(session.chance, 20_000, 1.1)}")


async def heavy(stream: Stream, session: Session) -> None:
    """Objects of heavy-tailed size: most sessions are small, a few carry nearly all the bytes."""
    for _ in range(session.chance.choice((1, 1, 2))):
        size = min(int(3_000 * session.chance.paretovariate(0.9)), 6 << 20)
        await ask(stream, session, f"/bytes/{size}")
        await asyncio.sleep(session.chance.expovariate(1.0))


async def kept(stream: Stream, session: Session) -> None:
    """A connection kept open over pauses, with now and then a request on it."""
    for _ in range(session.chance.randint(2, 6)):
        await ask(stream, session, f"/bytes/{size_of(session.chance, 25_000, 1.0)}")
        await asyncio.sleep(session.chance.uniform(1.0, 9.0))


async def hop(stream: Stream, session: Session) -> None:
    """Several sites over one connection to an HTTP proxy, one after the other."""
    for _ in range(session.chance.randint(2, 7)):
        elsewhere = replace(session, host=f"site{session.chance.randint(1, 60)}.example")
        await absolute(stream, elsewhere)
        await asyncio.sleep(session.chance.expovariate(1.0))


_ACTS: Final = {
    "scrape": scrape, "video": video, "upload": upload, "slow": chat, "heavy": heavy, "kept": kept, "hop": hop,
}  # fmt: skip
_EVERY_S: Final = {
    "scrape": 1 / 1.6, "video": 12.0, "upload": 4.0, "slow": 6.0, "mixed": 1.5, "low-and-slow": 1.0,
    "heavy": 1.2, "kept": 3.0, "hop": 2.5, "varied": 1.2,
}  # fmt: skip
_MIXES: Final = {
    "mixed": ("scrape", "scrape", "scrape", "scrape", "upload", "slow", "video"),
    "varied": ("scrape", "heavy", "heavy", "kept", "kept", "upload", "slow"),
}


def plan(workload: str, seconds: float, seed: int, active: list[tuple[float, float]]) -> list[tuple[float, str]]:
    """When which session starts: (seconds from begin, kind). Low-and-slow spreads five sessions over the time."""
    chance = random.Random(seed)
    if workload == "low-and-slow":
        starts = [seconds * (n + chance.uniform(0.1, 0.9)) / 5 for n in range(5)]
        return [(start, "scrape") for start in starts]
    found, at = [], 0.0
    while (at := at + chance.expovariate(1 / _EVERY_S[workload])) < seconds:
        kind = chance.choice(_MIXES[workload]) if workload in _MIXES else workload
        if not active or any(start <= at <= end for start, end in active):
            found.append((at, kind))
    return found


async def work(customers: Customers, told: dict[str, Any]) -> None:
    """Run the planned sessions."""
    begin = asyncio.get_running_loop().time()
    hosts = random.Random(told["seed"] + 1)
    tasks = []
    for number, (start, kind) in enumerate(plan(told["workload"], told["seconds"], told["seed"], told["active"])):
        await asyncio.sleep(max(0.0, begin + start - asyncio.get_running_loop().time()))
        chance = random.Random(told["seed"] * 1000 + number)
        plain = customers.protocol == "http" or chance.random() < customers.plain_share
        host = told["target"] or f"site{hosts.randint(1, 60)}.example"
        session = Session(f"c:{number}", host, told["port"] or (80 if plain else 443), chance)
        act = absolute if customers.protocol == "http" and kind != "hop" else _ACTS[kind]
        tasks.append(asyncio.ensure_future(customers.visit(session, act)))
    left = begin + told["seconds"] - asyncio.get_running_loop().time()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=max(0.1, left))
        for task in late:
            task.cancel()


class Datagrams(asyncio.DatagramProtocol):
    """A customer's UDP association (RFC 1928, section 7)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport


async def associate(customers: Customers, session: Session, seconds: float) -> None:
    """A SOCKS5 UDP association that plays a game: small datagrams at a steady rate, larger answers."""
    source = session.chance.choice(customers.sources)
    reader, writer = await asyncio.open_connection(*customers.proxy, local_addr=(source, 0))
    writer.write(b"\x05\x01\x00")
    await reader.readexactly(2)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=(source, 0))
    local = transport.get_extra_info("sockname")
    writer.write(b"\x05\x03\x00\x01" + socket.inet_aton(local[0]) + struct.pack("!H", local[1]))
    answer = await reader.readexactly(10)
    relay = socket.inet_ntoa(answer[4:8]), struct.unpack("!H", answer[8:10])[0]
    customers.journal.event("client", session=session.name, local=local, proxy=relay, proto="udp")
    host, name = address_of(session.host), session.name.encode()
    head = b"\x00\x00\x00\x01" + socket.inet_aton(host) + struct.pack("!H", UDP_PORT)
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        ask_for = size_of(session.chance, 400, 0.6)
        filling = session.chance.randbytes(session.chance.randint(20, 120))
        transport.sendto(head + struct.pack("!HBB", min(ask_for, 1300), 0, len(name)) + name + filling, relay)
        await asyncio.sleep(session.chance.uniform(0.02, 0.12))
    customers.done += 1
    transport.close()
    writer.close()


async def main(argument: str) -> None:
    """Work until the time is over. argument: JSON; see the runner."""
    told = json.loads(argument)
    journal = Journal(told["journal"])
    customers = Customers(told["protocol"], tuple(told["proxy"]), told["sources"], journal, told["plain_share"])
    if told["protocol"] == "udp":
        chance = [random.Random(told["seed"] + n) for n in range(3)]
        plays = [
            associate(customers, Session(f"c:{n}", f"game{n}.example", UDP_PORT, chance[n]), told["seconds"] - 3 * n)
            for n in range(3)
        ]
        await asyncio.gather(*plays, return_exceptions=True)
    else:
        await work(customers, told)
    journal.event("customers", done=customers.done, failed=customers.failed)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
