"""What a hunt read and could not read: the counts that stand beside its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from relaywatch.model.quarantine import Quarantine


@dataclass(frozen=True, slots=True)
class UnitRead:
    """One file or folder that was read.

    records: rows into all tables; quarantined: records put aside; met: records in the source, of which with_rows gave
    rows and unused, by reason, soundly gave none; shows: what its rows hold.
    """

    path: str
    format: str
    records: int
    quarantined: int
    met: int = 0
    with_rows: int = 0
    unused: Mapping[str, int] = field(default_factory=dict)
    shows: SourceView | None = None

    @property
    def lost(self) -> int:
        """Records that are in no count: always 0, or a reader is at fault."""
        return self.met - self.with_rows - sum(self.unused.values()) - self.quarantined


@dataclass(frozen=True, slots=True)
class SourceView:
    """What the rows of a source hold.

    fields: of what a judgement needs, each "observed", "inferred", "partly" (observed or inferred in some rows only) or
    "absent"; first, last: time span of its rows; gaps: times it says it was blind; devices, apps: distinct ones;
    clock_error_s: largest error of its clock, None where no row states one; sampled: whether it says that it samples;
    packages, digests: whether it lists installed apps, and their signatures.
    """

    fields: Mapping[str, str]
    first: datetime | None = None
    last: datetime | None = None
    devices: int = 0
    apps: int = 0
    gaps: int = 0
    clock_error_s: float | None = None
    sampled: bool = False
    packages: bool = False
    digests: bool = False


@dataclass(frozen=True, slots=True)
class JoinedSources:
    """What two formats on one device had in common: records of `one` that are connections of `other`, and the rest.

    contested: matched, though another record fitted as well; unmatched: by reason; skew_s: clock of `one` less that of
    `other`, half of spread_s around it; None where the matches show none.
    """

    device: str
    one: str
    other: str
    records: int
    matched: int
    contested: int
    unmatched: Mapping[str, int]
    skew_s: float | None
    spread_s: float | None


@dataclass(frozen=True, slots=True)
class JoinSummary:
    """How several sources became one view.

    devices: names by the name in use that stands for them, with what joined them; possible: names that may be one
    device, with weight; translated: flows brought under their inside address by a translator's log; by_address: records
    laid to a device by who had the address; contested_addresses: those that several claimed; attributed: flows without
    an app by how one was found, or why not.
    """

    pairs: Sequence[JoinedSources] = ()
    merged: int = 0
    devices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    possible: Sequence[tuple[str, str, float, str]] = ()
    translated: int = 0
    by_address: int = 0
    contested_addresses: int = 0
    attributed: Mapping[str, int] = field(default_factory=dict)


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
    joins: JoinSummary = field(default_factory=JoinSummary)
    duplicate_flows: int = 0
    unused_volumes: int = 0
