"""Signals around a case, as detection weighs them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from relaywatch.detection.context import Intervals, Surroundings
from relaywatch.engines.arrangement import US
from relaywatch.engines.cases import Case
from relaywatch.engines.records import Records
from relaywatch.model.schemas import SignalKind

NOT_INTERVALS = frozenset({SignalKind.CAPTURE, SignalKind.LOGGING_GAP})


def surroundings_of(case: Case, texts: Mapping[int, str]) -> Surroundings:
    """Intervals of each kind for the app and for its device, in s from the case's origin."""
    during = _during(case)
    own = case.signals[(case.signals["app"] == case.app) & during]
    listening = own["local_port"][(own["kind"] == SignalKind.LISTENER) & (own["local_port"] > 0)]
    return Surroundings(
        observable=capture_kinds(case.signals, texts) | {SignalKind(int(kind)) for kind in np.unique(own["kind"])},
        app=_intervals(own, case.origin),
        device=_intervals(case.signals[during], case.origin),
        listening=frozenset(listening.tolist()),
    )


def _during(case: Case) -> npt.NDArray[np.bool_]:
    """Which of the case's signals overlap the time of its flows; an unknown end leaves a signal open."""
    first, last = case.flows["start"].min(), max(case.flows["start"].max(), case.flows["end"].max())
    signals = case.signals
    return np.asarray((signals["start"] <= last) & ((signals["end"] < signals["start"]) | (signals["end"] >= first)))


def capture_kinds(signals: Records, texts: Mapping[int, str]) -> frozenset[SignalKind]:
    """Kinds that the sources say they would have shown."""
    details = {texts.get(int(key), "") for key in np.unique(signals["detail"][signals["kind"] == SignalKind.CAPTURE])}
    words = {word for detail in details for word in detail.split()}
    return frozenset(kind for kind in SignalKind if kind.name in words)


def _intervals(signals: Records, origin: int) -> dict[SignalKind, Intervals]:
    result = {}
    for kind in np.unique(signals["kind"]):
        if SignalKind(int(kind)) in NOT_INTERVALS:
            continue
        rows = signals[signals["kind"] == kind]
        begin = (rows["start"] - origin) * US
        instant = kind == SignalKind.USER_INTERACTION
        until = np.where(rows["end"] >= rows["start"], (rows["end"] - origin) * US, begin if instant else np.inf)
        result[SignalKind(int(kind))] = Intervals(begin, until)
    return result
