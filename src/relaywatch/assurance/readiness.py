"""Coverage in the scores that others use: DeTT&CT, the ATT&CK Navigator, Summiting the Pyramid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from relaywatch.attack.provenance import attack_provenance
from relaywatch.attack.robustness import Robustness, TelemetryQuality, analytic_robustness, telemetry_quality
from relaywatch.detection.settings import Settings
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.assurance import CoverageReport, DrillReport, PopulationCoverage, RowCoverage
from relaywatch.outputs.coverage_scores import (
    ComponentCoverage,
    Score,
    Standing,
    detection_score,
    visibility_score,
)
from relaywatch.outputs.dettect import Scope, TechniqueScores

UNKNOWN_DELAY_S = float("inf")
"""Telemetry in files does not say when it arrived, and what is not known scores as the worst."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a site's telemetry is worth, in others' scores.

    robustness: of the relay verdict with the exceptions as they are, None where no evidence for one can be had; bare:
    the same without them; keys: what each exception and AllowedAppList entry is keyed by; qualities: by data component.
    """

    components: tuple[ComponentCoverage, ...]
    scores: TechniqueScores
    scope: Scope
    robustness: Robustness | None
    bare: Robustness | None
    keys: tuple[frozenset[str], ...]
    qualities: dict[str, TelemetryQuality]

    @property
    def lowered(self) -> str:
        """What a permission keyed by a name alone costs, in a sentence; empty where there is none."""
        if self.robustness is None or self.bare is None or self.robustness.strength >= self.bare.strength:
            return ""
        weak = sum(1 for keys in self.keys if "signing_digest" not in keys)
        told = (
            f"{weak} of {len(self.keys)} permissions rest on no signing digest that can be checked here: whoever takes "
            "such a package name is excused"
            if weak
            else "a permitted app may itself be made to relay"
        )
        return f"{told}, so the verdict's robustness is {self.robustness} and not {self.bare}"


def readiness(
    report: CoverageReport,
    drill: DrillReport | None,
    settings: Settings,
    exceptions: Exceptions,
    made: datetime,
    site: str,
) -> Readiness:
    """The scores of one site on one day. site: a name for DeTT&CT's files; drill: None where none was run."""
    components = tuple(_components(report))
    standing = _standing(report, drill)
    attack = attack_provenance(frozenset())
    day, said = made.date(), _said(report, drill)
    scores = TechniqueScores(
        detection=(Score(day, detection_score(standing, components), said),),
        visibility=(Score(day, visibility_score(components, attack), said),),
    )
    evidence, keys = _evidence(report), tuple(_keys(report, settings, exceptions))
    shown = sum(_everyone(report, topology) for topology in ("accepted", "back_connect", "tunnel")) / 3.0
    fed = {row.data_component for row in report.rows if row.fed > 0.0}
    return Readiness(
        components=components,
        scores=scores,
        scope=Scope(f"relaywatch: {site}", site, day),
        robustness=analytic_robustness(evidence, keys),
        bare=analytic_robustness(evidence, ()),
        keys=keys,
        qualities={name: telemetry_quality(name, UNKNOWN_DELAY_S, shown) for name in sorted(fed)},
    )


def _components(report: CoverageReport) -> list[ComponentCoverage]:
    names = dict.fromkeys((row.data_component, row.component_name) for row in report.rows)
    return [_component(report, number, name) for number, name in names]


def _component(report: CoverageReport, number: str, name: str) -> ComponentCoverage:
    """One data component by the rows of AN1702 on it, or of the extension where AN1702 has none."""
    own = [row for row in report.rows if row.data_component == number]
    rows = [row for row in own if row.analytic] or own
    feeds = [feed for feed in report.feeds if any(feed.format in row.formats for row in rows)]
    records = [feed.records for feed in feeds]
    spans = [(feed.first, feed.last) for feed in feeds if feed.first is not None and feed.last is not None]
    errors = [feed.clock_error_s for feed in feeds if feed.clock_error_s is not None]
    first = min((begin for begin, _ in spans), default=None)
    return ComponentCoverage(
        component=name,
        devices_share=max(row.fed for row in rows),
        fields_share=_fields_share(rows),
        delay_s=None,
        consistency_share=max(records) / sum(records) if sum(records) else 0.0,
        retention_days=max(((end - begin).total_seconds() / 86_400.0 for begin, end in spans), default=None),
        products=tuple(feed.format for feed in feeds),
        first_seen=None if first is None else first.date(),
        clock_error_s=max(errors, default=None),
    )


def _fields_share(rows: Sequence[RowCoverage]) -> float:
    seen = sum(len(row.observed) + len(row.inferred) for row in rows)
    asked = seen + sum(len(row.absent) for row in rows)
    return seen / asked if asked else 0.0


def _everyone(report: CoverageReport, name: str) -> float:
    """Share of app windows of all devices that are provable; weighted by how many there are in each window."""
    whole = _all_devices(report)
    windows = sum(part.app_windows for part in whole)
    return sum(part.provable[name].yes * part.app_windows for part in whole) / windows if windows else 0.0


def _all_devices(report: CoverageReport) -> list[PopulationCoverage]:
    first = report.populations[0].group if report.populations else ""
    return [part for part in report.populations if part.group == first]


def _standing(report: CoverageReport, drill: DrillReport | None) -> Standing:
    whole = _all_devices(report)
    windows = sum(part.app_windows for part in whole)
    absent = sum(part.disprovable.yes * part.app_windows for part in whole) / windows if windows else 0.0
    return Standing(_everyone(report, "every"), absent, None, None if drill is None else drilled_share(drill))


def drilled_share(drill: DrillReport) -> float | None:
    """Share of all relays played, hiding ones left aside, that were called relay."""
    rows = [row for row in drill.rows if row.population == drill.rows[0].population]
    played = sum(row.played for row in rows)
    return sum((row.relay.value or 0.0) * row.played for row in rows) / played if played else None


def _said(report: CoverageReport, drill: DrillReport | None) -> str:
    text = (
        f"{report.devices} devices, {report.app_windows} app windows: a relay of every topology provable in "
        f"{_everyone(report, 'every'):.0%} of them"
    )
    share = None if drill is None else drilled_share(drill)
    return text if share is None else f"{text}; {share:.0%} of drilled relays found"


def _evidence(report: CoverageReport) -> list[str]:
    """Names of the deciding evidence that this telemetry can give anywhere."""
    whole = _all_devices(report)

    def shown(*topologies: str) -> bool:
        return any(part.provable[name].no < 1.0 for part in whole for name in topologies)

    pairs = ["conserved bridges"] if shown("accepted", "back_connect") else []
    return [*pairs, *(["link mirrors targets"] if shown("tunnel") else [])]


def _keys(report: CoverageReport, settings: Settings, exceptions: Exceptions) -> list[frozenset[str]]:
    """What each permission is really keyed by: exceptions not ended before the telemetry, then AllowedAppList.

    A signing digest is checked only where some source lists signatures.
    """
    digests = any(feed.digests for feed in report.feeds)
    found: list[Collection[str]] = []
    for entry in exceptions.entries:
        if report.first is not None and entry.expires < report.first:
            continue
        limits = {"signing_digest": entry.signing_digest if digests else None, "destinations": entry.destinations}
        limits |= {"device_group": entry.device_group, "devices": entry.devices}
        found.append({"package", *(name for name, value in limits.items() if value is not None)})
    # An AllowedAppList entry with a digest excuses no app whose digest is not seen.
    found += [{"package", *(["signing_digest"] if "@" in entry else [])} for entry in settings.allowed_app_list]
    return [frozenset(keys) for keys in found]
