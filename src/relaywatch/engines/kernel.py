"""The one judgement as it goes on: rows in, in any cut and order; findings out, as they open, change and close.

It holds each app's day until a stretch is full or the day is over, and judges what is over by the same function as a
hunt of files does (engines.judging). What it says before is said early, of what is at hand; what it says at the end is
what a hunt says of the same rows. A record that comes when its stretch is over is late: it is counted and handed back,
neither judged nor dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from relaywatch.detection.columns import Flags, Ints
from relaywatch.detection.discovery import relay_bar
from relaywatch.engines.arrangement import flow_rows, in_order_written
from relaywatch.engines.cases import SIGNAL_REACH_US, Case, with_signals
from relaywatch.engines.contacted import Contacted
from relaywatch.engines.findings import Directory, Draft, draft_of
from relaywatch.engines.installs import Installs, Packaged
from relaywatch.engines.intake import without_allowed
from relaywatch.engines.inventory import InventoryRows
from relaywatch.engines.judging import AppDay, Part, Told, evidence_of, judge_part, stronger
from relaywatch.engines.local import Hunt
from relaywatch.engines.open_days import OpenDays, out_of_reach
from relaywatch.engines.records import SIGNAL, Records, Registry, flow_records, signal_records, volume_records
from relaywatch.engines.stretches import DAY_US, places_in_stretches
from relaywatch.engines.texts import Texts
from relaywatch.governance.exceptions import apply
from relaywatch.model.finding import Finding
from relaywatch.model.tables import Batch
from relaywatch.outputs.native import json_line, read_ndjson

LATENESS_S: Final = 300.0
"""How far the records of one device may be out of order, s of event time."""
DEVICE_LAG_S: Final = 86_400.0
"""How far a device may lie behind the fleet, s of event time, before its days are closed without it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long records are waited for. device_lag_s: None where no device is ever given up.

    present: tells the time, s since epoch, where records are of what happens now: no device's clock runs ahead of it,
    and a record from more than a day beyond it is handed back like a late one.
    """

    lateness_s: float = LATENESS_S
    device_lag_s: float | None = DEVICE_LAG_S
    present: Callable[[], float] | None = None


WITHOUT_END: Final = Patience(1e12, None)
"""Nothing is ever late, and nothing is over before all is."""
MOST_SIGNALS: Final = 65_536
"""Signals held of one device, the latest; older ones are counted as left out."""
CLOSED_AT_ONCE: Final = 250_000
"""Records of days that are over, judged in one go: well within a second's work. More where more than half as many
came meanwhile."""
CONCLUDED_AT_ONCE: Final = 32
"""Cases of a day that is over, of which the last is said in one go: some 10 ms each."""
MOST_PARTS: Final = 64
"""Pieces in which a device's signals are held before they are put together."""


class Status(StrEnum):
    """What has become of a finding."""

    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Change:
    """One finding that has come, changed, or gone. Its key is finding.finding_id."""

    status: Status
    finding: Finding


@dataclass(frozen=True, slots=True)
class Said:
    """What was last said of an app's day: of which case (None: of one before a restart), by which bar.

    line: the finding as a line of NDJSON, a tenth of the object; None where there was none.
    """

    case: Case | None
    bar: float
    line: str | None


@dataclass(slots=True)
class Counts:
    """Records since the kernel began. left_out: volumes and signals that no judgement could use."""

    flows: int = 0
    volumes: int = 0
    signals: int = 0
    duplicates: int = 0
    late: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class FullStretches:
    """Stretches of one slot that are over, and the flows left. boundary: when the last one was written, us."""

    slot: int
    done: Records
    left: Records
    boundary: int
    stretches: int
    watermark: int


class Kernel:
    """The judgement of a stream. Not for several threads at once."""

    def __init__(self, plan: Hunt, folder: Path, patience: Patience | None = None) -> None:
        """folder: for records, empty or a kernel's before; patience: by default Patience()."""
        patience = patience or Patience()
        self.plan, self.folder = plan, folder
        self.registry, self.texts, self.counts = Registry(), Texts(), Counts()
        lateness_us, lag_s, present = int(patience.lateness_s * 1e6), patience.device_lag_s, patience.present
        lag_us = None if lag_s is None else int(lag_s * 1e6)
        present_us = None if present is None else lambda: int(present() * 1e6)
        self.open = OpenDays(self.registry, folder, lateness_us, lag_us, present_us)
        self.contacted = Contacted(self.registry)
        self.formats: dict[str, str] = {}
        self.inventory = InventoryRows()
        self.signals: dict[int, list[Records]] = {}
        self.told: dict[AppDay, Told] = {}
        """Of full stretches, and of days that are over, where they tell anything."""
        self.early: dict[AppDay, Told] = {}
        """Of stretches that go on, as they were last judged."""
        self.whole: dict[AppDay, Case] = {}
        self.said: dict[AppDay, Said] = {}
        self.concluded: set[AppDay] = set()
        """Of days that are being concluded, the apps of which the last was said."""
        self.late: list[Batch] = []
        self._fed = 0
        """Flows and volumes since changes were asked for."""

    def feed(self, batch: Batch, form: str = "") -> None:
        """Take rows in. form: name of the reader that gave them."""
        before = len(self.registry.sources)
        self._fed += batch.rows.num_rows
        if batch.table == "flows":
            self._feed_flows(batch)
        elif batch.table == "volumes":
            records = volume_records(batch, self.registry)
            self.counts.volumes += len(records)
            self._hand_back(batch, self.open.add_volumes(records))
        elif batch.table == "signals":
            self._feed_signals(signal_records(batch, self.registry, self.texts))
        else:
            self.inventory.add(batch.rows)
        for name in self.registry.source_names()[before:]:
            self.formats[name] = form

    def changes(self, *, all_over: bool = False) -> list[Change]:
        """Judge what is over and what looks like relaying; what has changed since the last call.

        Where a day is over for many devices at once, each call judges some of them, and concludes some of the cases
        of a day, so that rows need not wait meanwhile. all_over: all of them.
        """
        touched = self._close_days(self.open.over(max(CLOSED_AT_ONCE, 2 * self._fed)))
        self._fed = 0
        while all_over and len(slots := self.open.over()):
            touched |= self._close_days(slots)
        found = self._say(touched | self._close_stretches() | self._judge_early())
        for day in self._days_over():
            found += self._conclude(day)
            while all_over and day in self.open.met:
                found += self._conclude(day)
        return found

    def drain(self) -> list[Change]:
        """No more rows come: judge everything, and close every finding."""
        while len(slots := self.open.over(all_of_them=True)):
            self._close_days(slots)
        found = []
        for day in sorted(self.open.met):
            while day in self.open.met:
                found += self._conclude(day)
        return found

    def take_late(self) -> list[Batch]:
        """Rows that came too late since the last call."""
        late, self.late = self.late, []
        return late

    def gauges(self) -> dict[str, float]:
        """Figures of the state: pairs, bytes of records, records late, duplicate and left out."""
        return {
            "active_pairs": self.open.active,
            "devices": len(self.registry.devices),
            "state_bytes": self.open.flows.held_bytes + self.open.volumes.held_bytes,
            "flows": self.counts.flows,
            "late_records": self.counts.late,
            "duplicate_records": self.counts.duplicates,
            "left_out_records": self.counts.left_out,
            "open_findings": sum(said.line is not None for said in self.said.values()),
        }

    def _feed_flows(self, batch: Batch) -> None:
        allowed = self.plan.settings.allowed_destinations
        rows = without_allowed(batch.rows, allowed) if allowed else batch.rows
        records = flow_records(Batch("flows", rows), self.registry, self.texts)
        self.counts.flows += len(records)
        late = self.open.add_flows(records)
        self._hand_back(Batch("flows", rows), late)
        self.contacted.add(records[~late])

    def _feed_signals(self, records: Records) -> None:
        self.counts.signals += len(records)
        for device in np.unique(records["device"]).tolist():
            held = self.signals.setdefault(device, [])
            held.append(records[records["device"] == device])
            if sum(map(len, held)) > 2 * MOST_SIGNALS or len(held) > MOST_PARTS:
                self.signals_of(np.array([device]))

    def _hand_back(self, batch: Batch, late: Flags) -> None:
        if late.any():
            self.counts.late += int(late.sum())
            self.late.append(Batch(batch.table, batch.rows.filter(pa.array(late))))

    def signals_of(self, devices: Ints) -> Records:
        """Signals of the devices, the latest MOST_SIGNALS of each."""
        found = [np.empty(0, SIGNAL)]
        for device in np.unique(devices).tolist():
            held = self.signals.get(device, [])
            if len(held) > 1:
                held[:] = [np.concatenate(held)]
            if held and len(held[0]) > MOST_SIGNALS:
                order = np.argsort(held[0]["start"], kind="stable")
                self.counts.left_out += len(order) - MOST_SIGNALS
                held[0] = held[0][order[-MOST_SIGNALS:]]
            found += held
        return np.concatenate(found)

    def _judged(self, slots: Ints) -> Part:
        """The slots' records, judged as they stand."""
        return self._judged_records(self.open.flows.read(slots)[0], self.open.volumes.read(slots)[0])

    def _judged_records(self, flows: Records, volumes: Records) -> Part:
        signals = self.signals_of(flows["device"])
        return judge_part(flows, volumes, signals, self.registry, self.plan.settings, self.plan.tables)

    def _close_days(self, slots: Ints) -> set[AppDay]:
        """Judge days that are over, and let their records go."""
        if not len(slots):
            return set()
        part = self._judged(slots)
        keys = self._keys(slots)
        stretches = self.open.column("stretches")[slots]
        for key, full in zip(keys, stretches.tolist(), strict=True):
            self.early.pop(key, None)
            self.whole.pop(key, None)
            before = self.told.pop(key, Told(full))
            after = before.and_then(part.told[key]) if key in part.told else before
            if after.case() is not None:
                self.told[key] = after
        self._note(part)
        self.open.close(slots)
        return set(keys)

    def _note(self, part: Part) -> None:
        """Take in what a final judgement says beside the apps' own cases."""
        self.whole.update({(case.app, case.day): case for case in part.whole})
        self.counts.duplicates += part.duplicates
        self.counts.left_out += part.unmatched

    def _close_stretches(self) -> set[AppDay]:
        """Judge full stretches of days that go on, and let their records go."""
        touched: set[AppDay] = set()
        for slots in self.open.pieces(self.open.full()):
            settled = zip(slots.tolist(), self.open.watermark(slots).tolist(), strict=True)
            touched |= self._close_full(
                [each for slot, mark in settled if (each := self._full(slot, mark)) is not None]
            )
        return touched

    def _full(self, slot: int, watermark: int) -> FullStretches | None:
        """The slot's stretches that are over, if any; it is not looked at again before it has grown."""
        one = np.array([slot])
        flows, _ = self.open.flows.read(one)
        flows, written = in_order_written(flows, self.registry.source_ranks())
        place = places_in_stretches(flows, written, np.zeros(len(flows), np.int64))
        settled = place[written < watermark]
        # A stretch is over when the one behind it has begun in settled time.
        done = place < int(settled.max(initial=0))
        self.open.slots["looked_flows"].values[slot] = int((~done).sum())
        if not done.any():
            return None
        ended = int(written[done].max())
        return FullStretches(slot, flows[done], flows[~done], ended, int(settled.max()), watermark)

    def _close_full(self, full: list[FullStretches]) -> set[AppDay]:
        if not full:
            return set()
        slots = np.array([each.slot for each in full])
        volumes, of = self.open.volumes.read(slots)
        part = self._judged_records(np.concatenate([each.done for each in full]), volumes)
        self.counts.duplicates += part.duplicates
        keys = self._keys(slots)
        for key, each in zip(keys, full, strict=True):
            before = self.told.get(key, Told(int(self.open.column("stretches")[each.slot])))
            after = before.and_then(part.told[key])
            if after.case() is not None:
                self.told[key] = after
            self.early.pop(key, None)
            self._let_go(each, volumes[of == each.slot])
        return set(keys)

    def _let_go(self, full: FullStretches, volumes: Records) -> None:
        """Keep of a slot what its full stretches leave."""
        one = np.array([full.slot])
        self.open.flows.clear(one)
        self.open.flows.append(np.full(len(full.left), full.slot), full.left)
        gone = flow_rows(full.done, volumes) >= 0
        gone |= volumes["start"] + volumes["duration"] <= full.boundary
        gone |= out_of_reach(volumes, full.left, np.full(len(volumes), full.watermark))
        self.open.volumes.clear(one)
        self.open.volumes.append(np.full(int((~gone).sum()), full.slot), volumes[~gone])
        self.open.slots["stretches"].values[full.slot] += full.stretches
        self.open.slots["boundary"].values[full.slot] = full.boundary

    def _judge_early(self) -> set[AppDay]:
        """Judge pairs that look like relaying, before their time."""
        touched: set[AppDay] = set()
        for slots in self.open.pieces(self.open.worth_judging()):
            touched |= self._judge_slots(slots)
        return touched

    def _judge_slots(self, slots: Ints) -> set[AppDay]:
        part = self._judged(slots)
        keys = self._keys(slots)
        self.open.slots["told"].values[slots] = [key in self.said for key in keys]
        for key in keys:
            self.whole.pop(key, None)
            told = part.told.get(key)
            if told is not None and told.strongest is not None:
                self.early[key] = told
            else:
                self.early.pop(key, None)
        for case in part.whole:
            self.whole[case.app, case.day] = case
        return set(keys)

    def _keys(self, slots: Ints) -> list[AppDay]:
        return list(zip(*(self.open.column(name)[slots].tolist() for name in ("app", "day")), strict=True))

    def _cases(self, day: int) -> list[Case]:
        """The cases of a day, as they stand."""
        found = []
        for key in {key for key in (*self.told, *self.early) if key[1] == day}:
            told, early = self.told.get(key), self.early.get(key)
            both = told.and_then(early) if told and early else told or early
            case = both.case() if both else None
            if case is not None:
                found.append(case)
        return stronger(found, [case for case in self.whole.values() if case.day == day])

    def _say(self, touched: Iterable[AppDay]) -> list[Change]:
        """What is to be said of the days in which something was judged; the cases that did not change are left."""
        changes = []
        for day in sorted({day for _, day in touched}):
            # Totals alone only say that more telemetry is needed: that can wait for the day's end.
            cases = [case for case in self._cases(day) if case.episode is not None]
            bar = relay_bar(evidence_of(cases, day), len(self.open.apps(day)), self.plan.settings)
            fresh = [case for case in cases if self._is_news(case, bar)]
            changes += self._told_of(fresh, day, bar)
            gone = {key for key in self.said if key[1] == day} - {(case.app, case.day) for case in cases}
            changes += [change for key in sorted(gone) for change in self._withdrawn(key)]
        return changes

    def _is_news(self, case: Case, bar: float) -> bool:
        """Whether there is more to say of a case than was said: it is another, or lies on the other side of the bar."""
        said = self.said.get((case.app, case.day))
        if said is None or said.case is not case:
            return True
        return (case.log_evidence >= bar) != (case.log_evidence >= said.bar)

    def _told_of(self, cases: list[Case], day: int, bar: float) -> list[Change]:
        """Say what these cases come to."""
        changes = []
        for case, finding in self._findings(cases, day, bar):
            before, line = self.said.get((case.app, case.day)), None if finding is None else json_line(finding)
            if finding is None:
                changes += self._withdrawn((case.app, case.day))
            elif before is None or before.line is None:
                changes.append(Change(Status.OPENED, finding))
            elif before.line != line:
                changes.append(Change(Status.UPDATED, finding))
            self.said[case.app, case.day] = Said(case, bar, line)
        return changes

    def _withdrawn(self, key: AppDay) -> list[Change]:
        said = self.said.pop(key, None)
        if said is None or said.line is None:
            return []
        return [Change(Status.WITHDRAWN, next(read_ndjson(StringIO(said.line))))]

    def _findings(self, cases: list[Case], day: int, bar: float) -> list[tuple[Case, Finding | None]]:
        """What each of a day's cases comes to; None where it is not worth a report."""
        if not cases:
            return []
        directory = self._directory(cases, day, bar)
        drafts = [draft_of(case, directory, self.plan.settings) for case in cases]
        installs = self._installs([draft for draft in drafts if draft is not None])
        return [(case, self._finding(draft, installs)) for case, draft in zip(cases, drafts, strict=True)]

    def _finding(self, draft: Draft | None, installs: Installs) -> Finding | None:
        if draft is None:
            return None
        package, parties = draft.compared
        finding = draft.finding(installs.beside(package, draft.key.device, parties))
        return None if finding is None else apply(finding, self.plan.exceptions, self.plan.now)

    def _installs(self, drafts: list[Draft]) -> Installs:
        wanted: dict[Packaged, set[str]] = {}
        for draft in drafts:
            package, parties = draft.compared
            if parties:
                wanted.setdefault(package, set()).update(parties)
        return self.contacted.installs(self.texts, wanted, {day: self.open.apps(day) for day, _ in wanted})

    def _directory(self, cases: list[Case], day: int, bar: float) -> Directory:
        keys = [case.flows[name] for case in cases for name in ("remote", "name")]
        keys += [case.signals["detail"] for case in cases]
        return Directory(
            apps=self.registry.app_keys(np.array([case.app for case in cases], np.uint32)),
            sources=self.registry.source_names(),
            texts=self.texts.texts(np.concatenate(keys)),
            formats=self.formats,
            inventory=self.inventory.index(),
            bars={day: bar},
            enrichment=self.plan.enrichment,
        )

    def _days_over(self) -> list[int]:
        """Days of which no app's records are held any more, and none is waited for."""
        given_up, going_on = self.open.given_up(), self.open.days()
        return sorted(day for day in self.open.met if day <= given_up and day < min(going_on, default=day + 1))

    def _conclude(self, day: int) -> list[Change]:
        """Say the last of some more cases of a day, by all that is known now; after all of them, forget the day."""
        self.open.end(day)
        every = self._cases(day)
        left = [case for case in every if (case.app, case.day) not in self.concluded]
        bar = relay_bar(evidence_of(every, day), len(self.open.apps(day)), self.plan.settings)
        changes = self._closed(left[:CONCLUDED_AT_ONCE], day, bar)
        if len(left) <= CONCLUDED_AT_ONCE:
            gone = sorted(key for key in self.said if key[1] == day)
            changes += [change for key in gone for change in self._withdrawn(key)]
            self._forget(day)
        return changes

    def _closed(self, cases: list[Case], day: int, bar: float) -> list[Change]:
        ranks = self.registry.source_ranks()
        last = [with_signals(case, self.signals_of(case.flows["device"][:1]), ranks) for case in cases]
        changes = []
        for case, finding in self._findings(last, day, bar):
            if finding is None:
                changes += self._withdrawn((case.app, case.day))
            else:
                changes.append(Change(Status.CLOSED, finding))
                self.said.pop((case.app, case.day), None)
            self.concluded.add((case.app, case.day))
        return changes

    def _forget(self, day: int) -> None:
        """Let go of everything that only a day that is over needs."""
        self.told = {key: told for key, told in self.told.items() if key[1] != day}
        self.early = {key: told for key, told in self.early.items() if key[1] != day}
        self.whole = {key: case for key, case in self.whole.items() if key[1] != day}
        self.concluded = {key for key in self.concluded if key[1] != day}
        self.open.forget(day)
        self.contacted.forget(day)
        begin, kept = (day + 1) * DAY_US - SIGNAL_REACH_US, {}
        for device in self.signals:
            held = self.signals_of(np.array([device]))
            left = held[(held["end"] < held["start"]) | (held["end"] >= begin)]
            if len(left):
                kept[device] = [left]
        self.signals = kept
        details = np.concatenate([np.empty(0, np.uint64), *(own["detail"] for (own,) in kept.values())])
        lasting = self.texts.texts(details)
        self.texts.day_over(self.open.met)
        self.texts.hold(lasting)
