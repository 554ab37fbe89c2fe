"""The range's own relay agents, for the phone: links that multiplex, and a data connection per session."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from relay_range.evasion import Evasion
from relay_range.framing import Frame, Kind
from relay_range.links import Bundle, Carrier, StreamCarrier, WebSocketCarrier, forward, splice

LINK_PORT: Final = 443
TIER_ONE_PORT: Final = 8443
CONTROL_PORT: Final = 9998
DATA_PORT: Final = 9999
RECONNECT_S: Final = 5.0


def trusting() -> ssl.SSLContext:
    """TLS that accepts any certificate: the range makes its own."""
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    return tls


@dataclass(slots=True)
class Multiplexer:
    """Dials the gateways and serves the sessions that come down the links."""

    gateways: list[str]
    carrier: str
    bundle: Bundle = field(init=False)
    targets: dict[int, asyncio.StreamWriter] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, evasion: Evasion, framing: str, seed: int) -> None:
        """Keep all links up."""
        self.bundle = Bundle(evasion, framing, self.handle, random.Random(seed))
        await asyncio.gather(*(self._keep(self.gateways[n % len(self.gateways)]) for n in range(evasion.links)))

    async def _keep(self, gateway: str) -> None:
        while True:
            with suppress(OSError):
                await self.bundle.attach(await self._dial(gateway))
            for writer in self.targets.values():
                writer.close()
            await asyncio.sleep(RECONNECT_S)

    async def _dial(self, gateway: str) -> Carrier:
        if self.carrier == "websocket":
            from websockets.asyncio.client import connect

            url = f"wss://{gateway}:{LINK_PORT}/peer"
            return WebSocketCarrier(await connect(url, ssl=trusting(), compression=None, ping_interval=30, proxy=None))
        tls = trusting() if self.carrier == "tls" else None
        name = gateway if tls else None
        return StreamCarrier(*await asyncio.open_connection(gateway, LINK_PORT, ssl=tls, server_hostname=name))

    async def handle(self, frame: Frame) -> None:
        """One event of one session."""
        if frame.kind is Kind.OPEN:
            task = asyncio.ensure_future(self._session(frame))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif (writer := self.targets.get(frame.session)) is not None:
            with suppress(OSError):
                if frame.kind is Kind.DATA:
                    writer.write(frame.data)
                    await writer.drain()
                else:
                    writer.close()

    async def _session(self, frame: Frame) -> None:
        host, _, port = frame.data.decode().rpartition(":")
        session, send = frame.session, self.bundle.send
        try:
            async with asyncio.timeout(30):
                reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await send(Kind.CLOSE, session)
            return
        self.targets[session] = writer
        await send(Kind.OPENED, session)
        await forward(reader, lambda data: send(Kind.DATA, session, data), lambda: send(Kind.CLOSE, session))
        self.targets.pop(session).close()


@dataclass(slots=True)
class BackConnector:
    """Two tiers: asks tier 1 for nodes, polls one for jobs, and dials a data connection for each."""

    tier_one: str
    poll_s: float
    chance: random.Random
    delay_s: tuple[float, float] = (0.0, 0.0)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Poll for ever; ask for other nodes when one fails."""
        while True:
            with suppress(OSError, ValueError, asyncio.IncompleteReadError):
                node = self.chance.choice(await self._nodes())
                await self._poll(node)
            await asyncio.sleep(RECONNECT_S)

    async def _nodes(self) -> list[str]:
        tls = trusting()
        reader, writer = await asyncio.open_connection(
            self.tier_one, TIER_ONE_PORT, ssl=tls, server_hostname=self.tier_one
        )
        writer.write(b'{"version": 3, "os": "android"}\n')
        answer = json.loads(await reader.readline())
        writer.close()
        return list(answer["nodes"])

    async def _poll(self, node: str) -> None:
        reader, writer = await asyncio.open_connection(node, CONTROL_PORT)
        while True:
            writer.write(b"POLL\n")
            for job in json.loads(await reader.readuntil(b"\n")):
                task = asyncio.ensure_future(self._serve(node, job))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(self.chance.uniform(0.7, 1.3) * self.poll_s)

    async def _serve(self, node: str, job: dict[str, Any]) -> None:
        with suppress(OSError):
            link = await asyncio.open_connection(node, DATA_PORT)
            link[1].write(job["token"].encode() + b"\n")
            await asyncio.sleep(self.chance.uniform(*self.delay_s))
            try:
                async with asyncio.timeout(30):
                    target = await asyncio.open_connection(job["host"], job["port"])
            except OSError:
                link[1].close()
                return
            await splice(link, target)


def evasion_from(told: dict[str, Any]) -> Evasion:
    """The evasion as JSON gave it: lists back to pairs."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Evasion(**values)


async def main(argument: str) -> None:
    """Relay until stopped. argument: JSON with mode, gateways, carrier, framing, evasion, seed."""
    told = json.loads(argument)
    evasion = evasion_from(told["evasion"])
    if told["mode"] == "back-connect":
        chance = random.Random(told["seed"])
        await BackConnector(told["gateways"][0], told["poll_s"], chance, evasion.delay_s).run()
    else:
        await Multiplexer(told["gateways"], told["carrier"]).run(evasion, told["framing"], told["seed"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
