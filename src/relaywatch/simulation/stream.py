"""A fleet's records as a stream of canonical batches, slice of time by slice of time.

Flows are drawn in the slice in which their bout or episode begins and held until their record arrives, when they end;
so memory follows what is open at a time, never how many flows there are. Every slice has random numbers of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import polars as pl

from relaywatch.engines.records import taken
from relaywatch.model.relay_shapes import received_by_tenth, shapes
from relaywatch.model.tables import Batch
from relaywatch.simulation import context
from relaywatch.simulation.chance import stream_of
from relaywatch.simulation.day import shares, slice_bounds, use_by_part
from relaywatch.simulation.drafts import DRAFT, FACT, PIECE, Drafts, joined
from relaywatch.simulation.faults import Recorder
from relaywatch.simulation.fleet import fleet_of
from relaywatch.simulation.lateness import lateness_of
from relaywatch.simulation.ordinary import ordinary
from relaywatch.simulation.plan import APPS_A_PHONE, DAY_US, SECOND, Plan
from relaywatch.simulation.records import Writer
from relaywatch.simulation.relaying import TOPOLOGIES, Episodes, episodes_of, relayed
from relaywatch.simulation.volumes import seconds_of

ROWS: Final = 65_536
"""Rows of a batch at most."""
DEVICES_AT_ONCE: Final = 2_000
"""Devices whose inventory is one batch."""
SHUFFLED_TOGETHER: Final = 8
"""Slices, far apart in time, whose rows are mixed where flows are in no order."""
FOREVER: Final = 1 << 62
_ORDINARY, _ORDER = 31, 32


@dataclass(slots=True)
class Account:
    """What was made so far: rows by table; of the flows those repeated, late, and missing in gaps."""

    flows: int = 0
    volumes: int = 0
    signals: int = 0
    inventory: int = 0
    repeated: int = 0
    late: int = 0
    missing: int = 0

    def counted(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Slice:
    """What begins in one slice of time: flows as recorded, what volumes come of, and signals."""

    flows: Drafts
    carried: Drafts
    facts: Drafts


class Simulation:
    """One fleet. Raises SettingError where the plan has too few flows for its relays."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.account = plan, Account()
        self._fleet, self._lateness = fleet_of(plan), lateness_of(plan)
        self._episodes = episodes_of(plan, self._fleet)
        self._bounds = slice_bounds(plan)
        self._use, self._profile = use_by_part(), np.array(received_by_tenth())
        self._recorder = Recorder(plan, self._lateness, self._fleet.skew)
        self._writer = Writer(plan, self._fleet)
        self._plain = shares(plan.flows - int(self._episodes.flows.sum()), len(self._bounds) - 1)
        self._begun = np.searchsorted(self._episodes.begin, self._bounds)
        self._begun[-1] = len(self._episodes.begin)
        self._relayed = np.concatenate([[0], np.cumsum(self._episodes.flows)])
        self._watching = len(self._writer.texts.asked) - 2

    def truth(self) -> pl.DataFrame:
        """Who relays: a row an episode, with device, app, topology, program, begin and end, sessions and flows.

        Times are true ones, whatever the device's clock said. What faults left out of the records is in it.
        """
        own, texts, fleet = self._episodes, self._writer.texts, self._fleet
        program = [shapes()[TOPOLOGIES[kind]][k].program for kind, k in zip(own.topology, own.shape, strict=True)]
        begin = self.plan.begin_us + own.begin
        frame = pl.DataFrame(
            {
                "device_uid": texts.device.take(own.pair // APPS_A_PHONE),
                "android_package": texts.package.take(fleet.app_of[own.pair]),
                "android_uid": fleet.uid_base[own.pair // APPS_A_PHONE] + own.pair % APPS_A_PHONE,
                "topology": [TOPOLOGIES[kind].value for kind in own.topology],
                "program": program,
                "begin": begin,
                "end": begin + own.length,
                "sessions": own.sessions,
                "flows": own.flows,
            }
        )
        return frame.with_columns(pl.col("begin", "end").cast(pl.Datetime("us", "UTC")))

    def batches(self, rows: int = ROWS) -> Iterator[Batch]:
        """All records, at most `rows` a batch: inventory first, then slice by slice signals, volumes and flows.

        Within a table records are in the order in which they arrive, unless the plan shuffles them. The rows are the
        same however large batches are, and however many are asked for.
        """
        made = self._shuffled() if self.plan.shuffled else self._in_order()
        for batch in (part for whole in (self._inventory(), made) for part in whole):
            table = batch.table
            for first in range(0, batch.rows.num_rows, rows):
                part = Batch(table, batch.rows.slice(first, rows))
                setattr(self.account, table, getattr(self.account, table) + part.rows.num_rows)
                yield part

    def _inventory(self) -> Iterator[Batch]:
        if self.plan.inventory:
            for first in range(0, self.plan.devices, DEVICES_AT_ONCE):
                yield self._writer.inventory(range(first, min(first + DEVICES_AT_ONCE, self.plan.devices)))

    def _in_order(self) -> Iterator[Batch]:
        flows, carried, facts = np.empty(0, DRAFT), np.empty(0, DRAFT), np.empty(0, FACT)
        since, last = -FOREVER, len(self._bounds) - 2
        longest = self._lateness.late_us + SECOND  # after which nothing more of a flow arrives
        for number in range(last + 1):
            until = FOREVER if number == last else int(self._bounds[number + 1])
            own = self._slice(number)
            flows, due = _due(joined([flows, own.flows]), until)
            facts, told = _due(joined([facts, own.facts]), until)
            carried = joined([carried, own.carried])
            yield from self._written(told, carried, due, since, until)
            carried = taken(carried, np.flatnonzero(carried["idle"] + longest >= until))
            since = until

    def _shuffled(self) -> Iterator[Batch]:
        """The same records, slices in a random order and mixed some together."""
        rng = np.random.default_rng(np.random.SeedSequence(self.plan.seed, spawn_key=(_ORDER,)))
        order = rng.permutation(len(self._bounds) - 1)
        for first in range(0, len(order), SHUFFLED_TOGETHER):
            parts = [self._slice(int(number)) for number in order[first : first + SHUFFLED_TOGETHER]]
            flows, facts = (joined(own) for own in zip(*((p.flows, p.facts) for p in parts), strict=True))
            carried = joined([part.carried for part in parts])
            facts, flows = (taken(own, rng.permutation(len(own))) for own in (facts, flows))
            yield from self._written(facts, carried, flows, -FOREVER, FOREVER)

    def _written(self, facts: Drafts, carried: Drafts, flows: Drafts, since: int, until: int) -> Iterator[Batch]:
        if len(facts):
            yield self._writer.signals(facts)
        if len(carried):
            skew = self._fleet.skew
            yield self._writer.volumes(seconds_of(carried, since, until, self._profile, skew, self._lateness))
        if len(flows):
            yield self._writer.flows(flows)

    def _slice(self, number: int) -> _Slice:
        """All that begins in a slice. It depends on the plan and the number alone."""
        episodes = self._episodes.rows(slice(self._begun[number], self._begun[number + 1]))
        flow = int(self._plain[number] + self._relayed[self._begun[number]])
        plain, bouts = self._ordinary(number, flow)
        relays = relayed(self.plan.seed, number, episodes, flow + len(plain), self._fleet)
        drafts = joined([plain, relays])
        whole = taken(drafts, np.flatnonzero(drafts["kind"] != PIECE))
        recorded = self._recorder.recorded(whole)
        self.account.missing += recorded.missing
        self.account.repeated += recorded.repeated
        self.account.late += recorded.late
        carried = taken(drafts, np.flatnonzero(self._fleet.fine[drafts["pair"] // APPS_A_PHONE]))
        return _Slice(recorded.drafts, carried, self._facts(number, bouts, episodes, whole))

    def _ordinary(self, number: int, first: int) -> tuple[Drafts, Drafts]:
        count = int(self._plain[number + 1] - self._plain[number])
        state = stream_of(self.plan.seed, _ORDINARY, number)
        begin, end = int(self._bounds[number]), int(self._bounds[number + 1])
        return ordinary(state, first, count, begin, end, self._use, self._fleet)

    def _facts(self, number: int, bouts: Drafts, episodes: Episodes, drafts: Drafts) -> Drafts:
        begin, end = (int(bound) for bound in self._bounds[number : number + 2])
        days = range(-(-begin // DAY_US), min(-(-end // DAY_US), self.plan.days))
        parts = [context.of_days(days, self._fleet, self._lateness, self._watching)]
        if self._fleet.watched.any():
            parts += [
                context.of_bouts(bouts, self._fleet),
                context.of_episodes(episodes, self._fleet),
                context.of_lookups(drafts, self._fleet),
            ]
        return context.recorded(joined(parts), self._fleet, self._lateness)


def _due(drafts: Drafts, until: int) -> tuple[Drafts, Drafts]:
    """What is still to come, and what has arrived before `until`, in order."""
    arrival = drafts["arrival"]
    due, held = np.flatnonzero(arrival < until), np.flatnonzero(arrival >= until)
    return taken(drafts, held), taken(drafts, due[np.argsort(arrival[due], kind="stable")])


def simulate(plan: Plan, rows: int = ROWS) -> Iterator[Batch]:
    """The records of a fleet, at most `rows` a batch, as Simulation.batches gives them."""
    return Simulation(plan).batches(rows)
