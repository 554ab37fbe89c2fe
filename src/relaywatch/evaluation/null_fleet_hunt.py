"""Hunts app-days of the null fleet: evidence of every one, not only of those that become findings, and all verdicts."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from relaywatch.detection.bridging import score_bridging
from relaywatch.detection.calibration import FEWEST_BRIDGES, MEASURED
from relaywatch.detection.settings import Settings
from relaywatch.detection.tunnelling import score_tunnelling
from relaywatch.engines.arrangement import Arranged, arrange
from relaywatch.engines.cases import LEAST_EVIDENCE
from relaywatch.engines.intake import Intake
from relaywatch.engines.local import Hunt, hunt
from relaywatch.engines.shards import SHARDS
from relaywatch.evaluation.null_fleet import DAY_BEGIN_S, Fleet, number_of, write
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model import finding as finding_model
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

_NOW: Final = datetime.fromtimestamp(DAY_BEGIN_S, UTC)


class Finding(NamedTuple):
    """What is kept of one finding. clients, targets: its legs by the trace that they are from."""

    verdict: str
    topology: str
    statement: str
    clients: Counter[str]
    targets: Counter[str]


@dataclass(frozen=True, slots=True)
class Hunted:
    """What became of some app-days.

    days: a row an app-day: number, traces (numbers of those it draws from), flows, volumes, bytes, wanted (bytes of
    the uid-day that it is modelled on), pairs and links (natural log evidence, before any cap and any other odds),
    verdict (empty: none); findings: by number.
    """

    days: pl.DataFrame
    findings: dict[int, Finding]


def hunt_days(fleet: Fleet, numbers: Sequence[int], settings: Settings) -> Hunted:
    """Write some app-days, score each, and hunt those with evidence as a user would."""
    with tempfile.TemporaryDirectory(prefix="relaywatch-null-") as folder:
        plans = write(fleet, numbers, Path(folder, "all")).plans
        trace = fleet.bouts.frame["trace"].to_numpy()
        days = pl.DataFrame(
            {
                "number": list(numbers),
                "wanted": [plan.wanted for plan in plans],
                "traces": [np.unique(trace[plan.bout]).tolist() for plan in plans],
            },
            {"number": pl.Int64, "wanted": pl.Float64, "traces": pl.List(pl.Int32)},
        )
        days = days.join(_scores(Path(folder, "all"), settings), on="number", maintain_order="left")
        worth = days.filter(pl.max_horizontal("pairs", "links") >= LEAST_EVIDENCE)["number"].to_list()
        findings = {}
        if worth:
            write(fleet, worth, Path(folder, "worth"))
            found = hunt([Path(folder, "worth")], Hunt(settings, Exceptions(()), _NOW)).findings
            findings = {number_of(one.app.package or ""): _kept(one) for one in found}
    verdicts = [findings[number].verdict if number in findings else "" for number in numbers]
    return Hunted(days.with_columns(pl.Series("verdict", verdicts, pl.String)), findings)


def combined(parts: Sequence[Hunted]) -> Hunted:
    """What became of all app-days of several parts."""
    findings = {number: finding for part in parts for number, finding in part.findings.items()}
    return Hunted(pl.concat([part.days for part in parts]), findings)


def _kept(finding: finding_model.Finding) -> Finding:
    return Finding(
        finding.verdict.value,
        finding.topology.value if finding.topology else "",
        finding.evidence[0].statement,
        Counter(leg.record.source for leg in finding.client_legs),
        Counter(leg.record.source for leg in finding.target_legs),
    )


def _scores(folder: Path, settings: Settings) -> pl.DataFrame:
    """Evidence of every app of a folder, read as a hunt reads it."""
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as work:
        intake = Intake(Path(work), settings.allowed_destinations)
        for unit in discover([folder]).units:
            for batch in unit.read(Reading(Quarantine())):
                intake.add(batch)
        intake.seal()
        ranks = intake.registry.source_ranks()
        parts = []
        for shard in range(SHARDS):
            flows = intake.flows.read(shard)
            if len(flows):
                parts.append(_scored(arrange(flows, intake.volumes.read(shard), ranks), settings))
        scores = pl.concat(parts)
        keys = intake.registry.app_keys(scores["app"].to_numpy())
    number = [number_of(keys[app].package) for app in scores["app"].to_list()]
    return scores.drop("app").with_columns(pl.Series("number", number))


def _scored(arranged: Arranged, settings: Settings) -> pl.DataFrame:
    """Evidence of each group of a shard, as `cases_of` has it before it decides what is worth a case."""
    uplink = float(settings.uplink_bytes_threshold)
    flows, volumes = arranged.flows, arranged.volumes
    sizes = np.add.reduceat(flows.bytes_out + flows.bytes_in, flows.offsets[:-1])
    return pl.DataFrame(
        {
            "app": arranged.apps,
            "flows": np.diff(flows.offsets),
            "volumes": np.diff(volumes.offsets),
            "bytes": sizes,
            "pairs": score_bridging(flows, settings.time_window_s, FEWEST_BRIDGES, uplink, MEASURED),
            "links": score_tunnelling(flows, volumes, FEWEST_BRIDGES, uplink, MEASURED),
        }
    )
