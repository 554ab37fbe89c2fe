"""The hunts over the bundled examples, and of their findings what must not change unnoticed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from relaywatch.detection.settings import load
from relaywatch.engines.local import Hunt, HuntResult, hunt
from relaywatch.enrichment.loading import Enrichment
from relaywatch.governance.exceptions import Exceptions, load_exceptions
from relaywatch.model.finding import Finding

REPOSITORY: Final = Path(__file__).parents[2]
EXAMPLES: Final = REPOSITORY / "examples"
EXPECTED: Final = Path(__file__).with_name("expected.json")
HUNTS: Final = (
    "traces",
    "fleet",
    "telemetry/parquet",
    "telemetry/pcapdroid-csv",
    "telemetry/pcapdroid-pcap",
    "telemetry/zeek",
)
TODAY: Final = datetime(2027, 2, 1, tzinfo=UTC)
"""The day after the examples' last record; exceptions warn by it."""


def hunt_examples(*parts: str, exceptions: bool = False, enrichment: Enrichment | None = None) -> HuntResult:
    """Hunt folders of the examples under default settings; paths in findings are relative to the repository."""
    granted = load_exceptions(EXAMPLES / "exceptions.toml") if exceptions else Exceptions(())
    before = Path.cwd()
    os.chdir(REPOSITORY)
    try:
        plan = Hunt(load(None, ()), granted, TODAY, enrichment=enrichment or Enrichment())
        return hunt([Path("examples") / part for part in parts], plan)
    finally:
        os.chdir(before)


def projection(finding: Finding) -> dict[str, Any]:
    """What a user acts on; scores and bounded lists are left to the tests of detection."""
    return {
        "device": finding.device.uid,
        "package": finding.app.package,
        "uid": finding.app.uid,
        "verdict": finding.verdict,
        "probability": round(finding.probability, 3),
        "topology": finding.topology,
        "first_seen": finding.first_seen.isoformat(),
        "last_seen": finding.last_seen.isoformat(),
        "bridges": finding.bridges,
        "bytes_in": finding.bytes_in,
        "bytes_out": finding.bytes_out,
        "client_bytes_in": finding.client_bytes_in,
        "client_bytes_out": finding.client_bytes_out,
        "listener_port": finding.listener_port,
        "gateways": [[end.address, end.port, end.sessions] for end in finding.gateways],
        "destinations": len(finding.destinations),
        "evidence": [item.name for item in finding.evidence],
        "not_observable": [gap.field for gap in finding.not_observable],
        "sources": [source.source for source in finding.sources],
    }


def found(name: str) -> list[dict[str, Any]]:
    """The projection of one hunt's findings, as JSON has it, by device and app."""
    rows = [projection(finding) for finding in hunt_examples(name).findings]
    rows.sort(key=lambda row: (row["device"], row["package"] or "", row["first_seen"]))
    plain: list[dict[str, Any]] = json.loads(json.dumps(rows))
    return plain
