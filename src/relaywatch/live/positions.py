"""Where each input stands: kept with the rows, so that no row is lost or taken twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from relaywatch.live.taking import Position

MOST: Final = 100_000
"""Inputs of one family that are remembered; those that moved longest ago are forgotten first."""
LIMITS: Final = {"mqtt-seen": 4_096, "file": 2 * MOST}
"""Of these families another number: a broker has few messages under way, and whoever takes files forgets by himself."""


class Positions:
    """The inputs' positions by id. An id is its family, a colon, and what tells it from others of the family."""

    def __init__(self, held: Mapping[str, Position] | None = None) -> None:
        self._families: dict[str, dict[str, Position]] = {}
        self.move(held or {})

    def move(self, to: Mapping[str, Position | None]) -> None:
        """These inputs are now here; None: forget the input."""
        for key, position in to.items():
            family = self._families.setdefault(key.partition(":")[0], {})
            family.pop(key, None)
            if position is None:
                continue
            family[key] = position
            if len(family) > LIMITS.get(key.partition(":")[0], MOST):
                del family[next(iter(family))]

    def all(self) -> dict[str, Position]:
        """Every position, those of a family in the order in which they moved."""
        return {key: position for family in self._families.values() for key, position in family.items()}

    def of(self, family: str) -> Iterator[tuple[str, Position]]:
        """The positions of one family, without it in their ids."""
        for key, position in self._families.get(family, {}).items():
            yield key.partition(":")[2], position
