"""Which record of one source is which flow of another: same endpoints, near in time, each used once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

ROUNDS: Final = 32
"""Rounds of mutual choice; each leaves at most as many rivals as connections to one endpoint within the tolerance."""
RIVALS: Final = 4
"""Neighbours in time that are looked at on each side."""
PASSES: Final = 16
"""Times that what is left is looked at again: neighbours that all were taken may hide one a little further away."""


@dataclass(frozen=True, slots=True)
class Side:
    """Connections of one source on one device.

    key: equal for equal endpoints; start, end: s, on a common clock; first_seen: start is only when the connection was
    first seen open, so that it began before.
    """

    key: Ints
    start: Floats
    end: Floats
    first_seen: Flags


@dataclass(frozen=True, slots=True)
class Matches:
    """Rows of either side that are the same connection.

    distance: s between what they say; rivals: how many other rows of `left` could have been it, within the tolerance;
    others: how many other rows of `right` it could have been.
    """

    left: Ints
    right: Ints
    distance: Floats
    rivals: Ints
    others: Ints


def differences(left: Side, right: Side, *, most_repeated: int = 64, largest: float) -> Floats:
    """left.start - right.start, s, of all pairs of equal key within `largest`; often repeated keys are left out."""
    rows, order, first, last = _spans(left, right)
    counts = np.where(last - first <= most_repeated, last - first, 0)
    of = np.repeat(rows, counts)
    begin = np.repeat(first, counts)
    place = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    found: Floats = left.start[of] - right.start[order[begin + place]]
    return found[np.abs(found) <= largest]


def match(left: Side, right: Side, tolerance: float) -> Matches:
    """Pairs of rows, each row in one pair at most, nearest first; tolerance: s between the clocks' statements.

    A row that is only first seen matches any connection that was open then.
    """
    rest_left, rest_right = np.arange(len(left.key)), np.arange(len(right.key))
    candidates = _candidates(left, right, tolerance)
    fitting = np.bincount(candidates[1], minlength=len(right.key))
    choices = np.bincount(candidates[0], minlength=len(left.key))
    empty = np.empty(0, np.int64)
    found = [(empty, empty, np.empty(0, np.float64), empty, empty)]
    for earlier in range(PASSES):
        one, other, distance = _mutual(*candidates, len(rest_left), len(rest_right))
        if not len(one):
            break
        # What is matched late had neighbours that others took: any of those could have been it.
        rivals = np.maximum(fitting[rest_right[other]] - 1, min(earlier, 1))
        others = np.maximum(choices[rest_left[one]] - 1, min(earlier, 1))
        found.append((rest_left[one], rest_right[other], distance, rivals, others))
        rest_left, rest_right = np.delete(rest_left, one), np.delete(rest_right, other)
        candidates = _candidates(_part(left, rest_left), _part(right, rest_right), tolerance)
    return Matches(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _part(side: Side, rows: Ints) -> Side:
    return Side(side.key[rows], side.start[rows], side.end[rows], side.first_seen[rows])


def _mutual(pair_left: Ints, pair_right: Ints, distance: Floats, lefts: int, rights: int) -> tuple[Ints, Ints, Floats]:
    """Of candidate pairs in order of distance, those that are each other's nearest, then of what these leave."""
    taken_left: Flags = np.zeros(lefts, bool)
    taken_right: Flags = np.zeros(rights, bool)
    chosen: list[Ints] = []
    alive = np.arange(len(pair_left))
    for _ in range(ROUNDS):
        alive = alive[~taken_left[pair_left[alive]] & ~taken_right[pair_right[alive]]]
        if not len(alive):
            break
        mutual = alive[_nearest(pair_left[alive], distance[alive]) & _nearest(pair_right[alive], distance[alive])]
        taken_left[pair_left[mutual]] = True
        taken_right[pair_right[mutual]] = True
        chosen.append(mutual)
    rows = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
    return pair_left[rows], pair_right[rows], distance[rows]


def _spans(left: Side, right: Side) -> tuple[Ints, Ints, Ints, Ints]:
    """Rows of left that have their key on the right; right's rows by (key, start); where each key's rows are there."""
    order = np.lexsort((right.start, right.key))
    keys = right.key[order]
    first = np.searchsorted(keys, left.key, side="left")
    last = np.searchsorted(keys, left.key, side="right")
    rows = np.flatnonzero(last > first)
    return rows, order, first[rows], last[rows]


def _candidates(left: Side, right: Side, tolerance: float) -> tuple[Ints, Ints, Floats]:
    """Pairs of equal key that may be one connection, with their distance: up to RIVALS neighbours in time each way."""
    rows, order, first, last = _spans(left, right)
    starts = right.start[order]
    # The place of each left row among the right rows of its key, by time.
    width = float(starts.max() - starts.min()) + 1.0 if len(starts) else 1.0
    lowest = float(starts.min()) if len(starts) else 0.0
    _, group = np.unique(right.key[order], return_inverse=True)
    composite = group * (2.0 * width) + (starts - lowest)
    own = group[first] * (2.0 * width) + np.clip(left.start[rows] - lowest, -width / 2, 1.5 * width)
    place = np.clip(np.searchsorted(composite, own), first, last)
    parts = []
    for step in range(-RIVALS, RIVALS):
        at = place + step
        inside = (at >= first) & (at < last)
        parts.append((rows[inside], order[at[inside]]))
    pair_left = np.concatenate([part[0] for part in parts])
    pair_right = np.concatenate([part[1] for part in parts])
    distance = _distance(left, right, pair_left, pair_right)
    near = distance <= tolerance
    kept = np.lexsort((pair_right[near], pair_left[near], distance[near]))
    return pair_left[near][kept], pair_right[near][kept], distance[near][kept]


def _distance(left: Side, right: Side, pair_left: Ints, pair_right: Ints) -> Floats:
    """S between the statements: of begins where both are, else how far outside of the connection it was first seen."""
    a, b = left.start[pair_left], right.start[pair_right]
    apart = np.abs(a - b)
    left_late = np.maximum(np.maximum(b - a, a - np.maximum(right.end[pair_right], b)), 0.0)
    right_late = np.maximum(np.maximum(a - b, b - np.maximum(left.end[pair_left], a)), 0.0)
    both = left.first_seen[pair_left] & right.first_seen[pair_right]
    found: Floats = np.where(
        both,
        np.minimum(left_late, right_late),
        np.where(left.first_seen[pair_left], left_late, np.where(right.first_seen[pair_right], right_late, apart)),
    )
    return found


def _nearest(rows: Ints, distance: Floats) -> Flags:
    """Whether each pair (in order of distance) is its row's nearest."""
    _, first = np.unique(rows, return_index=True)
    nearest: npt.NDArray[Any] = np.zeros(len(rows), bool)
    nearest[first] = True
    return nearest
