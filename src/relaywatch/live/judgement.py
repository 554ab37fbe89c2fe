"""What the live engine asks of a judgement: rows in, changes of findings out, state that can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from relaywatch.engines.kernel import Change
from relaywatch.model.tables import Batch


class State(Protocol):
    """A judgement's state at one time."""

    def write(self, folder: Path) -> None:
        """Put it into an empty folder. May be called from another thread, while the judgement goes on."""
        ...


class Judgement(Protocol):
    """A judgement over a stream. It is fed and asked from one thread."""

    def feed(self, batch: Batch, form: str = "") -> None:
        """Take canonical rows, of any table, in any order. form: name of the reader that gave them."""
        ...

    def changes(self, *, all_over: bool = False) -> list[Change]:
        """What changed since the last call; cheap where nothing did. all_over: judge all that is over, however much."""
        ...

    def drain(self) -> list[Change]:
        """The input is over: everything that is open closes."""
        ...

    def take_late(self) -> list[Batch]:
        """Rows that came too late to be judged, since the last call."""
        ...

    def taken(self) -> State:
        """The complete state as it is, apart from what comes later."""
        ...

    def load(self, folder: Path) -> None:
        """Take a saved state into a fresh judgement. Raises RelaywatchError for an unknown version."""
        ...

    def gauges(self) -> Mapping[str, float]:
        """Figures about the state, by a name of lower-case letters, digits and underscores."""
        ...
