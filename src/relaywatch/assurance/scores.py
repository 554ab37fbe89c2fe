"""From what became of each twin to a drill's figures, each with its exact interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from relaywatch.assurance.answers import NEEDS
from relaywatch.model.assurance import ALL_DEVICES, DrillRow, Figure, PopulationAlarms
from relaywatch.model.estimates import Estimate, proportion, rate
from relaywatch.model.finding import Topology, Verdict

ALARMS: Final = (Verdict.RELAY, Verdict.SUSPECTED_RELAY)


class Outcome(NamedTuple):
    """What became of one twin.

    population, provable: of its host's window; gaps: open there; restored: gaps given back; seconds, sessions: of
    relaying until the relay verdict, where there was one.
    """

    topology: Topology
    population: str
    provable: str
    verdict: Verdict | None
    evasion: str
    decoy: bool
    gaps: frozenset[str]
    restored: frozenset[str]
    seconds: float | None = None
    sessions: int | None = None

    @property
    def plain(self) -> bool:
        """A relay that does not hide, seen as the site sees."""
        return not (self.evasion or self.decoy or self.restored)


def figure(estimate: Estimate, trials: float) -> Figure:
    """The record of an estimate; its value is null where nothing was tried."""
    value = estimate.value if math.isfinite(estimate.value) else None
    high = estimate.high if math.isfinite(estimate.high) else None
    return Figure(value=value, low=estimate.low, high=high, trials=trials)


def share_of(hits: int, trials: int) -> Figure:
    """Share of hits, with its exact interval."""
    return figure(proportion(hits, trials), trials)


def drill_rows(outcomes: Sequence[Outcome]) -> list[DrillRow]:
    """Relays that do not hide, with decoys: by topology over all devices, then by population, by coverage's answer."""
    plain = [one for one in outcomes if one.plain or one.decoy]
    populations = sorted({one.population for one in plain})
    named = [ALL_DEVICES, *(populations if len(populations) > 1 else ())]
    return [
        row
        for population in named
        for row in _rows([one for one in plain if population in (ALL_DEVICES, one.population)], population)
    ]


def evasion_rows(outcomes: Sequence[Outcome]) -> list[DrillRow]:
    """Relays that hide, by topology and way of hiding; the way stands in the population's place."""
    hidden = [one for one in outcomes if one.evasion and not one.decoy and not one.restored]
    ways = dict.fromkeys(one.evasion for one in hidden)
    return [row for way in ways for row in _rows([one for one in hidden if one.evasion == way], way)]


def _rows(outcomes: Sequence[Outcome], population: str) -> list[DrillRow]:
    keys = dict.fromkeys(sorted(((one.topology, one.provable) for one in outcomes), key=_order))
    return [_row([one for one in outcomes if (one.topology, one.provable) == key], key, population) for key in keys]


def _order(key: tuple[Topology, str]) -> tuple[int, int]:
    return list(Topology).index(key[0]), ["yes", "in_part", "no"].index(key[1])


def _row(both: Sequence[Outcome], key: tuple[Topology, str], population: str) -> DrillRow:
    outcomes, decoys = [one for one in both if not one.decoy], [one for one in both if one.decoy]
    called = [one for one in outcomes if one.verdict is Verdict.RELAY]
    seconds = [one.seconds for one in called if one.seconds is not None]
    sessions = [one.sessions for one in called if one.sessions is not None]
    return DrillRow(
        topology=key[0].value,
        population=population,
        provable=key[1],
        played=len(outcomes),
        relay=share_of(len(called), len(outcomes)),
        flagged=share_of(sum(one.verdict in ALARMS for one in outcomes), len(outcomes)),
        seconds=median(seconds) if seconds else None,
        sessions=median(sessions) if sessions else None,
        decoys=decoy_share(decoys) if decoys else None,
    )


def decoy_share(outcomes: Sequence[Outcome]) -> Figure:
    """Share of decoys that are called relay."""
    decoys = [one for one in outcomes if one.decoy]
    return share_of(sum(one.verdict is Verdict.RELAY for one in decoys), len(decoys))


def gap_costs(outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    """Of the relays played where a gap is open, and of topologies that ask for it: the share called relay only without.

    "all of them": where several are open, with all of these given back.
    """
    costs = {}
    for gap in sorted({gap for one in outcomes for gap in one.gaps}):
        asking = [one for one in outcomes if gap in NEEDS[one.topology.value] and gap in one.gaps]
        played = sum(one.plain for one in asking)
        gained = sum(one.restored == {gap} and one.verdict is Verdict.RELAY for one in asking)
        if played:
            costs[gap] = share_of(gained, played)
    several = [one for one in outcomes if len(one.gaps) > 1]
    if several:
        gained = sum(len(one.restored) > 1 and one.verdict is Verdict.RELAY for one in several)
        costs["all of them"] = share_of(gained, sum(one.plain for one in several))
    return costs


def population_alarms(population: str, verdicts: Sequence[Verdict], app_days: float) -> PopulationAlarms:
    """Alarms of a population's own telemetry per app-day. verdicts: of all findings there."""
    counts = [sum(verdict in kinds for verdict in verdicts) for kinds in (ALARMS, (Verdict.RELAY,))]
    alarms, relays = (figure(rate(count, app_days), app_days) for count in counts)
    return PopulationAlarms(population=population, app_days=app_days, alarms=alarms, relays=relays)
