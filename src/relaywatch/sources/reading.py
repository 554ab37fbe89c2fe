"""What every reader is given and gives: the contract between formats and the rest of the house."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar, Final, Protocol

import numpy as np

from relaywatch.model.quarantine import Quarantine
from relaywatch.model.tables import Batch

HEAD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Head:
    """The start of a file's content, decompressed; the name never decides alone."""

    path: Path
    content: bytes


def _ignore(_: int) -> None:
    """Progress that nobody watches."""


@dataclass(slots=True)
class Tally:
    """What became of a unit's records: records = with_rows + unused + quarantined, or something was lost in silence.

    records: met, damaged ones included; with_rows: that gave at least one row; unused: sound ones that say nothing that
    a table holds (or that only explain others), by reason.
    """

    records: int = 0
    with_rows: int = 0
    unused: Counter[str] = field(default_factory=Counter)

    def met(self, records: int) -> None:
        """So many more records were met."""
        self.records += records

    def gave(self, batches: Iterable[Batch]) -> None:
        """These batches hold all rows of some records: each position is one record."""
        positions = [part.rows["position"].to_numpy(zero_copy_only=False) for part in batches]
        if not positions:
            return
        together = np.concatenate(positions)
        rising = bool((together[1:] > together[:-1]).all())
        self.with_rows += len(together) if rising else len(np.unique(together))

    def left(self, reason: str, records: int) -> None:
        """So many sound records gave no row."""
        if records:
            self.unused[reason] += records


@dataclass(frozen=True, slots=True)
class Reading:
    """One read in progress: where damaged records go, whose device it is, who watches, what became of the records.

    device: the user's word for the device, for formats that do not name one; empty: the file's stem.
    progress: called with the number of stored (compressed) bytes read since the last call.
    """

    quarantine: Quarantine
    device: str = ""
    progress: Callable[[int], None] = field(default=_ignore)
    tally: Tally = field(default_factory=Tally)


class FileReader(Protocol):
    """Reads one format from one file."""

    name: ClassVar[str]

    @staticmethod
    def fits(head: Head) -> bool:
        """Whether the content is this format. Must be cheap and never raise."""
        ...

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Canonical rows. `stream` is decompressed and not seekable; `path` is for naming and siblings.

        Damaged records go to the quarantine. Raises SourceError where nothing (more) can be read.
        """
        ...


class FolderReader(Protocol):
    """Reads a folder whose files belong together."""

    name: ClassVar[str]

    @staticmethod
    def members(folder: Path) -> frozenset[Path]:
        """The files of `folder` that this format claims; empty where it is not this format."""
        ...

    def read(self, folder: Path, reading: Reading) -> Iterator[Batch]:
        """Canonical rows, as FileReader.read."""
        ...
