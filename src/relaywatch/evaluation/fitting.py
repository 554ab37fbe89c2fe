"""What relays' legs look like, measured on labelled traffic: the tables that detection weighs evidence with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.bridging import own_grades
from relaywatch.detection.calibration import ACCOUNT_BROAD, ACCOUNT_GRADES, ACCOUNT_NULL, PAIR_BROAD, Tables
from relaywatch.detection.chance import LINK_SHARES, log_evidence
from relaywatch.detection.columns import Floats, FlowColumns, Group, Ints, VolumeColumns, group_of
from relaywatch.detection.settings import Settings
from relaywatch.detection.tunnelling import (
    MANNERS,
    WAY_STAKES,
    account_classes,
    passing_of,
    scratch,
    sendings_of,
    volumes_of,
)

MANY_LEGS: Final = 10
"""Client legs from which a relay opens one for each session."""
FEWEST: Final = 5
"""Legs, or sendings of one size class, from which a program's frequencies are worth counting."""
MEASURED_SHARE: Final = 0.5
"""Most belief in what was measured; the rest stays with the broad tables, for programs that nobody has measured."""
DOUBT: Final = 2.0
"""Programs' worth of doubt: of n programs, n / (n + DOUBT) of MEASURED_SHARE is believed."""


class LabelledLegs(NamedTuple):
    """One relay: its program, the one group of its flows and volumes, and the rows of its client legs by label."""

    program: str
    flows: FlowColumns
    volumes: VolumeColumns
    legs: Ints


def fit(relays: Iterable[LabelledLegs]) -> Tables:
    """Tables of these relays: mean frequency of each grade over programs, each program alike, with broad ones mixed in.

    A program counts once, however many traces it has, so that no program's traffic decides.
    """
    pairs: dict[str, list[Ints]] = defaultdict(list)
    accounts: dict[str, list[Ints]] = defaultdict(list)
    for relay in relays:
        group = group_of(relay.flows, 0)
        if len(relay.legs) >= MANY_LEGS:
            window = Settings().time_window_s
            pairs[relay.program].append(own_grades(group, relay.legs, relay.legs, window))
        if len(relay.volumes.flow):
            counts = _account_counts(group, volumes_of(relay.flows, relay.volumes, 0), relay.legs)
            if counts is not None:
                accounts[relay.program].append(counts)
    by_size = [[np.sum(own, axis=0)[size] for own in accounts.values()] for size in range(len(ACCOUNT_BROAD))]
    return Tables(
        _mixed([np.sum(own, axis=0) for own in pairs.values()], PAIR_BROAD),
        np.array([_mixed(counts, broad) for counts, broad in zip(by_size, ACCOUNT_BROAD, strict=True)]),
    )


def _account_counts(group: Group, volumes: VolumeColumns, legs: Ints) -> Ints | None:
    """Sendings by size class and grade, in the way and manner that fits best; None where nothing passed."""
    best, found = -np.inf, None
    assumed = (ACCOUNT_BROAD / ACCOUNT_NULL).ravel()
    for way, believed in enumerate(WAY_STAKES):
        link, beside = passing_of(group, volumes, legs, way)
        if not len(link.second) or not len(beside.second):
            continue
        for manner in MANNERS:
            classes, _ = account_classes(link, beside, sendings_of(link, manner[3]), manner, scratch())
            counts = np.bincount(classes, minlength=assumed.size)
            evidence = log_evidence(assumed, counts, LINK_SHARES) + np.log(manner[4] * believed)
            if evidence > best:
                best, found = evidence, counts.reshape(-1, ACCOUNT_GRADES)
    return found


def _mixed(counts: Sequence[Ints], broad: Floats) -> Floats:
    """Mean of the programs' frequencies, with the broad table mixed in."""
    shares = [count / count.sum() for count in counts if count.sum() >= FEWEST]
    if not shares:
        return broad
    believed = MEASURED_SHARE * len(shares) / (len(shares) + DOUBT)
    return np.asarray(believed * np.mean(shares, axis=0) + (1.0 - believed) * broad)
