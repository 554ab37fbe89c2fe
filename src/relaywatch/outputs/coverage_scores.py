"""Telemetry coverage of one site as DeTT&CT and the ATT&CK Navigator score it: plain numbers in, bands out.

Bands: DeTT&CT (rabobank-cdc/DeTTECT), scoring_table.xlsx and constants.py. Shares are in [0, 1], times in seconds or
days, and None is not known, which never scores better than the worst that is known to exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from relaywatch.model.finding import Attack

BRIDGING_COMPONENTS: Final = frozenset({"DC0078", "DC0085"})
"""Data components without which no relay can be shown, whatever else is there."""


@dataclass(frozen=True, slots=True)
class ComponentCoverage:
    """What a site has of one ATT&CK data component.

    component: ATT&CK's name, "Network Traffic Flow". devices_share: of the devices in scope, that send it.
    fields_share: of the fields that the analytic needs, that rows hold. delay_s: median from the event until it can be
    read; clock_error_s: bound of its timestamps' error. consistency_share: of rows, in one form and type across
    products. retention_days: how long rows are kept. products: what writes it. first_seen: day of the first row.
    """

    component: str
    devices_share: float
    fields_share: float
    delay_s: float | None
    consistency_share: float
    retention_days: float | None
    products: tuple[str, ...] = ()
    first_seen: date | None = None
    clock_error_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("devices_share", "fields_share", "consistency_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{self.component}: {name} is a share, from 0 to 1")
        for name in ("delay_s", "retention_days", "clock_error_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0.0:
                raise ValueError(f"{self.component}: {name} is never negative")

    @property
    def present(self) -> bool:
        """Whether any device sends any of it."""
        return self.devices_share > 0.0 and self.fields_share > 0.0


@dataclass(frozen=True, slots=True)
class DataQuality:
    """DeTT&CT's five dimensions of data quality, each from 0 (none) to 5 (excellent)."""

    device_completeness: int
    data_field_completeness: int
    timeliness: int
    consistency: int
    retention: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How well T1604 is detected on the telemetry of a site.

    provable_share, disprovable_share: of the devices in scope, those on which a relay could be shown, and on which its
    absence could. delay_s: from a relay's traffic to its finding, None where it is hunted only on occasion.
    drills_found_share: of relays played into a copy of the site's own telemetry, None where none were played.
    """

    provable_share: float
    disprovable_share: float
    delay_s: float | None = None
    drills_found_share: float | None = None

    def __post_init__(self) -> None:
        shares = (self.provable_share, self.disprovable_share, self.drills_found_share or 0.0)
        if not all(0.0 <= share <= 1.0 for share in shares):
            raise ValueError("shares are from 0 to 1")


@dataclass(frozen=True, slots=True)
class Score:
    """One entry of a score's log book: detection from -1 to 5, visibility from 0 to 4."""

    day: date
    value: int
    comment: str = ""


REAL_TIME_S: Final = 15 * 60.0
"""Delay up to which a finding counts as real time: Summiting the Pyramid's bound of near real-time."""
_DELAYS_S: Final = (60.0, REAL_TIME_S, 3_600.0, 86_400.0)
_CLOCK_ERRORS_S: Final = (1.0, 10.0, 60.0, 3_600.0)
"""Ours, after the analytic: at TimeWindow's default of 10 s legs can just still be paired."""


def share_score(share: float) -> int:
    """Completeness and retention: nothing 0, up to 25 % 1, 50 % 2, 75 % 3, below 100 % 4, all of it 5."""
    if share <= 0.0:
        return 0
    return 5 if share >= 1.0 else 1 + sum(share > bound for bound in (0.25, 0.5, 0.75))


def consistency_score(share: float) -> int:
    """Consistency: nothing 0, up to 50 % 1, below 100 % 3, all of it 5; DeTT&CT has no 2 and 4 here."""
    if share <= 0.0:
        return 0
    return 5 if share >= 1.0 else 1 + 2 * (share > 0.5)


def timeliness_score(delay_s: float | None, clock_error_s: float | None = None) -> int:
    """The worse of delay and clock, from 1 to 5; 0 where the delay is not known.

    DeTT&CT describes both in words. The bands of the delay are those of Summiting the Pyramid (under a minute, 15
    minutes, an hour, a day, more); those of the clock are ours.
    """
    if delay_s is None:
        return 0
    delay = 5 - sum(delay_s > bound for bound in _DELAYS_S)
    clock = 5 if clock_error_s is None else 5 - sum(clock_error_s > bound for bound in _CLOCK_ERRORS_S)
    return min(delay, clock)


def data_quality(coverage: ComponentCoverage, wanted_retention_days: float) -> DataQuality:
    """Score one component. wanted_retention_days: how long the site wants rows kept, above 0."""
    if not coverage.present:
        return DataQuality(0, 0, 0, 0, 0)
    kept = 0.0 if coverage.retention_days is None else coverage.retention_days / wanted_retention_days
    return DataQuality(
        device_completeness=share_score(coverage.devices_share),
        data_field_completeness=share_score(coverage.fields_share),
        timeliness=timeliness_score(coverage.delay_s, coverage.clock_error_s),
        consistency=consistency_score(coverage.consistency_share),
        retention=share_score(kept),
    )


def visibility_score(coverages: Sequence[ComponentCoverage], attack: Attack) -> int:
    """Visibility of T1604, 0 to 4, by the share of the analytic's data components that are present.

    DeTT&CT's own count: none 0, up to 49 % 1, 74 % 2, 99 % 3, all 4. It takes components for interchangeable, which
    for relays they are not: without flows of any kind visibility stays at 1. Components that the analytic does not
    cite, such as Application State, count for nothing.
    """
    present = {coverage.component for coverage in coverages if coverage.present}
    rows = {row.data_component: row.data_component_name in present for row in attack.log_sources}
    share = sum(rows.values()) / len(rows) if rows else 0.0
    score = 0 if share <= 0.0 else 1 + sum(share >= bound for bound in (0.5, 0.75, 1.0))
    return score if any(rows.get(component) for component in BRIDGING_COMPONENTS) else min(score, 1)


def detection_score(standing: Standing, coverages: Sequence[ComponentCoverage]) -> int:
    """Detection of T1604, -1 to 5, by DeTT&CT's words.

    -1 nothing is there; 0 context only (no relay can be shown anywhere); 1 basic: on up to a quarter of the devices;
    2 fair: on more, but not in real time, or on fewer than half; 3 good: real time on half of the devices; 4 very
    good: on three quarters, and drills found three quarters; 5 excellent: on all, absence can be shown too, and every
    drill was found.
    """
    if not any(coverage.present for coverage in coverages):
        return -1
    if standing.provable_share <= 0.0:
        return 0
    if standing.provable_share <= 0.25:
        return 1
    real_time = standing.delay_s is not None and standing.delay_s <= REAL_TIME_S
    if not real_time or standing.provable_share < 0.5:
        return 2
    drilled = standing.drills_found_share or 0.0
    if min(standing.provable_share, standing.disprovable_share, drilled) >= 1.0:
        return 5
    return 4 if min(standing.provable_share, drilled) >= 0.75 else 3
