"""One item of evidence as detection states it: numbers and rows; names and files are the engine's to add."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """Evidence that moves the odds by log_ratio (natural log). kind and name: `attack.requirements` declares them."""

    kind: str
    name: str
    statement: str
    value: float | None
    unit: str
    log_ratio: float
    null: str = ""
    settings: tuple[str, ...] = ()
