"""Who held an address when: grants, renewals and ends of assignments, record by record, as intervals.

A renewal lengthens the interval that it renews, a grant to another device ends the one before, so that an address is
one device's at a time. The record that begins an interval gives its rows; those that only renew or end it are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from relaywatch.model.errors import SourceError
from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch
from relaywatch.sources.context_feed import DamagedRecord
from relaywatch.sources.context_rows import ROWS_AT_ONCE, ContextRows
from relaywatch.sources.lease_fields import SKEW_BOUND_S
from relaywatch.sources.reading import Reading

ADDRESSES_HELD: Final = 200_000
"""Assignments that can still be renewed; beyond, the oldest is given as it stands."""
NAMES_TOLD: Final = 200_000
"""Names of holders told already; beyond, some are told again."""
_RENEWS: Final = "renews or ends an assignment that another record began"


@dataclass(slots=True)
class Holder:
    """Who holds an address, as far as a record says. device: the name in the tables; empty: by MAC, host, then user."""

    device: str = ""
    mac: str | None = None
    hostname: str | None = None
    user: str | None = None
    detail: str | None = None

    @property
    def uid(self) -> str:
        """The device's name in the tables; empty where the record names nobody."""
        if self.device:
            return self.device
        if self.mac:
            return f"mac:{self.mac}"
        return self.hostname or (f"user:{self.user}" if self.user else "")


@dataclass(slots=True)
class _Assignment:
    """One interval. begin, end: microseconds since the epoch; None is not known, or not ended."""

    holder: Holder
    begin: int | None
    end: int | None
    position: int
    skew_bound_s: float | None

    def goes_on(self, holder: Holder, begin: int | None, end: int | None) -> bool:
        """Whether a grant to `holder` continues this one: same device, and the times meet."""
        if holder.uid != self.holder.uid:
            return False
        late = begin is not None and self.end is not None and begin > self.end
        early = end is not None and self.begin is not None and end < self.begin
        return not late and not early


class Assignments:
    """The assignments of one file, and the rows of those that are over."""

    __slots__ = ("_current", "_reading", "_rows", "_told")

    def __init__(self, rows: ContextRows, reading: Reading) -> None:
        self._rows = rows
        self._reading = reading
        self._current: dict[str, _Assignment] = {}
        self._told: set[tuple[str, IdentifierKind, str]] = set()

    def granted(
        self,
        address: str,
        holder: Holder,
        begin: int | None,
        end: int | None,
        position: int,
        *,
        skew_bound_s: float | None = None,
    ) -> None:
        """From `begin` until `end` the address is the holder's, unless another record says otherwise."""
        held = self._current.get(address)
        if held is not None and held.goes_on(holder, begin, end):
            held.end = end
            if begin is not None and held.begin is not None:
                held.begin = min(held.begin, begin)
            _learn(held.holder, holder)
            self._reading.tally.left(_RENEWS, 1)
            return
        new = _Assignment(holder, begin, end, position, skew_bound_s)
        if held is None:
            self._hold(address, new)
        elif begin is not None and held.begin is not None and begin < held.begin:
            new.end = held.begin if end is None else min(end, held.begin)  # told late: the later one stands
            self._give(address, new)
        else:
            if begin is not None and (held.end is None or held.end > begin):
                held.end = begin
            self._give(address, self._current.pop(address))
            self._hold(address, new)

    def ended(
        self,
        address: str,
        holder: Holder,
        at: int,
        position: int,
        *,
        begin: int | None = None,
        skew_bound_s: float | None = None,
    ) -> None:
        """At `at` the holder gave the address up; an assignment whose begin was not seen begins at `begin`."""
        held = self._current.get(address)
        if held is not None and (not holder.uid or held.holder.uid == holder.uid):
            del self._current[address]
            held.end = at if held.end is None else min(held.end, at)
            if held.begin is not None:
                held.end = max(held.end, held.begin)
            _learn(held.holder, holder)
            self._give(address, held)
            self._reading.tally.left(_RENEWS, 1)
        elif holder.uid:
            self._give(address, _Assignment(holder, begin, at, position, skew_bound_s))
        else:
            self._reading.tally.left("ends an assignment that is not known, of a device that is not named", 1)

    def over(self) -> Iterator[Batch]:
        """The rows of assignments that are over, once there are many."""
        if len(self._rows) >= ROWS_AT_ONCE:
            yield from self._batches()

    def rest(self) -> Iterator[Batch]:
        """All that is left, at the end of the file."""
        for address, assignment in self._current.items():
            self._give(address, assignment)
        self._current.clear()
        yield from self._batches()

    def _batches(self) -> list[Batch]:
        found = self._rows.batches()
        self._reading.tally.gave(found)
        return found

    def _hold(self, address: str, assignment: _Assignment) -> None:
        if len(self._current) >= ADDRESSES_HELD:
            oldest = next(iter(self._current))
            self._give(oldest, self._current.pop(oldest))
        self._current[address] = assignment

    def _give(self, address: str, given: _Assignment) -> None:
        """The interval's row, and a row for each further name of its holder."""
        if len(self._told) > NAMES_TOLD:
            self._told.clear()
        holder, uid, position = given.holder, given.holder.uid, given.position
        times: dict[str, Any] = {"valid_from": given.begin, "valid_to": given.end}
        if given.skew_bound_s is not None:
            times["clock_skew_bound_s"] = given.skew_bound_s
        self._rows.name(position, uid, IdentifierKind.IP, address, user_name=holder.user, detail=holder.detail, **times)
        for kind, name in ((IdentifierKind.MAC, holder.mac), (IdentifierKind.HOSTNAME, holder.hostname)):
            if name is not None and (uid, kind, name) not in self._told:
                self._told.add((uid, kind, name))
                self._rows.name(position, uid, kind, name)


def _learn(known: Holder, told: Holder) -> None:
    """Adds what a later record of the same device says."""
    known.mac = known.mac or told.mac
    known.hostname = told.hostname or known.hostname
    known.user = told.user or known.user
    known.detail = known.detail or told.detail


Record = TypeVar("Record")


def read_assignments(
    path: Path,
    reading: Reading,
    records: Iterable[tuple[int, Record]],
    take: Callable[[Record, int, Assignments], str | None],
    *,
    skew_bound_s: float = SKEW_BOUND_S,
) -> Iterator[Batch]:
    """The rows of a file of assignments, with every record accounted for.

    records: each with its line number, counted already. take: hands one on; the reason where it soundly gives no row;
    raises DamagedRecord before it hands anything on. What was read before damage is given before its SourceError.
    """
    assignments = Assignments(ContextRows(path, "sensor", skew_bound_s), reading)
    try:
        for position, record in records:
            try:
                reason = take(record, position, assignments)
            except DamagedRecord as damage:
                reading.quarantine.add(str(path), f"line {position}", str(damage))
                continue
            if reason is not None:
                reading.tally.left(reason, 1)
            yield from assignments.over()
    except SourceError:
        yield from assignments.rest()
        raise
    yield from assignments.rest()
