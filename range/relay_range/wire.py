"""The wire between a scenario's namespaces: delay, jitter, rate and tail drop, and the phone's capture.

Packets are read from one tun device and written to another. What the phone sends is stamped when it leaves the phone,
what it receives when it reaches the phone, so the capture is what a sensor on the phone's own interface would see.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import select
import signal
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from relay_range import addresses

SNAP: Final = 400
QUEUE_S: Final = 0.4
"""Most that a packet may wait for the phone's radio; beyond it packets are dropped at the tail."""
_RAW_IP: Final = 101
_BURST: Final = 64


@dataclass(slots=True)
class Radio:
    """The phone's link, one way. rate: bytes a second; delay and jitter: seconds."""

    rate: float
    delay: float
    jitter: float
    loss: float
    free_at: float = 0.0

    def arrival(self, now: float, size: int, chance: random.Random) -> float | None:
        """When a packet is through; None where it is lost."""
        start = max(now, self.free_at)
        if start - now > QUEUE_S or chance.random() < self.loss:
            return None
        self.free_at = start + size / self.rate
        return self.free_at + self.delay + chance.expovariate(1 / self.jitter)


@dataclass(slots=True)
class Wire:
    """One scenario's switch. ends: tun descriptor by space."""

    ends: dict[str, int]
    subnet: int
    up: Radio
    down: Radio
    capture: BinaryIO
    chance: random.Random
    waiting: list[tuple[float, int, str, bytes]] = field(default_factory=list)
    last: dict[tuple[bytes, bytes], float] = field(default_factory=dict)
    delays: dict[tuple[bytes, bytes], float] = field(default_factory=dict)
    order: int = 0

    def run(self, stopped: list[bool]) -> None:
        """Carry packets until told to stop."""
        self.capture.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP, _RAW_IP))
        poll = select.poll()
        spaces = {end: space for space, end in self.ends.items()}
        for end in spaces:
            poll.register(end, select.POLLIN)
        while not stopped:
            wait = self.waiting[0][0] - time.time() if self.waiting else 0.5
            for end, _ in poll.poll(max(0.0, wait * 1000)):
                self._take(end, spaces[end])
            self._deliver()

    def _take(self, end: int, space: str) -> None:
        for _ in range(_BURST):
            try:
                packet = os.read(end, 2048)
            except BlockingIOError:
                return
            now = time.time()
            if len(packet) < 20 or packet[0] >> 4 != 4:
                continue
            target = space_of(packet[16:20], self.subnet)
            if space == addresses.PHONE:
                self._record(now, packet)
            at_home = addresses.LAN in (space, target)
            if target in (None, space) or (at_home and addresses.PHONE not in (space, target)):
                continue
            if (due := self.due(now, space, target, packet)) is not None:
                self.order += 1
                heapq.heappush(self.waiting, (due, self.order, target, packet))

    def due(self, now: float, space: str, target: str, packet: bytes) -> float | None:
        """Arrival time. Packets of one pair of addresses keep their order."""
        pair = packet[12:16], packet[16:20]
        if pair not in self.delays:
            self.delays[pair] = addresses.path_delay_s(_text(pair[0]), _text(pair[1]))
        due: float | None = now
        if space == addresses.PHONE:
            due = self.up.arrival(now, len(packet), self.chance)
        elif target == addresses.PHONE:
            due = self.down.arrival(now, len(packet), self.chance)
        if due is None:
            return None
        due = max(due + self.delays[pair], self.last.get(pair, 0.0))
        self.last[pair] = due
        return due

    def _deliver(self) -> None:
        now = time.time()
        while self.waiting and self.waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(self.waiting)
            if target == addresses.PHONE:
                self._record(time.time(), packet)
            try:
                os.write(self.ends[target], packet)
            except OSError:  # a full queue or a device that goes down: a lost packet
                continue

    def _record(self, now: float, packet: bytes) -> None:
        kept = packet[:SNAP]
        self.capture.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), len(kept), len(packet)) + kept)


def space_of(address: bytes, subnet: int) -> str | None:
    """The namespace that has an address; None for every address of the world outside."""
    first, second, third, fourth = address
    if first == 198 and second == 18:
        return addresses.INTERNET
    if first == 198 and second == 19:
        return addresses.GATEWAYS if third >= 192 else addresses.CUSTOMERS
    if (first, second, third) == (10, subnet, 0):
        return addresses.PHONE if fourth == 23 else addresses.LAN if 48 <= fourth < 64 else None
    return None


def _text(address: bytes) -> str:
    return ".".join(map(str, address))


def main(argument: str) -> None:
    """Carry until SIGTERM. argument: JSON with ends, subnet, radio, capture, seed."""
    told: dict[str, Any] = json.loads(argument)
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    radio = told["radio"]
    with Path(told["capture"]).open("wb", buffering=1 << 16) as capture:
        wire = Wire(
            told["ends"],
            told["subnet"],
            Radio(radio["up_mbit"] * 125_000, radio["delay_s"], radio["jitter_s"], radio["loss"]),
            Radio(radio["down_mbit"] * 125_000, radio["delay_s"], radio["jitter_s"], radio["loss"]),
            capture,
            random.Random(told["seed"]),
        )
        wire.run(stopped)


if __name__ == "__main__":
    main(sys.argv[1])
