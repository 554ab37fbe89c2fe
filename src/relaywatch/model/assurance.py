"""What telemetry could have shown: answers, coverage, blind spots and drills, as every output has them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from relaywatch.model.finding import Finding

ASSURANCE_SCHEMA_VERSION: Final = "1.0.0"
ALL_DEVICES: Final = "all devices"
"""Name of the population that holds every group, where there are several, or that no group is known of."""
NO_GROUP: Final = "no group"
"""Name of the devices that no inventory puts into a group, where others are in one."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(StrEnum):
    """Whether something could be shown: a promise, no promise either way, or a promise that it could not."""

    YES = "yes"
    IN_PART = "in_part"
    NO = "no"


class Shares(_Record):
    """Of some windows the share with each answer; they add up to 1."""

    yes: float
    in_part: float
    no: float


class Provable(_Record):
    """Whether a relay of each topology would have been shown, and of all three: the least of them."""

    accepted: Answer
    back_connect: Answer
    tunnel: Answer

    @property
    def every(self) -> Answer:
        """The least of the three."""
        order = list(Answer)
        return max((self.accepted, self.back_connect, self.tunnel), key=order.index)


class Gap(_Record):
    """One thing that telemetry lacks: what it is, what that costs, what would show it."""

    name: str
    statement: str
    cost: str
    remedy: str


class WindowCoverage(_Record):
    """One app on one device in one window. Null package and uid: flows that no app is known for."""

    device: str
    group: str | None
    package: str | None
    uid: int | None
    start: datetime
    end: datetime
    watched: float = Field(description="Share of the window in which a source that shows flows watched the device")
    flows: int
    clock_error_s: float | None = Field(description="Largest error that the clocks of the device's sources can have")
    formats: list[str]
    provable: Provable
    disprovable: Answer
    missing: list[str] = Field(description="Names of gaps for which an answer is no")
    partial: list[str] = Field(description="Names of gaps for which an answer is in_part, or disprovable is no")
    remedies: list[str] = Field(description="The cheapest sources that would turn each no into a yes")


class GapShare(_Record):
    """How many of a population's app windows a gap holds back."""

    name: str
    share: float


class PopulationCoverage(_Record):
    """A group of devices in one window; shares are of its app windows."""

    group: str
    start: datetime
    end: datetime
    devices: int
    app_windows: int
    watched: float
    provable: dict[str, Shares] = Field(description="By topology, and `every`")
    disprovable: Shares
    gaps: list[GapShare] = Field(description="The most frequent first")
    remedies: list[str] = Field(description="Sources that turn windows into a yes, those of most windows first")


class RowCoverage(_Record):
    """One log-source row of AN1702, or one of relaywatch's extensions, and what fed it."""

    data_component: str
    component_name: str
    row: str = Field(description="The row's channel, or what the extension is for")
    table: str
    analytic: bool
    fed: float = Field(description="Share of device windows in which a source fed it")
    formats: list[str]
    observed: list[str]
    inferred: list[str]
    absent: list[str]
    remedies: list[str]


class TrendPoint(_Record):
    """A share in one window."""

    start: datetime
    share: float


class Figure(_Record):
    """A share or rate and its 95 % interval, of so many trials (or events, of so much exposure)."""

    value: float | None
    low: float
    high: float | None = Field(description="Null where nothing bounds it, as of a rate over no time")
    trials: float


class BlindSpot(_Record):
    """One field that part of the fleet does not show. cost: recall that drills gain where it is given back."""

    name: str
    statement: str
    share: float = Field(description="Share of device windows that lack it, in whole or in part")
    lacking: float = Field(description="Share of device windows that lack it in whole")
    trend: list[TrendPoint]
    remedy: str
    cost: Figure | None = Field(default=None, description="Recall lost by it, of drills; null where none was run")


class SourceFeed(_Record):
    """One telemetry format: what it fed, over which time."""

    format: str
    units: int
    records: int
    quarantined: int
    devices: int
    first: datetime | None
    last: datetime | None
    gaps: int
    clock_error_s: float | None
    sampled: bool
    packages: bool = Field(default=False, description="Whether it lists installed apps")
    digests: bool = Field(default=False, description="Whether it lists them with their signing digests")
    fields: dict[str, str]


class CoverageReport(_Record):
    """What could be seen at all, from the telemetry itself."""

    schema_version: str = ASSURANCE_SCHEMA_VERSION
    window_s: float
    first: datetime | None
    last: datetime | None
    devices: int
    silent_devices: int = Field(description="Devices that an inventory names and no flow is seen of")
    app_windows: int
    populations: list[PopulationCoverage]
    rows: list[RowCoverage]
    blind_spots: list[BlindSpot]
    feeds: list[SourceFeed]
    gaps: list[Gap] = Field(description="What the names of gaps mean")
    producer: str


class DrillRow(_Record):
    """Relays of one topology played into one population, and what became of them."""

    topology: str
    population: str
    provable: str = Field(description="What coverage says of the windows that they were played into")
    played: int
    relay: Figure = Field(description="Share called relay, or sanctioned relay")
    flagged: Figure = Field(description="Share called relay or suspected relay")
    seconds: float | None = Field(description="Median seconds of relaying until the relay verdict, of those called so")
    sessions: float | None = Field(description="Median sessions begun by then")
    decoys: Figure | None = Field(
        default=None, description="Share of the decoys beside them called relay; null of relays that hide"
    )


class PopulationAlarms(_Record):
    """What a hunt says of one population's own telemetry, which nobody has labelled."""

    population: str
    app_days: float
    alarms: Figure = Field(description="Relay and suspected verdicts per app-day")
    relays: Figure = Field(description="Relay verdicts per app-day")


class DrillReport(_Record):
    """A drill: what was played, what was found, what else was called a relay."""

    schema_version: str = ASSURANCE_SCHEMA_VERSION
    seed: int
    episodes: int
    plan: dict[str, str] = Field(description="The shape that was chosen, by its options' names")
    rows: list[DrillRow]
    evaded: list[DrillRow] = Field(default_factory=list, description="The same with each evasion, where asked for")
    decoys: Figure = Field(description="Share of decoys called relay: the same traffic with nothing passed on")
    site_alarms: Figure = Field(description="Relay and suspected verdicts per app-day on the site's own telemetry")
    site_relays: Figure = Field(description="Relay verdicts per app-day on the site's own telemetry")
    app_days: float
    alarms: list[PopulationAlarms] = Field(
        default_factory=list, description="The same by population, where there are several"
    )
    costs: dict[str, Figure] = Field(description="Recall that giving a field back to the drilled flows would gain")
    producer: str


class ExceptionState(StrEnum):
    """Whether a documented exception still permits anything."""

    IN_FORCE = "in_force"
    EXPIRING = "expiring"
    EXPIRED = "expired"


class ExceptionStatus(_Record):
    """One documented exception on the day of the report."""

    id: str
    owner: str
    reason: str
    expires: datetime
    state: ExceptionState
    covers: int = Field(description="Findings of the report that it covers, or covered until it expired")


class AssuranceReport(_Record):
    """All that a report for managers and auditors says."""

    schema_version: str = ASSURANCE_SCHEMA_VERSION
    coverage: CoverageReport
    drill: DrillReport | None
    findings: list[Finding]
    exceptions: list[ExceptionStatus]
    site: str = Field(description="Whose telemetry it is, as the heading has it")
    made: datetime
    commands: dict[str, str] = Field(
        description="The command behind each part's numbers, by part: coverage, drill, findings, exceptions"
    )
