"""What the live engine asks of a judgement: rows in, changes of findings out, state that can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from relaywatch.model.finding import Finding
from relaywatch.model.tables import Batch


class Status(StrEnum):
    """What happened to a finding."""

    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"


class Change(Protocol):
    """One finding's news. The finding's id says which it is; its newest change replaces all before."""

    @property
    def status(self) -> str:
        """One of Status."""
        ...

    @property
    def finding(self) -> Finding:
        """The finding as it stands now; of a withdrawn one, as it stood last."""
        ...


@dataclass(frozen=True, slots=True)
class Changed:
    """A Change as the engine itself makes it."""

    status: Status
    finding: Finding


class Judgement(Protocol):
    """A judgement over a stream. It is fed and asked from one thread."""

    def feed(self, batch: Batch, form: str = "") -> None:
        """Take canonical rows, of any table, in any order. form: name of the reader that gave them."""
        ...

    def changes(self) -> list[Change]:
        """What changed since the last call; cheap where nothing did."""
        ...

    def drain(self) -> list[Change]:
        """The input is over: everything that is open closes."""
        ...

    def save(self, folder: Path) -> None:
        """Write the complete state into an empty folder."""
        ...

    def load(self, folder: Path) -> None:
        """Take a saved state into a fresh judgement. Raises RelaywatchError for an unknown version."""
        ...

    def gauges(self) -> Mapping[str, float]:
        """Figures about the state, by a name of lower-case letters, digits and underscores."""
        ...
