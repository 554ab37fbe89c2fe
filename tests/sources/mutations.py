"""Hostile variants of sound telemetry, and what every reader promises on them.

A test module of a reader lists its seeds as FUZZ_SEEDS: (file name, content) pairs that the reader reads. The command
benchmarks/fuzz_readers.py runs a million mutated records of each; tests run some hundreds.
"""

from __future__ import annotations

import random
import re
import tracemalloc
from pathlib import Path

from relaywatch.model.quarantine import Quarantine
from relaywatch.model.tables import Batch
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading, Tally

NUMBERS = [b"0", b"-1", b"1e309", b"NaN", b"9" * 23, b"4294967296", b"-9223372036854775809", b"0.0000001"]
TEXTS = [b"\xff\xfe", b"\x00", b"\xc3\x28", b"\xed\xa0\x80", b"../../etc/passwd", b"=cmd()", b"<script>", b"\x1b[2J"]
TEXTS += [b'"', b"{", b"[" * 200]


def mutate(content: bytes, rng: random.Random, *, changes: int = 3) -> bytes:
    """The content with a few hostile changes: cuts, swaps, absurd numbers, bad text, repeats, clock jumps."""
    data = bytearray(content)
    for _ in range(rng.randint(1, changes)):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(8)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 2:
            data[at:at] = rng.choice(TEXTS)
        elif kind in (3, 4):
            numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", bytes(data[at : at + 400])))
            if numbers:
                found = rng.choice(numbers)
                shift = rng.choice([1, -1, 86_400, 10**9, -(10**12)])
                jump = str(int(float(found[0][:18])) + shift).encode()
                data[at + found.start() : at + found.end()] = rng.choice([*NUMBERS, jump])
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            piece = data[at : at + rng.randrange(1, 200)]
            data[at:at] = piece * rng.randrange(1, 5)
        else:
            other = rng.randrange(len(data))
            data[at : at + 8], data[other : other + 8] = data[other : other + 8], data[at : at + 8]
    return bytes(data)


def read_path(path: Path, device: str = "") -> tuple[list[Batch], Quarantine, Tally, list[str]]:
    """Everything under a path through discovery, as a hunt reads it: rows, quarantine, tally, paths not recognised.

    Raises nothing but what a user is meant to see (SourceError of a path given by itself).
    """
    quarantine, tally = Quarantine(), Tally()
    found = discover([path])
    rows = [part for unit in found.units for part in unit.read(Reading(quarantine, device, tally=tally))]
    return rows, quarantine, tally, [f"{entry.path}: {entry.reason}" for entry in found.unrecognised]


def assert_accounted(quarantine: Quarantine, tally: Tally) -> None:
    """The law: every record gave rows, was left for a stated reason, or is in quarantine."""
    assert tally.records == tally.with_rows + tally.unused.total() + quarantine.total, (tally, quarantine.records[:3])


def assert_survives(folder: Path, name: str, content: bytes) -> None:
    """A hostile file is read to the end in bounded memory and every record is accounted for."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        rows, quarantine, tally, _ = read_path(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for part in rows:
        part.rows.validate(full=True)
    assert_accounted(quarantine, tally)
    assert peak < 256 << 20, f"{peak >> 20} MiB for {len(content)} bytes"
