"""One part of an Android dump, and what the rest of the dump says about it: the contract of all section parsers.

A bugreport, an AndroidQF acquisition and a folder of adb output are the same sections in different wrapping. The
wrapping is taken off by android_dump; each kind of section has a parser in a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Final, TypeAlias

from relaywatch.model.tables import Batch
from relaywatch.sources.reading import Reading


@dataclass(frozen=True, slots=True)
class Section:
    """One command's or service's output.

    name: dumpsys service ("usagestats", "netpolicy") or the command's word ("netstat", "ss", "getprop", "pm"), lower
    case; command: the whole of it where the dump says so; source: file, and member of an archive after "!";
    first_line: number of the first of `lines` within it, from 1; lines: without line ends, bounded by the wrapping's
    reader; may be iterated more than once, and taken as columns (section_lines.line_columns).
    """

    name: str
    command: str
    source: str
    first_line: int
    lines: Iterable[str]


SECOND_US: Final = 1_000_000
Fact: TypeAlias = tuple[int, str | None, int | None, str | None, int, int | None]
"""A signal's kind, package, uid, detail, start and end, us."""


class ToldFacts:
    """Facts that sections of a dump gave, as it lists some twice: in one form rounded to seconds, in the other not."""

    def __init__(self) -> None:
        self._given: list[tuple[str, Collection[Fact]]] = []
        self._seconds: set[tuple[object, ...]] = set()

    def add(self, device: str, facts: Collection[Fact]) -> None:
        """A section gave these facts of the device."""
        self._given.append((device, facts))

    def any(self) -> bool:
        """Whether a section gave any."""
        return bool(self._given or self._seconds)

    def hold(self, device: str, fact: Fact) -> bool:
        """Whether a section gave the fact, to the second."""
        # Most dumps have one large section: what it gave is only rounded where another one asks.
        while self._given:
            other, facts = self._given.pop()
            self._seconds.update(
                (other, *subject, start // SECOND_US, None if end is None else end // SECOND_US)
                for *subject, start, end in facts
            )
        *subject, start, end = fact
        starts = range(start // SECOND_US - 1, start // SECOND_US + 2)
        ends = (None,) if end is None else range(end // SECOND_US - 1, end // SECOND_US + 2)
        return not self._seconds.isdisjoint((device, *subject, first, last) for first in starts for last in ends)


@dataclass(frozen=True, slots=True)
class DumpContext:
    """What holds for all sections of one dump.

    device: the device's name; taken: when the dump was taken, us since epoch, None where it does not say; zone: of the
    device's local times (getprop persist.sys.timezone), UTC with zone_known False where it is not said; packages:
    package names by app id (uid % 100000), several where apps share a uid; skew_bound_s: of its clock and stamping;
    told: what sections gave already (dumpsys, and its --checkin form).
    """

    device: str
    taken: int | None = None
    zone: tzinfo = UTC
    zone_known: bool = False
    packages: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    skew_bound_s: float = 2.0
    told: ToldFacts = field(default_factory=ToldFacts, compare=False)

    def package(self, uid: int) -> str | None:
        """The one package of a Linux uid; None where none or several have it."""
        names = self.packages.get(uid % 100_000, ())
        return names[0] if len(names) == 1 else None


SectionParser: TypeAlias = Callable[[Section, DumpContext, Reading], Iterator[Batch]]
"""Canonical rows of one section. Its records (the lines or blocks that state one fact each) are counted in the
reading's tally; a damaged one goes to quarantine under the section's source with "line N". Never raises on content."""
