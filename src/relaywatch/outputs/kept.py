"""Findings in a file of their own, as NDJSON, so that the memory of a hunt does not grow with what it finds.

The file is in the system's folder for such files (TMPDIR). Where that is memory itself, it is a tenth of what objects
take.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from typing import Any, overload

from relaywatch.model.finding import Finding
from relaywatch.outputs.native import json_line, read_ndjson


class KeptFindings(Sequence[Finding]):
    """Findings by rising key, read anew each time one is asked for. The file has no name and goes with the object."""

    def __init__(self, findings: Iterable[Finding], key: Callable[[Finding], Any]) -> None:
        """Take the findings one by one. key: what they are ordered by."""
        self._file = tempfile.TemporaryFile(prefix="relaywatch-")  # noqa: SIM115 - open as long as this is
        places, at = [], 0
        for finding in findings:
            size = self._file.write(json_line(finding).encode())
            places.append((key(finding), at, size))
            at += size
        self._places = [(at, size) for _, at, size in sorted(places)]

    def lines(self) -> Iterator[str]:
        """Each finding as a line of NDJSON."""
        for place in range(len(self)):
            yield self._line(place)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Finding: ...
    @overload
    def __getitem__(self, place: slice) -> list[Finding]: ...
    def __getitem__(self, place: int | slice) -> Finding | list[Finding]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return next(read_ndjson(StringIO(self._line(place))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none

    def _line(self, place: int) -> str:
        at, size = self._places[place]
        self._file.seek(at)
        return self._file.read(size).decode()
