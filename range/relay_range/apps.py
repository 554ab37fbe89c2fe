"""Ordinary apps as scripts: what they ask for, when, and of whom. Sizes are log-normal, times exponential."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dns.asyncquery
import dns.exception
import dns.message

from relay_range.addresses import address_of, lan_peer, peer_address, phone_address
from relay_range.agent import trusting
from relay_range.customers import Session, Stream, ask, chat, size_of
from relay_range.journal import Journal
from relay_range.origin import UDP_PORT, Origin, read_request, reply

CAST_PORT: Final = 8009
HUB_PORT: Final = 8123
FILES_PORT: Final = 8080
SWARM_PORT: Final = 7070
LEAST_MESSAGE: Final = 100


@dataclass(slots=True)
class App:
    """One app. number: requests so far; open: kept connections by host."""

    chance: random.Random
    seconds: float
    subnet: int
    number: int = 0
    open: dict[str, Stream] = field(default_factory=dict)

    async def connect(self, host: str, port: int = 443) -> Stream:
        """A new connection, TLS on 443."""
        tls = trusting() if port == 443 else None
        return await asyncio.open_connection(host, port, ssl=tls, server_hostname=host if tls else None)

    def session(self, host: str) -> Session:
        """A name for what follows on one connection."""
        self.number += 1
        return Session(f"own:{self.number}", host, 443, self.chance)

    async def get(self, host: str, size: int, *, keep: bool = False) -> None:
        """Fetch `size` bytes."""
        await self._request(host, f"/bytes/{size}", b"", keep)

    async def put(self, host: str, size: int, *, keep: bool = False) -> None:
        """Upload `size` bytes."""
        await self._request(host, "/upload", self.chance.randbytes(size), keep)

    async def _request(self, host: str, path: str, body: bytes, keep: bool) -> None:  # noqa: FBT001
        method = "POST" if body else "GET"
        for _ in range(2):
            stream = self.open.pop(host, None) or await self.connect(host)
            with suppress(OSError, EOFError, asyncio.IncompleteReadError):
                await ask(stream, self.session(host), path, body, method=method)
                if keep:
                    self.open[host] = stream
                else:
                    stream[1].close()
                return

    async def pause(self, mean: float) -> None:
        """Wait, exponentially distributed."""
        await asyncio.sleep(self.chance.expovariate(1 / mean))

    def size(self, median: float, spread: float = 1.0) -> int:
        """A log-normal size."""
        return size_of(self.chance, median, spread)


async def browse(app: App) -> None:
    """Pages of many sites, each with parts from several hosts."""
    while True:
        site = f"site{app.chance.randint(1, 60)}.example"
        await app.get(site, app.size(40_000), keep=True)
        parts = [f"cdn{app.chance.randint(1, 40)}.example" for _ in range(app.chance.randint(4, 14))]
        await asyncio.gather(*(app.get(host, app.size(15_000, 1.3)) for host in parts), return_exceptions=True)
        await app.pause(6)


async def advertised(app: App) -> None:
    """A game with advertisements: auctions, pictures, now and then a video, trackers in between."""
    while True:
        bids = [f"ads{app.chance.randint(1, 50)}.example" for _ in range(app.chance.randint(2, 6))]
        await asyncio.gather(*(app.put(host, app.size(1_800, 0.5)) for host in bids), return_exceptions=True)
        await app.get(f"cdn{app.chance.randint(1, 20)}.example", app.size(60_000, 1.4))
        await app.put("metrics.example", app.size(900), keep=True)
        await app.pause(3)


async def video(app: App) -> None:
    """Segments of one stream, in time."""
    while True:
        await app.get("video.example", app.chance.randint(300_000, 900_000), keep=True)
        await asyncio.sleep(4)


async def podcast(app: App) -> None:
    """Feeds, then episodes."""
    while True:
        feeds = [f"feed{app.chance.randint(1, 30)}.example" for _ in range(5)]
        for host in feeds:
            await app.get(host, app.size(25_000))
        await app.get(f"media{app.chance.randint(1, 5)}.example", app.size(3_000_000, 0.5))
        await app.pause(6)


async def backup(app: App) -> None:
    """Uploads one file after the other."""
    while True:
        await app.put("backup.example", app.size(400_000, 1.0), keep=True)
        await app.pause(0.5)


async def cloud_copy(app: App) -> None:
    """Copies files from one cloud to another: what comes in goes out, at once. No other person's traffic."""
    while True:
        size = app.size(150_000, 1.0)
        await app.get("drive-one.example", size, keep=True)
        await app.put("drive-two.example", size, keep=True)
        await app.pause(0.7)


async def photo_share(app: App) -> None:
    """A feed of pictures, and now and then some of one's own."""
    while True:
        hosts = [f"img{app.chance.randint(1, 12)}.example" for _ in range(app.chance.randint(3, 9))]
        await asyncio.gather(*(app.get(host, app.size(90_000, 0.8)) for host in hosts), return_exceptions=True)
        if app.chance.random() < 0.3:
            await app.put("photos.example", app.size(600_000, 0.6))
        await app.pause(5)


async def read_later(app: App) -> None:
    """Fetches saved articles from many sites and uploads their text: many targets, and an upload after each."""
    while True:
        fetched = app.size(50_000)
        await app.get(f"news{app.chance.randint(1, 50)}.example", fetched)
        await app.put("reader.example", fetched // app.chance.randint(4, 10), keep=True)
        await app.pause(2.5)


async def crash_reporter(app: App) -> None:
    """Small reports, seldom, and a large one with a dump."""
    while True:
        await app.put("crash.example", app.size(2_000))
        if app.chance.random() < 0.3:
            await app.put("crash.example", app.size(250_000, 0.5))
        await app.pause(8)


async def messenger(app: App) -> None:
    """A kept socket for messages; media come from and go to another host when a message says so."""
    talk = asyncio.ensure_future(_talk(app))
    try:
        while True:
            await app.pause(7)
            if app.chance.random() < 0.6:
                await app.get(f"media{app.chance.randint(1, 4)}.example", app.size(120_000))
            else:
                await app.put("media-upload.example", app.size(200_000))
    finally:
        talk.cancel()


async def _talk(app: App) -> None:
    while True:
        await chat(await app.connect("chat.example"), app.session("chat.example"))


async def push(app: App) -> None:
    """A push socket; each message makes the app fetch content from a host it names."""
    stream = await app.connect("push.example")
    reader, writer = stream
    writer.write(b"GET /drip?every=4&seed=7 HTTP/1.1\r\nHost: push.example\r\nUpgrade: range\r\n\r\n")
    while await reader.read(1 << 16):
        hosts = [f"cdn{app.chance.randint(1, 40)}.example" for _ in range(app.chance.randint(1, 4))]
        await asyncio.gather(*(app.get(host, app.size(70_000, 1.2)) for host in hosts), return_exceptions=True)


async def mail(app: App) -> None:
    """Polls four accounts; fetches what is new, sends now and then."""
    while True:
        for number in range(4):
            await app.get(f"imap{number}.example", app.size(6_000, 1.6), keep=True)
        if app.chance.random() < 0.3:
            await app.put("smtp.example", app.size(80_000, 1.3))
        await app.pause(8)


async def speed_test(app: App) -> None:
    """Downloads, then uploads, as fast as it goes."""
    while True:
        await asyncio.gather(*(app.get(f"speed{n}.example", 4_000_000) for n in range(3)), return_exceptions=True)
        await asyncio.gather(*(app.put(f"speed{n}.example", 1_500_000) for n in range(3)), return_exceptions=True)
        await app.pause(15)


async def call(app: App) -> None:
    """A call with one peer: 50 datagrams a second each way, voice-sized, with pauses; signalling beside it."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(address_of("call.example"), UDP_PORT)
    )
    while True:
        speaking = app.chance.random() < 0.5
        for _ in range(app.chance.randint(50, 200)):
            mine, theirs = (app.chance.randint(120, 180), 40) if speaking else (40, app.chance.randint(120, 180))
            transport.sendto(struct.pack("!HBB", theirs, 0, 0) + bytes(mine))
            await asyncio.sleep(0.02)


async def game(app: App) -> None:
    """A game server by UDP, 20 small datagrams a second, larger answers; a lobby over TLS."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(address_of("arena.example"), UDP_PORT)
    )
    while True:
        for _ in range(200):
            transport.sendto(struct.pack("!HBB", app.size(350, 0.5) % 1300, 0, 0) + bytes(app.chance.randint(30, 80)))
            await asyncio.sleep(0.05)
        await app.put("lobby.example", app.size(1_500))


async def screen_share(app: App) -> None:
    """Remote help: the screen's pictures go up one link, taps and keys come down it."""
    stream = await app.connect("remote-help.example")
    reader, writer = stream
    writer.write(b"GET /drip?every=0.7&seed=3&answer=0 HTTP/1.1\r\nHost: remote-help.example\r\nUpgrade: range\r\n\r\n")
    drain = asyncio.ensure_future(_discard(reader))
    try:
        while True:
            writer.write(app.chance.randbytes(app.size(14_000, 1.1)))
            await writer.drain()
            await app.pause(0.25)
    finally:
        drain.cancel()


async def _discard(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass


async def cast_receiver(app: App) -> None:
    """Is told by a machine on the LAN what to play, and fetches it itself: an accepted session, then large fetches."""

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            for _ in range(3):
                await app.get(
                    f"video{app.chance.randint(1, 3)}.example", app.chance.randint(300_000, 800_000), keep=True
                )
                writer.write(b'{"state": "PLAYING"}\n')

    async with await asyncio.start_server(control, "0.0.0.0", CAST_PORT):  # noqa: S104 - inside a namespace
        await asyncio.Event().wait()


async def iot_hub(app: App) -> None:
    """Things on the LAN report; the hub tells its cloud, and sometimes others."""

    async def report(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_request(reader):
            await app.put("hub.example", request.size + app.size(400), keep=True)
            if app.chance.random() < 0.3:
                await app.get(f"service{app.chance.randint(1, 9)}.example", app.size(4_000))
            await reply(writer, b"{}")

    async with await asyncio.start_server(report, "0.0.0.0", HUB_PORT):  # noqa: S104 - inside a namespace
        await asyncio.Event().wait()


async def file_server(app: App) -> None:
    """Serves the phone's files to the LAN; fetches nothing but an advertisement now and then."""
    origin = Origin(Journal("/dev/null"), Path("/nonexistent"))
    async with await asyncio.start_server(origin.serve, "0.0.0.0", FILES_PORT):  # noqa: S104 - inside a namespace
        while True:
            await app.pause(12)
            await app.get("ads1.example", app.size(30_000))


async def lan_remote(app: App) -> None:
    """On the LAN: somebody with a remote control, casting."""
    reader, writer = await asyncio.open_connection(phone_address(app.subnet), CAST_PORT)
    drain = asyncio.ensure_future(_discard(reader))
    try:
        while True:
            writer.write(b'{"type": "LOAD", "media": "next"}\n')
            await app.pause(9)
    finally:
        drain.cancel()


async def lan_things(app: App) -> None:
    """On the LAN: six things that report by HTTP."""

    async def thing(number: int) -> None:
        while True:
            stream = await asyncio.open_connection(
                phone_address(app.subnet), HUB_PORT, local_addr=(lan_peer(app.subnet, number), 0)
            )
            with suppress(OSError, EOFError, asyncio.IncompleteReadError):
                body = app.chance.randbytes(app.size(300, 0.6))
                await ask(stream, app.session("hub"), "/report", body, method="POST")
            stream[1].close()
            await app.pause(6)

    await asyncio.gather(*(thing(n) for n in range(6)))


async def lan_downloads(app: App) -> None:
    """On the LAN: a laptop that takes files from the phone and leaves some."""
    while True:
        stream = await asyncio.open_connection(phone_address(app.subnet), FILES_PORT)
        body = app.chance.randbytes(app.size(80_000)) if app.chance.random() < 0.3 else b""
        method, path = ("PUT", "/new") if body else ("GET", f"/bytes/{app.size(700_000)}")
        with suppress(OSError, EOFError, asyncio.IncompleteReadError):
            await ask(stream, app.session("phone"), path, body, method=method)
        stream[1].close()
        await app.pause(2)


async def lan_queries(app: App) -> None:
    """On the LAN: three machines that ask the phone for names."""

    async def machine(number: int) -> None:
        while True:
            query = dns.message.make_query(f"site{app.chance.randint(1, 400)}.example", "A")
            with suppress(OSError, dns.exception.DNSException):
                await dns.asyncquery.udp(
                    query, phone_address(app.subnet), timeout=3, source=lan_peer(app.subnet, number)
                )
            await app.pause(1)

    await asyncio.gather(*(machine(n) for n in range(3)))


async def publisher(app: App) -> None:
    """On the internet: somebody who publishes to the broker. Runs `mosquitto_pub` for each message."""
    while True:
        message = "x" * app.size(300, 1.2)
        done = await asyncio.create_subprocess_exec(
            "mosquitto_pub", "-h", address_of("mqtt.example"), "-t", "news", "-m", message
        )
        await done.wait()
        await app.pause(3)


async def browse_inside(app: App) -> None:
    """Browses inside a VPN: what leaves the phone is the tunnel alone."""
    while True:
        for _ in range(app.chance.randint(2, 8)):
            reader, writer = await asyncio.open_connection("10.222.0.1", 80)
            with suppress(OSError, EOFError, asyncio.IncompleteReadError):
                await ask((reader, writer), app.session("intranet"), f"/bytes/{app.size(25_000, 1.3)}")
            writer.close()
        await app.pause(4)


async def link_preview(app: App) -> None:
    """A chat app that makes link previews: the server names a page, the app fetches it and sends a picture of it up."""
    reader, writer = await app.connect("chat-previews.example")
    writer.write(
        b"GET /drip?every=1.5&seed=5&answer=0 HTTP/1.1\r\nHost: chat-previews.example\r\nUpgrade: range\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    while message := await reader.read(1 << 16):
        if len(message) < LEAST_MESSAGE:  # the server's acknowledgement of a picture
            continue
        size = app.size(60_000)
        await app.get(f"news{app.chance.randint(1, 60)}.example", size)
        writer.write(app.chance.randbytes(min(size // app.chance.randint(2, 6), 40_000)))
        await writer.drain()


async def peer_video(app: App) -> None:
    """Peer-assisted video: each segment from the video's servers or from a peer, and on to the peers who ask for it."""
    fresh = asyncio.Condition()
    size = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            async with fresh:
                await fresh.wait()
            writer.write(struct.pack("!I", size) + app.chance.randbytes(size))
            await writer.drain()

    async with await asyncio.start_server(serve, "0.0.0.0", SWARM_PORT):  # noqa: S104 - inside a namespace
        while True:
            size = app.chance.randint(200_000, 500_000)
            source = "video" if app.chance.random() < 0.4 else f"edge{app.chance.randint(1, 8)}"
            await app.get(f"{source}.example", size, keep=True)
            async with fresh:
                fresh.notify_all()
            await asyncio.sleep(3)


async def peer_viewers(app: App) -> None:
    """Elsewhere: three viewers of the same video who take segments from the phone, and now and then skip some."""

    async def viewer(number: int) -> None:
        await app.pause(6)
        reader, writer = await asyncio.open_connection(
            phone_address(app.subnet), SWARM_PORT, local_addr=(peer_address(number), 0)
        )
        while True:
            writer.write(b"next\n")
            await reader.readexactly(struct.unpack("!I", await reader.readexactly(4))[0])
            await app.pause(2)

    await asyncio.gather(*(viewer(n) for n in range(3)))


APPS: Final[dict[str, Callable[[App], Awaitable[None]]]] = {
    kind.__name__.replace("_", "-"): kind
    for kind in (
        browse, advertised, video, podcast, backup, cloud_copy, photo_share, read_later, crash_reporter, messenger,
        push, mail, speed_test, call, game, screen_share, cast_receiver, iot_hub, file_server, lan_remote, lan_things,
        lan_downloads, lan_queries, publisher, browse_inside, link_preview, peer_video, peer_viewers,
    )
}  # fmt: skip


async def main(argument: str) -> None:
    """Run one app for its time. argument: JSON with kind, seed, seconds, subnet."""
    told: dict[str, Any] = json.loads(argument)
    app = App(random.Random(told["seed"]), told["seconds"], told["subnet"])
    until = asyncio.get_running_loop().time() + told["seconds"]
    while (left := until - asyncio.get_running_loop().time()) > 0:
        with suppress(OSError, TimeoutError, EOFError, asyncio.IncompleteReadError):
            async with asyncio.timeout(left):
                await APPS[told["kind"]](app)
        await asyncio.sleep(min(1.0, max(0.0, left)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
