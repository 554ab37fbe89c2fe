"""Accepted sessions that no source lays to an app: judged with all connections of their device, as one unknown app.

A phone's own logs lay what it dials to apps, and say nothing of what it accepts. Then the two sides of a relay stand
under two names, and neither alone shows it; without the logs both would stand under none.
"""

from __future__ import annotations

import numpy as np

from relaywatch.engines.cases import Case
from relaywatch.engines.records import Codes, Records
from relaywatch.model.schemas import Direction

LEAST_SHARE = 0.5
"""Share of an episode's client legs that must be such sessions: others are told by their own app."""


def whole_devices(flows: Records, registry: Codes) -> Records:
    """All flows, as of one unknown app, of each device with accepted sessions of nobody beside flows of known apps."""
    hidden = registry.anonymous(flows["app"])
    of_nobody = flows[hidden & (flows["direction"] == Direction.INBOUND)]
    devices = np.intersect1d(of_nobody["device"], flows["device"][~hidden])
    found: Records = flows[np.isin(flows["device"], devices)].copy()
    if len(found):
        named, first = np.unique(of_nobody["device"], return_index=True)
        found["app"] = of_nobody["app"][first][np.searchsorted(named, found["device"])]
    return found


def rests_on_nobody(case: Case, flows: Records, registry: Codes) -> bool:
    """Whether the case's client side is mostly accepted sessions that no app is known for. flows: as they were."""
    if case.episode is None:
        return False
    nobody = flows[registry.anonymous(flows["app"]) & (flows["direction"] == Direction.INBOUND)]
    places = set(zip(nobody["source"].tolist(), nobody["position"].tolist(), strict=True))
    legs = case.flows[case.episode.legs]
    known = [key in places for key in zip(legs["source"].tolist(), legs["position"].tolist(), strict=True)]
    return sum(known) >= LEAST_SHARE * len(known)
