"""What real relays' sessions look like, measured: sizes, durations, lags, framing, and how bytes lie in time.

relay_shapes.json is made by benchmarks/fit_drill_shapes.py of what relays of the range did; no address, name or time is
kept in it. Drills and simulated fleets draw from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from relaywatch.model.finding import Topology


@dataclass(frozen=True, slots=True)
class Shape:
    """What one real program's sessions look like.

    sessions: a row each: bytes up, bytes down, duration s; of programs with a client leg a session also lag s, client
    bytes up, client bytes down, and s that the client leg lasts longer. rate: sessions that it served a second;
    framing_down, framing_up: bytes of its links over bytes of its targets, either way.
    """

    program: str
    sessions: npt.NDArray[np.float64]
    rate: float
    links: int = 1
    framing_down: float = 1.0
    framing_up: float = 1.0


@cache
def shapes() -> dict[Topology, tuple[Shape, ...]]:
    """The fitted shapes by topology."""
    return {Topology(name): tuple(map(_shape, entries)) for name, entries in _document()["topologies"].items()}


@cache
def received_by_tenth() -> tuple[float, ...]:
    """Share of its bytes that a flow has received by the end of each tenth of its time."""
    return (0.0, *_document()["received_by_tenth"])


def _document() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("relay_shapes.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def _shape(entry: dict[str, Any]) -> Shape:
    return Shape(
        program=entry["program"],
        sessions=np.array(entry["sessions"], np.float64),
        rate=entry["rate"],
        links=entry.get("links", 1),
        framing_down=entry.get("framing_down", 1.0),
        framing_up=entry.get("framing_up", 1.0),
    )
