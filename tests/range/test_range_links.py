"""Whatever a bundle of links does to hide, every session's bytes arrive whole and in order."""

import asyncio
import random

import pytest
from relay_range.evasion import Evasion
from relay_range.framing import Kind
from relay_range.links import Bundle

EVASIONS = [
    Evasion(),
    Evasion(links=4, rechunk=True, jitter_s=0.002),
    Evasion(padding=0.3, batch_s=(0.001, 0.004), compress=True),
    Evasion(delay_s=(0.0, 0.01), links=3, rechunk=True, padding=0.2, batch_s=(0.001, 0.002), compress=True),
    Evasion(links=2, chaff_bytes_s=50_000),
]


class Pipe:
    """One end of a link in memory; counts what it sent."""

    def __init__(self):
        self.incoming = asyncio.Queue()
        self.other = None
        self.sent = 0

    async def send(self, content):
        self.sent += len(content)
        await self.other.incoming.put(content)

    async def received(self):
        while (content := await self.incoming.get()) is not None:
            yield content

    async def close(self):
        await self.other.incoming.put(None)


async def exchanged(evasion, framing, sessions):
    """What the far end got of each session, and the bytes that the near end sent for it."""
    got, ended, closed = {}, asyncio.Event(), set()

    async def handle(frame):
        if frame.kind is Kind.CLOSE:
            closed.add(frame.session)
            if len(closed) == len(sessions):
                ended.set()
        else:
            got[frame.session] = got.get(frame.session, b"") + frame.data

    async def ignore(_frame):
        return

    near, far = (Bundle(evasion, framing, end, random.Random(seed)) for seed, end in ((1, ignore), (2, handle)))  # noqa: S311
    pipes, tasks = [], []
    for _ in range(evasion.links):
        one, other = Pipe(), Pipe()
        one.other, other.other = other, one
        tasks += [asyncio.ensure_future(near.attach(one)), asyncio.ensure_future(far.attach(other))]
        pipes += [one, other]
    await asyncio.sleep(0)
    for session, parts in sessions.items():
        for part in parts:
            await near.send(Kind.DATA, session, part)
        await near.send(Kind.CLOSE, session)
    async with asyncio.timeout(20):
        await ended.wait()
    for pipe in pipes:
        await pipe.close()
    await asyncio.gather(*tasks)
    return got, [pipe.sent for pipe in pipes[::2]]


@pytest.mark.parametrize("framing", ["binary", "json"])
@pytest.mark.parametrize("evasion", EVASIONS)
def test_sessions_arrive_whole_under_every_evasion(evasion, framing):
    chance = random.Random(5)  # noqa: S311
    sessions = {number: [chance.randbytes(chance.randint(1, 9_000)) for _ in range(8)] for number in range(1, 5)}
    got, sent = asyncio.run(exchanged(evasion, framing, sessions))
    assert got == {number: b"".join(parts) for number, parts in sessions.items()}
    assert all(sent), "every link carries a part"


def test_padding_costs_and_compression_of_repetition_saves():
    sessions = {1: [b"the same words again and again " * 100] * 20}
    size = sum(map(len, sessions[1]))
    padded = sum(asyncio.run(exchanged(Evasion(padding=0.3), "binary", sessions))[1])
    squeezed = sum(asyncio.run(exchanged(Evasion(batch_s=(0.01, 0.02), compress=True), "binary", sessions))[1])
    assert size * 1.05 < padded < size * 1.35
    assert squeezed < size / 5
