"""What a hunt read and could not read: the counts that stand beside its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from relaywatch.model.quarantine import Quarantine


class UnitRead(NamedTuple):
    """One file or folder that was read. records: rows into all tables; quarantined: records put aside."""

    path: str
    format: str
    records: int
    quarantined: int


class NotJudged(NamedTuple):
    """An app whose telemetry cannot show a relay, and why."""

    device: str
    app: str
    reason: str


@dataclass(frozen=True, slots=True)
class HuntSummary:
    """What a hunt read.

    rows: rows per canonical table; devices, apps: distinct ones seen; unrecognised: paths of files in no known
    format; not_judged: the first of not_judged_in_all; duplicate_flows: flows that another record shows too, counted
    once; unused_volumes: intervals without their flow, or too long to judge by; seconds: wall time, shown on the
    terminal only, so that files from the same input are the same bytes.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    units: Sequence[UnitRead] = ()
    devices: int = 0
    apps: int = 0
    quarantine: Quarantine = field(default_factory=Quarantine)
    unrecognised: Sequence[str] = ()
    seconds: float = 0.0
    not_judged: Sequence[NotJudged] = ()
    not_judged_in_all: int = 0
    duplicate_flows: int = 0
    unused_volumes: int = 0
