"""One item of evidence as detection states it: numbers and rows; names and files are the engine's to add."""

from __future__ import annotations

from dataclasses import dataclass

from relaywatch.model.schemas import SignalKind


@dataclass(frozen=True, slots=True)
class Item:
    """Evidence that moves the odds by log_ratio (natural log). kind and name: `attack.requirements` declares them.

    core: its ratio is bounded by chance, so it alone may pass the false-alarm bar; explains: it rests on names, lists
    or other installs, so it may raise the probability and never the verdict; signals: the kinds that it rests on.
    """

    kind: str
    name: str
    statement: str
    value: float | None
    unit: str
    log_ratio: float
    null: str = ""
    settings: tuple[str, ...] = ()
    core: bool = False
    explains: bool = False
    signals: tuple[SignalKind, ...] = ()
