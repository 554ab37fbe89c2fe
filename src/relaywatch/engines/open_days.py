"""The days of apps that are not over yet: their records, the clocks of devices, and what has come too late.

One slot holds one app's day. Time is event time, and each device has a clock of its own: what was written more than
`lateness` before the latest record of its device is settled, and no record of that time is waited for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from relaywatch.detection.columns import Flags, Ints
from relaywatch.engines.arrangement import flow_rows
from relaywatch.engines.pairs import PairStore
from relaywatch.engines.records import FLOW, VOLUME, Records, Registry
from relaywatch.engines.stretches import DAY_US, MOST_FLOWS, VOLUME_REACH_US, written_at

AT_ONCE: Final = 1_000_000
"""Records taken out in one go, or those of one device where it has more."""
NEVER: Final = int(np.iinfo(np.int64).min)
END_OF_TIME: Final = int(np.iinfo(np.int64).max)
CLOCK_AHEAD_US: Final = DAY_US
"""How far a record may lie in the future: as far as a time zone that was taken for another."""
NO_SLOT: Final = -1
GROWTH: Final = 1.25
GROWTH_OF_OTHERS: Final = 2.0
"""A pair is looked at again when it has grown by this factor; by the second one if it was told of, so that it has less
to add, or if no more of its flows since then are mirrored than may be by chance."""
BY_CHANCE: Final = 0.05
"""Share of flows that mirror one of the app's last ones, up to which nothing is made of it in haste."""
FEWEST_MIRRORED: Final = 3
FEWEST_VOLUMES: Final = 20
"""Mirrored flows, or volumes, from which a pair is worth judging before its time."""
SLOT_COLUMNS: Final = {
    "app": 0,
    "device": 0,
    "day": NEVER,
    "boundary": NEVER,
    "stretches": 0,
    "mirrored": 0,
    "looked_mirrored": 0,
    "looked_volumes": 0,
    "looked_flows": 0,
    "looked_met": 0,
    "told": 0,
}
"""What is kept of a slot, and its value in an empty one. boundary: when the last flow of the last full stretch was
written; stretches: that were full; looked_*: what it held when it was last looked at, and how many flows it had met;
told: 1 where it was told of."""


class Growing:
    """An array of int64 that grows with the codes by which it is indexed."""

    def __init__(self, empty: int) -> None:
        self._empty = empty
        self.values = np.full(1_024, empty, np.int64)

    def upto(self, size: int) -> Ints:
        """The array, with room for `size` entries at least."""
        if size > len(self.values):
            more = max(size, len(self.values) * 3 // 2) - len(self.values)
            self.values = np.append(self.values, np.full(more, self._empty, np.int64))
        return self.values


class OpenDays:
    """Records of apps' days, by slot."""

    def __init__(
        self,
        registry: Registry,
        folder: Path,
        lateness_us: int,
        lag_us: int | None,
        present_us: Callable[[], int] | None = None,
    ) -> None:
        """folder: for the files of records; lag_us: how far a device may lie behind the fleet; None: any far.

        present_us: tells the time. No clock runs further ahead of it than records may be out of order.
        """
        self._registry, self._lateness, self._lag = registry, lateness_us, lag_us
        self._present = present_us or (lambda: END_OF_TIME)
        self.flows = PairStore(FLOW, folder / "flows.blocks")
        self.volumes = PairStore(VOLUME, folder / "volumes.blocks")
        self.slots = {name: Growing(empty) for name, empty in SLOT_COLUMNS.items()}
        self.high, self.closed = Growing(NEVER), Growing(NEVER)
        """By device: when the latest record was written, and the last day that is over."""
        self._slot_of: defaultdict[int, Growing] = defaultdict(lambda: Growing(NO_SLOT))
        self.forgotten = NEVER
        """The last day that is over for all."""
        self._free: list[int] = []
        self._used = 0
        self.met: defaultdict[int, Growing] = defaultdict(lambda: Growing(0))
        """By day: 1 at the code of each app that had flows."""
        self._anew = np.empty(0, np.int64)
        """Slots to be looked at whatever they hold."""

    @property
    def upto(self) -> int:
        """Slots lie below it."""
        return self._used

    @property
    def active(self) -> int:
        """Slots in use."""
        return self._used - len(self._free)

    def column(self, name: str) -> Ints:
        """One of SLOT_COLUMNS, by slot."""
        return self.slots[name].upto(self._used)[: self._used]

    def add_flows(self, flows: Records) -> Flags:
        """Take flows in; which of them came too late, or from the future, and were not."""
        written = written_at(flows)
        slots = self._slots(flows, written)
        late: Flags = slots == NO_SLOT
        late |= ~late & (written <= self.slots["boundary"].values[slots])
        kept, of = flows[~late], slots[~late]
        self.flows.append(of, kept, self.slots["mirrored"].upto(self._used))
        if len(flows):
            reached = np.minimum(written, min(self._present() + self._lateness, END_OF_TIME))
            np.maximum.at(self.high.upto(int(flows["device"].max()) + 1), flows["device"], reached)
        days = written[~late] // DAY_US
        for day in _distinct(days):
            apps = kept["app"][days == day]
            self.met[day].upto(int(apps.max()) + 1)[apps] = 1
        return late

    def add_volumes(self, volumes: Records) -> Flags:
        """Take volumes in; which of them came too late, or from the future, and were not."""
        slots = self._slots(volumes, volumes["start"])
        late: Flags = slots == NO_SLOT
        self.volumes.append(slots[~late], volumes[~late])
        return late

    def over(self, records: int = AT_ONCE, *, all_of_them: bool = False) -> Ints:
        """Slots whose day is over, of whole devices, so many records at a time. all_of_them: nothing comes any more."""
        day, device = self.column("day"), self.column("device")
        begun = day != NEVER
        if not all_of_them:
            begun &= day < self._settled_days()[device]
        return next(self.pieces(np.flatnonzero(begun), records), np.empty(0, np.int64))

    def pieces(self, slots: Ints, records: int = AT_ONCE) -> Iterator[Ints]:
        """The slots, those of a device and day together, so many records or a little more at a time."""
        day, device = self.column("day"), self.column("device")
        rest = slots[np.lexsort((device[slots], day[slots]))]
        while len(rest):
            held = np.cumsum(self.flows.totals(rest) + self.volumes.totals(rest))
            stop = min(int(np.searchsorted(held, records)), len(rest) - 1)
            same = (device[rest] == device[rest[stop]]) & (day[rest] == day[rest[stop]])
            ends = int(np.flatnonzero(same)[-1]) + 1
            yield rest[:ends]
            rest = rest[ends:]

    def full(self) -> Ints:
        """Slots that may hold a full stretch."""
        held = self.flows.totals(np.arange(self._used))
        return np.flatnonzero((held > MOST_FLOWS) & (held >= self.column("looked_flows") * GROWTH))

    def worth_judging(self) -> Ints:
        """Slots with more signs of relaying than when they were last looked at; of unknown apps, of whole devices."""
        every = np.arange(self._used)
        mirrored, volumes = self.column("mirrored"), self.volumes.totals(every)
        met = self.flows.totals(every) + self.column("stretches") * MOST_FLOWS
        looked = self.column("looked_mirrored")
        chance = mirrored - looked <= BY_CHANCE * (met - self.column("looked_met"))
        growth = np.where(chance | (self.column("told") > 0), GROWTH_OF_OTHERS, GROWTH)
        found = (mirrored >= FEWEST_MIRRORED) & (mirrored >= growth * np.maximum(looked, chance * FEWEST_MIRRORED))
        found |= (volumes >= FEWEST_VOLUMES) & (volumes >= GROWTH * self.column("looked_volumes"))
        found[self._anew] = True
        self._anew = self._anew[:0]
        slots = np.flatnonzero(found & (self.column("day") != NEVER))
        for name, values in (("looked_mirrored", mirrored), ("looked_volumes", volumes), ("looked_met", met)):
            self.slots[name].values[slots] = values[slots]
        return self._with_their_devices(slots)

    def _with_their_devices(self, slots: Ints) -> Ints:
        """The slots, and where one is of an unknown app, all others of its device and day: they are judged together."""
        unknown = slots[self._registry.anonymous(self.column("app")[slots].astype(np.uint32))]
        if not len(unknown):
            return slots
        device, day = self.column("device"), self.column("day")
        together = np.isin(device, device[unknown]) & np.isin(day, day[unknown])
        return np.union1d(slots, np.flatnonzero(together))

    def watermark(self, slots: Ints) -> Ints:
        """Time before which the records of each slot's device are settled, us since epoch."""
        return self._settled()[self.column("device")[slots]]

    def close(self, slots: Ints) -> None:
        """The days of these slots are over; their records are let go."""
        device, day, app = (self.column(name)[slots] for name in ("device", "day", "app"))
        np.maximum.at(self.closed.upto(int(device.max(initial=0)) + 1), device, day)
        for which in np.unique(day).tolist():
            self._slot_of[which].values[app[day == which]] = NO_SLOT
        self.flows.clear(slots)
        self.volumes.clear(slots)
        for name, empty in SLOT_COLUMNS.items():
            self.slots[name].values[slots] = empty
        self._free.extend(slots.tolist())

    def days(self) -> set[int]:
        """Days that are not over for some app."""
        return set(np.unique(self.column("day")).tolist()) - {NEVER}

    def end(self, day: int) -> None:
        """The day is over for all: whatever comes of it is late."""
        self.forgotten = max(self.forgotten, day)

    def forget(self, day: int) -> None:
        """Let go of a day that is over for all."""
        self.end(day)
        self._slot_of.pop(day, None)
        self.met.pop(day, None)

    def given_up(self) -> int:
        """The last day of which no device's records are waited for."""
        clocks = self._clocks()
        if self._lag is None or not len(clocks):
            return NEVER
        return (_reached(clocks) - self._lag) // DAY_US - 1

    def _clocks(self) -> Ints:
        """The clocks of devices of which something is open; of all, where nothing is: those that are gone stop none."""
        high = self.high.upto(len(self._registry.devices))
        going_on = np.zeros(len(high), np.bool_)
        going_on[self.column("device")[self.column("day") != NEVER]] = True
        clocks = high[going_on] if going_on.any() else high
        return np.asarray(clocks[clocks != NEVER])

    def apps(self, day: int) -> Ints:
        """Codes of the apps that had flows on a day."""
        return np.flatnonzero(self.met[day].values)

    def state(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Slots and devices as columns, copied; records aside."""
        used = np.flatnonzero(self.column("day") != NEVER)
        slots = {"slot": used, **{name: self.column(name)[used] for name in SLOT_COLUMNS}}
        devices = len(self._registry.devices)
        return {
            "slots": slots,
            "devices": {
                name: growing.upto(devices)[:devices].copy()
                for name, growing in (("high", self.high), ("closed", self.closed))
            },
        }

    def look_anew(self) -> None:
        """What was looked at before is worth judging once more: what came of it is not there."""
        looked = (self.column("looked_mirrored") > 0) | (self.column("looked_volumes") > 0)
        self._anew = np.flatnonzero(looked)

    def restore(self, slots: dict[str, npt.NDArray[Any]], devices: dict[str, npt.NDArray[Any]]) -> None:
        """Take what `state` gave."""
        slot = slots["slot"].astype(np.int64)
        self._used = int(slot.max(initial=-1)) + 1
        for name in SLOT_COLUMNS:
            self.slots[name].upto(self._used)[slot] = slots[name]
        self._free = np.setdiff1d(np.arange(self._used), slot).tolist()
        for day in np.unique(slots["day"]).tolist():
            rows = slots["day"] == day
            app = slots["app"][rows]
            self._slot_of[day].upto(int(app.max()) + 1)[app] = slot[rows]
        for name, growing in (("high", self.high), ("closed", self.closed)):
            growing.upto(len(devices[name]))[: len(devices[name])] = devices[name]

    def _slots(self, records: Records, when: Ints) -> Ints:
        """The slot of each record, given out where there is none; NO_SLOT where its day is over, or far ahead."""
        out, day = np.full(len(records), NO_SLOT, np.int64), when // DAY_US
        if not len(records):
            return out
        fresh = (day > self.forgotten) & (day > self.closed.upto(int(records["device"].max()) + 1)[records["device"]])
        fresh &= when <= min(self._present() + CLOCK_AHEAD_US, END_OF_TIME)
        for which in _distinct(day[fresh]):
            rows = np.flatnonzero(fresh & (day == which))
            app = records["app"][rows]
            slot_of = self._slot_of[which].upto(int(app.max()) + 1)
            new, first = np.unique(app[slot_of[app] == NO_SLOT], return_index=True)
            if len(new):
                device = records["device"][rows[slot_of[app] == NO_SLOT][first]]
                slot_of[new] = self._given_out(new, device, which)
            out[rows] = slot_of[app]
        return out

    def _given_out(self, apps: npt.NDArray[np.uint32], devices: npt.NDArray[np.uint32], day: int) -> Ints:
        again = self._free[: len(apps)]
        del self._free[: len(apps)]
        more = len(apps) - len(again)
        slots = np.array([*again, *range(self._used, self._used + more)], np.int64)
        self._used += more
        for name, empty in SLOT_COLUMNS.items():
            self.slots[name].upto(self._used)[slots] = empty
        for name, values in (("app", apps), ("device", devices)):
            self.slots[name].values[slots] = values
        self.slots["day"].values[slots] = day
        return slots

    def _settled(self) -> Ints:
        """By device: before this, us since epoch, its records are settled."""
        devices = len(self._registry.devices)
        high = self.high.upto(devices)[:devices]
        clocks = self._clocks()
        settled = np.where(high == NEVER, NEVER, high - self._lateness)
        if self._lag is None or not len(clocks):
            return settled
        return np.maximum(settled, _reached(clocks) - self._lag)

    def _settled_days(self) -> Ints:
        return self._settled() // DAY_US


def _distinct(days: Ints) -> list[int]:
    """The days, each once; mostly there is but one."""
    if len(days) and days.min() == days.max():
        return [int(days[0])]
    found: list[int] = np.unique(days).tolist()
    return found


def _reached(clocks: Ints) -> int:
    """The clock that a quarter of the devices has reached: a few that run ahead end no days, those gone hold none."""
    place = 3 * (len(clocks) - 1) // 4
    return int(np.partition(clocks, place)[place])


def out_of_reach(volumes: Records, flows: Records, watermark: Ints) -> Flags:
    """Volumes that no flow can claim any more: theirs is not here, and whichever still comes is too far away.

    watermark: of each volume's device, us since epoch.
    """
    held = flow_rows(flows, volumes) >= 0
    return np.asarray(~held & (volumes["start"] + volumes["duration"] <= watermark - VOLUME_REACH_US))
