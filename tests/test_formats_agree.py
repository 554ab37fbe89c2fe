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
ADDRESSLESS = {
    "T1048": "accepted", "T1270": "accepted", "T1531": "accepted", "T1604": "back_connect", "T1239": "back_connect",
    "T1419": "tunnel", "T1165": "tunnel",
}  # fmt: skip
"""Relays that Perfetto alone shows, and as what. T1866's sessions are too few to be told apart by ports."""
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


@pytest.mark.parametrize("trace", ADDRESSLESS)
def test_without_addresses_a_relay_is_suspected_with_its_topology_and_bridges(trace, tmp_path):
    """Perfetto sees app, direction and bytes; whether sessions go to one party or to many it cannot say."""
    (expected,) = direct(trace)
    found = through(trace, ExportFormat.PERFETTO, tmp_path)
    assert (found.verdict, found.topology) == ("suspected_relay", expected.topology)
    assert expected.topology == ADDRESSLESS[trace]
    assert found.bridges == pytest.approx(expected.bridges, rel=0.2)
    assert {gap.field for gap in found.not_observable} >= {"hostname", "bytes"}
    assert [(row.name, row.addresses) for row in found.destinations] == [("address not seen", [])]


def beside_perfetto(trace: str, fmt: ExportFormat, folder: Path):
    """The finding from the trace as Perfetto and the format show it, on one device."""
    written(trace, ExportFormat.PERFETTO, folder / "phone")
    written(trace, fmt, folder / "beside")
    for path in [path for path in folder.rglob("synthetic-*") if path.is_file()]:
        path.rename(path.with_name(path.name.removeprefix("synthetic-")))
    (expected,) = direct(trace)
    return next(one for one in findings(folder) if one.app.package == expected.app.package)


def test_connects_that_the_phone_logged_bring_the_addresses(tmp_path):
    found = beside_perfetto("T1048", ExportFormat.INTRUSION_LOGS, tmp_path)
    assert (found.verdict, found.topology, found.bridges) == ("suspected_relay", "accepted", 29)
    assert found.spread.destinations >= 10
    assert sum(row.bridges for row in found.destinations if row.name == "address not seen") <= 3


def test_a_sensor_brings_addresses_and_names_and_with_them_the_verdict(tmp_path):
    tmp_path.joinpath("leases.csv").write_text("device_id,ip_address\nT1604,10.50.0.23\n", encoding="utf-8")
    found = beside_perfetto("T1604", ExportFormat.ZEEK, tmp_path)
    assert (found.verdict, found.topology) == ("relay", "back_connect")
    assert "address not seen" not in {row.name for row in found.destinations}


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
