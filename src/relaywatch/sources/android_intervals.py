"""Intervals of events that begin and end things, as lists of Android's events tell them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.sources.android_facts import SectionFacts

ENDS: Final = "ends what an earlier line began"


@dataclass(slots=True)
class _Open:
    """An interval that has begun. parts: what keeps it open, as several activities of one package."""

    line: int
    start: int
    parts: set[str] = field(default_factory=set)


class Subject(NamedTuple):
    """Whose interval it is, and of which kind."""

    kind: SignalKind
    package: str | None = None
    uid: int | None = None
    detail: str | None = None


class Intervals:
    """Makes intervals of events that begin and end things. Times in us since epoch, in order.

    span_start: begin of what the list covers: from there an end without a begin counts, inferred.
    """

    def __init__(self, facts: SectionFacts, span_start: int | None, skew_s: Callable[[], float]) -> None:
        self._facts = facts
        self._span_start = span_start
        self._skew_s = skew_s
        self._open: dict[Subject, _Open] = {}
        self._of_kind: dict[SignalKind, dict[Subject, None]] = defaultdict(dict)
        self._known: set[tuple[Subject, str]] = set()

    def begin(self, line: int, subject: Subject, time: int, part: str = "") -> None:
        """The subject's interval begins, or a further part keeps it open."""
        self._note(subject, part)
        running = self._open.get(subject)
        if running is None:
            self._open[subject] = _Open(line, time, {part})
            self._of_kind[subject.kind][subject] = None
        else:
            running.parts.add(part)
            self._facts.left(line, "continues what an earlier line began")

    def end(self, line: int, subject: Subject, time: int, part: str = "") -> None:
        """A part ends; the interval with its last one. An end of what was never begun began before the list."""
        running = self._open.get(subject)
        if running is not None:
            running.parts.discard(part)
            self._facts.left(line, ENDS)
            if not running.parts:
                self._close(subject)
                self._give(subject, running, time)
        elif (subject, part) in self._known or self._span_start is None:
            self._facts.left(line, ENDS)
        else:
            start = min(self._span_start, time)
            self._facts.signal(
                line, subject.kind, start, end=time, package=subject.package, uid=subject.uid, detail=subject.detail,
                observability=Observability.INFERRED, skew_s=self._skew_s(),
            )  # fmt: skip
        self._note(subject, part)

    def _note(self, subject: Subject, part: str) -> None:
        if self._span_start is not None:  # without a span nothing is inferred from what was never begun
            self._known.add((subject, part))

    def open_of(self, kind: SignalKind) -> list[Subject]:
        """Subjects of a kind whose interval is open."""
        return list(self._of_kind[kind])

    def close(self, subjects: Iterable[Subject], time: int) -> None:
        """These end together, as all do when the device shuts down."""
        for subject in list(subjects):
            if subject in self._open:
                running = self._close(subject)
                self._give(subject, running, max(time, running.start))

    def close_all(self, time: int) -> None:
        """Everything ends; what comes later has begun anew."""
        self.close(list(self._open), time)

    def finish(self) -> None:
        """What is open at the list's end has no end."""
        for subject, running in self._open.items():
            self._give(subject, running, None)
        self._open.clear()
        self._of_kind.clear()

    def _close(self, subject: Subject) -> _Open:
        del self._of_kind[subject.kind][subject]
        return self._open.pop(subject)

    def _give(self, subject: Subject, running: _Open, end: int | None) -> None:
        # A clock that was set back in between would let the interval end before its begin.
        end = None if end is None else max(end, running.start)
        self._facts.signal(
            running.line, subject.kind, running.start, end=end, package=subject.package, uid=subject.uid,
            detail=subject.detail, skew_s=self._skew_s(),
        )  # fmt: skip
