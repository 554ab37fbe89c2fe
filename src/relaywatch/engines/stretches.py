"""The unit of judgement: an app's flows of one day, in stretches of bounded length.

What is judged must not depend on how the telemetry came: as one file, in pieces, or as a stream of which only the
recent part is at hand. So flows are cut by what stands in their records alone. A flow belongs to the UTC day in which
it ended, which is when its record is written. An app's flows of one day, in the order of their ends, are cut into
stretches of MOST_FLOWS, and each stretch is judged by itself: whoever judges a stream holds one stretch per app, and
no more. Few apps have more than one a day.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from relaywatch.detection.columns import Flags, Floats, Ints
from relaywatch.engines.records import Records

DAY_US: Final = 86_400_000_000
MOST_FLOWS: Final = 1_024
"""Flows of a stretch: what must be held of an app to judge it as a stream."""
VOLUME_REACH_US: Final = 4 * 3_600_000_000
"""Volumes older than this when their flow ends are left out: what a link did hours ago says little of now."""
SAME_FLOW: Final = ("app", "start", "remote", "remote_port", "local_port", "protocol", "direction")
"""Two records with these equal show one flow, where its local port is known."""


def written_at(flows: Records) -> Ints:
    """When each flow's record was written, us since epoch: its end, or its start where no end is known."""
    return np.asarray(np.where(flows["end"] < flows["start"], flows["start"], flows["end"]), np.int64)


def app_days(flows: Records, written: Ints) -> Ints:
    """A number for each flow's (app, day), in their order. written: as written_at gives it."""
    day = written // DAY_US
    first = int(day.min()) if len(day) else 0
    return np.asarray(flows["app"].astype(np.int64) * (int(day.max(initial=first)) - first + 1) + (day - first))


def same_as_before(flows: Records) -> Flags:
    """Whether each flow but the first is the one before it, seen again.

    Flows whose local port is not known may be several of a kind: only the same record read again, which has the same
    number in its source, counts as the same.
    """
    same: npt.NDArray[np.bool_] = np.ones(max(len(flows) - 1, 0), bool)
    for name in SAME_FLOW:
        same &= flows[name][1:] == flows[name][:-1]
    if same.any():
        same &= (flows["local_port"][1:] != 0) | (np.diff(flows["flow_id"]) == 0)
    return same


def places_in_stretches(flows: Records, written: Ints, groups: Ints) -> Ints:
    """The stretch of each flow, from 0. All must be ordered by (group, written, everything else)."""
    fresh = np.ones(len(flows), np.int64)
    fresh[1:] = ~(same_as_before(flows) & (np.diff(written) == 0))
    begins = np.flatnonzero(np.append(True, np.diff(groups) != 0))
    count = np.cumsum(fresh)
    before = np.repeat(count[begins] - 1, np.diff(np.append(begins, len(flows))))
    return np.asarray((count - 1 - before) // MOST_FLOWS, np.int64)


def evidence_of_day(log_evidence: Floats, stretches: int) -> float:
    """Natural log evidence of a day of so many stretches, from those that have any.

    The mean of e-values is an e-value, whatever they have in common (Vovk and Wang, E-values, Annals of Statistics
    2021); a stretch without evidence counts as none.
    """
    top = float(log_evidence.max())
    return top + float(np.log(np.exp(log_evidence - top).sum() / stretches))
