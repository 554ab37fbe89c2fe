"""The same app, shown by every format that can be written and read: the verdict is the same, or weaker and says why."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from relaywatch.detection.settings import load
from relaywatch.engines.local import Hunt, hunt
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.quarantine import Quarantine
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

TRACES = Path(__file__).parents[1] / "examples" / "traces"
ACCEPTED = ("T1048", "T1270", "T1531")
BACK_CONNECT = ("T1604", "T1239")
TUNNEL = ("T1419", "T1165", "T1866")
RELAYS = (*ACCEPTED, *BACK_CONNECT, *TUNNEL)
BENIGN = ("T1051", "T1273", "T1312", "T1534", "T1791")
LOSSLESS = (ExportFormat.PARQUET, ExportFormat.NDJSON)
WITH_VOLUMES = (*LOSSLESS, ExportFormat.PCAPDROID_PCAP)
TOTALS_ONLY = (ExportFormat.PCAPDROID_CSV, ExportFormat.ZEEK)
UNSEEN = {
    ExportFormat.PCAPDROID_CSV: {"bytes", "volumes", "direction"},
    ExportFormat.ZEEK: {"app", "volumes"},
}
STRENGTH = ("relay", "suspected_relay", "insufficient_telemetry")


def findings(folder: Path):
    result = hunt([folder], Hunt(load(None, ()), Exceptions(()), datetime(2027, 2, 1, tzinfo=UTC)))
    assert result.summary.quarantine.total == 0
    return result.findings


@cache
def direct(trace: str):
    return findings(TRACES / trace)


def written(trace: str, fmt: ExportFormat, folder: Path) -> list[Path]:
    quarantine = Quarantine()
    paths = export(
        (batch for unit in discover([TRACES / trace]).units for batch in unit.read(Reading(quarantine))), fmt, folder
    )
    assert quarantine.total == 0
    return paths


def through(trace: str, fmt: ExportFormat, folder: Path):
    """The one finding of the trace after export and reading; None where there is none."""
    written(trace, fmt, folder)
    found = findings(folder)
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("fmt", LOSSLESS)
@pytest.mark.parametrize("trace", RELAYS)
def test_the_canonical_formats_give_the_same_finding(trace, fmt, tmp_path):
    (expected,) = direct(trace)
    found = through(trace, fmt, tmp_path)
    assert found.model_dump(exclude={"sources"}) == expected.model_dump(exclude={"sources"})


@pytest.mark.parametrize("fmt", WITH_VOLUMES)
@pytest.mark.parametrize("trace", RELAYS)
def test_with_volumes_every_relay_is_found_with_its_topology(trace, fmt, tmp_path):
    (expected,) = direct(trace)
    found = through(trace, fmt, tmp_path)
    assert (found.verdict, found.topology) == (expected.verdict, expected.topology) == ("relay", expected.topology)
    assert found.bridges == pytest.approx(expected.bridges, rel=0.05)


@pytest.mark.parametrize("fmt", TOTALS_ONLY)
@pytest.mark.parametrize("trace", [*ACCEPTED, *BACK_CONNECT])
def test_bridged_pairs_are_found_in_totals_and_the_finding_says_what_was_not_seen(trace, fmt, tmp_path):
    (expected,) = direct(trace)
    found = through(trace, fmt, tmp_path)
    assert STRENGTH.index(found.verdict) <= STRENGTH.index("suspected_relay")
    assert found.topology == expected.topology
    assert found.bridges == pytest.approx(expected.bridges, rel=0.2)
    assert {gap.field for gap in found.not_observable} >= UNSEEN[fmt]


@pytest.mark.parametrize("trace", RELAYS)
def test_without_the_app_a_relay_is_at_most_suspected(trace, tmp_path):
    found = through(trace, ExportFormat.ZEEK, tmp_path)
    assert found is None or found.verdict in STRENGTH[1:]


@pytest.mark.parametrize("fmt", TOTALS_ONLY)
@pytest.mark.parametrize("trace", ["T1866", "T1419", "T1165"])
def test_totals_that_mirror_each_other_ask_for_volumes(trace, fmt, tmp_path):
    found = through(trace, fmt, tmp_path)
    assert found is not None
    assert (found.verdict, found.topology) == ("insufficient_telemetry", "tunnel")
    assert {gap.field for gap in found.not_observable} >= UNSEEN[fmt]


@pytest.mark.parametrize(("trace", "fmt"), [(trace, fmt) for trace in BENIGN for fmt in ExportFormat])
def test_no_format_makes_a_relay_of_a_benign_app(trace, fmt, tmp_path):
    assert direct(trace) == []
    assert through(trace, fmt, tmp_path) is None


@pytest.mark.parametrize("trace", ["T1273", "T1791"])
def test_a_list_that_misses_accepted_connections_makes_no_relay_of_a_benign_app(trace, tmp_path):
    """PCAPdroid without root does not see them."""
    (path,) = written(trace, ExportFormat.PCAPDROID_CSV, tmp_path)
    listening = {"T1273": ",6881,", "T1791": ",8123,"}[trace]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    dialled = [line for line in lines if listening not in line]
    assert 0 < len(dialled) < len(lines)
    path.write_text("".join(dialled), encoding="utf-8")
    assert findings(tmp_path) == []
