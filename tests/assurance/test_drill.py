"""What a user is promised of drills: exact repeats, originals untouched, and answers of coverage that hold."""

from __future__ import annotations

import numpy as np
import pytest
from scenarios import NOW, listener_relay, without
from sites import batches_of, phone, written

from relaywatch.assurance.drill import DrillPlan, drill
from relaywatch.assurance.episodes import Evasion
from relaywatch.detection.settings import Settings
from relaywatch.engines.local import Hunt, hunt
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.finding import Topology, Verdict
from relaywatch.model.tables import batch

PLAN = Hunt(Settings(), Exceptions(()), NOW)
QUICK = DrillPlan(episodes=3)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two phones, and a third on which one app relays."""
    relaying = phone(3)
    listener_relay(np.random.default_rng(9), relaying[1], 20)
    return written(batches_of([*phone(1), *phone(2), *relaying]), tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def drilled(site):
    return drill([site], PLAN, QUICK)


def rows(report):
    return {(row.topology, row.provable): row for row in report.rows}


def test_relays_are_found_where_coverage_says_that_they_are_provable(drilled):
    found = rows(drilled.report)
    assert set(found) == {(topology.value, "yes") for topology in Topology}
    assert {(row.played, row.relay.value) for row in found.values()} == {(3, 1.0)}


def test_times_to_verdict_are_those_of_some_sessions(drilled):
    for row in drilled.report.rows:
        assert 4 <= row.sessions <= 40
        assert 0.0 < row.seconds <= 700.0


def test_decoys_are_not_called_relays(drilled):
    assert (drilled.report.decoys.value, drilled.report.decoys.trials) == (0.0, 9)
    assert [(row.decoys.value, row.decoys.trials) for row in drilled.report.rows] == [(0.0, 3)] * 3


def test_the_sites_own_findings_are_those_of_a_hunt(site, drilled):
    alone = hunt([site], PLAN).findings
    assert [finding.model_dump() for finding in drilled.findings] == [finding.model_dump() for finding in alone]
    assert [(f.device.uid, f.verdict) for f in alone] == [("phone-3", Verdict.RELAY)]


def test_the_sites_own_alarms_are_counted_per_app_day(drilled):
    report = drilled.report
    assert report.site_relays.value == pytest.approx(1 / report.app_days)
    assert report.app_days == pytest.approx(6 * 705.0 / 86_400.0, rel=0.05)


def test_a_seeded_drill_repeats_exactly(site, drilled):
    assert drill([site], PLAN, QUICK).report == drilled.report
    assert drill([site], PLAN, DrillPlan(episodes=3, seed=1)).report.rows != drilled.report.rows


def test_files_are_only_read(site):
    before = {path: path.read_bytes() for path in sorted(site.iterdir())}
    drill([site], PLAN, DrillPlan(topologies=(Topology.ACCEPTED,), episodes=1))
    assert {path: path.read_bytes() for path in sorted(site.iterdir())} == before


@pytest.mark.parametrize(
    ("table", "columns", "silent"),
    [
        ("flows", ("android_package", "android_uid"), set(Topology)),
        ("flows", ("bytes_out", "bytes_in"), set(Topology)),
        ("flows", ("direction_id",), set(Topology)),
        ("flows", ("remote_hostname",), {Topology.BACK_CONNECT, Topology.TUNNEL}),
        ("flows", ("remote_ip", "remote_hostname"), set(Topology)),
        ("volumes", (), {Topology.TUNNEL}),
    ],
)
def test_where_it_is_not_provable_nothing_is_called_a_relay(tmp_path, table, columns, silent):
    poorer = written(without(batches_of([*phone(1), *phone(2)]), table, *columns), tmp_path)
    report = drill([poorer], PLAN, QUICK).report
    for row in report.rows:
        if Topology(row.topology) in silent:
            assert (row.provable, row.relay.value) == ("no", 0.0)
        else:
            assert (row.provable, row.relay.value) == ("yes", 1.0)


def test_what_a_gap_costs_is_what_giving_it_back_gains(tmp_path):
    poorer = written(without(batches_of([*phone(1), *phone(2)]), "volumes"), tmp_path)
    result = drill([poorer], PLAN, DrillPlan(topologies=(Topology.TUNNEL,), episodes=4))
    assert result.report.costs["volumes"].trials == 4
    spots = {spot.name: spot for spot in result.coverage.report.blind_spots}
    assert spots["bytes by interval"].cost == result.report.costs["volumes"]
    assert spots["app identity"].cost is None


def test_each_evasion_is_played_beside(site):
    plan = DrillPlan(topologies=(Topology.TUNNEL,), episodes=2, evasions=(Evasion.PADDING, Evasion.CHAFF))
    report = drill([site], PLAN, plan).report
    assert [row.population for row in report.evaded] == ["padding", "chaff"]
    assert report.episodes == 2


def test_populations_are_told_apart(tmp_path):
    told = {"source": "mdm", "position": 1, "clock": "sensor"}
    groups = [
        batch("inventory", {"device_uid": f"phone-{k}", "device_group": name, **told}, length=1)
        for k, name in ((1, "sales"), (2, "field"))
    ]
    folder = written([*batches_of([*phone(1), *phone(2)]), *groups], tmp_path)
    report = drill([folder], PLAN, DrillPlan(topologies=(Topology.ACCEPTED,), episodes=4)).report
    assert [row.population for row in report.rows] == ["all devices", "field", "sales"]
    assert [own.population for own in report.alarms] == ["field", "sales"]
    assert sum(own.app_days for own in report.alarms) == pytest.approx(report.app_days)


def test_where_no_app_can_be_a_host_nothing_is_played(tmp_path):
    named = batch("inventory", {"device_uid": "p", "source": "mdm", "position": 1, "clock": "sensor"}, length=1)
    report = drill([written([named], tmp_path)], PLAN, QUICK).report
    assert (report.rows, report.episodes, report.site_relays.value, report.site_relays.high) == ([], 0, None, None)
