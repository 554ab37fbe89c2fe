"""What is promised of simulated fleets: exact, whole, in order, with bounded faults, and relays that are found."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from fleets import faults, frames, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywatch.detection.settings import Settings
from relaywatch.engines.local import Hunt, hunt
from relaywatch.governance.exceptions import Exceptions
from relaywatch.model.errors import SettingError
from relaywatch.model.finding import Topology, Verdict
from relaywatch.model.schemas import TABLES, Direction, SignalKind
from relaywatch.simulation.day import SLICE, slice_bounds
from relaywatch.simulation.fleet import alias_of
from relaywatch.simulation.plan import APPS_A_PHONE, DAY_US, SECOND, Fault, Faults, Plan
from relaywatch.simulation.stream import Simulation, simulate
from relaywatch.simulation.writing import Form, write_fleet

SMALL = Plan(devices=12, flows=8_000, seed=5, volumes=0.5, signals=0.5, relays=0.01)
FAULTY = dataclasses.replace(SMALL, faults=faults(skew=0.5, late=0.3, duplicates=0.2, gaps=0.5))


class TestExactness:
    @pytest.mark.parametrize("plan", [SMALL, FAULTY, dataclasses.replace(FAULTY, shuffled=True)])
    def test_the_same_plan_gives_the_same_rows(self, plan):
        assert tables(plan) == tables(plan)

    @settings(max_examples=8)
    @given(st.integers(1, 5_000))
    def test_the_size_of_batches_changes_no_row(self, rows):
        whole, parted = tables(FAULTY), tables(FAULTY, rows)
        assert all(whole[name].equals(parted[name]) for name in TABLES)

    @settings(max_examples=8)
    @given(st.integers(0, 40))
    def test_asking_for_fewer_batches_changes_no_row(self, count):
        first = list(itertools.islice(simulate(SMALL, 500), count))
        again = itertools.islice(simulate(SMALL, 500), count + 3)
        assert all(
            one.table == other.table and one.rows.equals(other.rows) for one, other in zip(first, again, strict=False)
        )

    def test_no_batch_is_larger_than_asked(self):
        assert max(batch.rows.num_rows for batch in simulate(SMALL, 300)) == 300

    def test_another_seed_is_another_fleet(self):
        other = tables(dataclasses.replace(SMALL, seed=6))
        assert not tables(SMALL)["flows"].equals(other["flows"])

    def test_shuffled_is_the_same_records_in_another_order(self):
        plan = dataclasses.replace(FAULTY, flows=SLICE + 10_000)
        ordered, mixed = frames(plan), frames(dataclasses.replace(plan, shuffled=True))
        for name in ("flows", "signals", "volumes"):
            own = [column for column in TABLES[name].names if name == "flows" or column != "position"]
            assert not ordered[name].equals(mixed[name])
            assert ordered[name].select(own).sort(own).equals(mixed[name].select(own).sort(own))


class TestRows:
    def test_every_batch_has_the_canonical_schema(self):
        for batch in simulate(FAULTY):
            batch.rows.validate(full=True)
            assert batch.rows.schema.equals(TABLES[batch.table], check_metadata=True)
            assert all(batch.rows[field.name].null_count == 0 for field in TABLES[batch.table] if not field.nullable)

    def test_texts_are_shared_between_batches(self):
        first, second = list(itertools.islice((b for b in simulate(SMALL, 500) if b.table == "flows"), 2))
        for name in ("device_uid", "android_package", "remote_ip", "remote_hostname"):
            held = [batch.rows[name].dictionary.buffers()[2].address for batch in (first, second)]
            assert held[0] == held[1]

    def test_as_many_flows_as_asked_each_with_its_own_number(self):
        flows = frames(SMALL)["flows"]
        assert sorted(flows["flow_id"]) == list(range(SMALL.flows))

    def test_all_is_labelled_synthetic(self):
        for frame in frames(SMALL).values():
            assert frame["source"].str.contains("synthetic").all()

    def test_addresses_are_reserved_ones(self):
        remotes = frames(SMALL)["flows"]["remote_ip"]
        assert remotes.str.contains(r"^(198\.1[89]|198\.51\.100|203\.0\.113|192\.0\.2)\.|^2001:db8::").all()

    def test_records_come_as_flows_end(self):
        plan = dataclasses.replace(SMALL, flows=2 * SLICE, volumes=0.1)
        found = frames(plan)
        assert len(slice_bounds(plan)) > 2
        assert found["flows"]["end_time"].is_sorted()
        assert found["volumes"]["start_time"].is_sorted()
        assert (found["flows"]["start_time"] <= found["flows"]["end_time"]).all()

    def test_volumes_add_up_to_their_flows(self):
        found = frames(dataclasses.replace(SMALL, volumes=1.0))
        sums = found["volumes"].group_by("flow_id").agg(pl.col("bytes_out", "bytes_in").sum())
        both = found["flows"].join(sums, on="flow_id", how="left", suffix="_sum").fill_null(0)
        assert (both["bytes_out"] == both["bytes_out_sum"]).all()
        assert (both["bytes_in"] == both["bytes_in_sum"]).all()
        spans = found["volumes"].join(found["flows"], on="flow_id", suffix="_flow")
        assert (spans["start_time"] + SECOND > spans["start_time_flow"]).all()
        assert (spans["start_time"] <= spans["end_time"]).all()
        assert not found["volumes"].select("flow_id", "start_time").is_duplicated().any()

    def test_activity_is_heavy_tailed(self):
        plan = dataclasses.replace(SMALL, devices=60, flows=60_000, relays=0.0)
        counts = frames(plan)["flows"].group_by("device_uid", "android_package").len()["len"].sort(descending=True)
        assert counts.head(len(counts) // 10).sum() > 0.4 * counts.sum()

    def test_phones_sleep_at_night(self):
        plan = dataclasses.replace(SMALL, devices=300, flows=30_000, relays=0.0)
        hour = (frames(plan)["flows"]["start_time"] - plan.begin_us) // (3_600 * SECOND)
        counts = np.bincount(hour.to_numpy(), minlength=24)
        assert counts[1:4].sum() * 3 < counts[18:21].sum()

    def test_the_hot_device_has_a_hundred_times_the_flows(self):
        plan = dataclasses.replace(SMALL, devices=400, flows=40_000, relays=0.0, hot=True)
        flows = frames(plan)["flows"].group_by("device_uid").len()
        hot = flows.filter(pl.col("device_uid") == "phone-0000000")["len"].item()
        others = flows.filter(pl.col("device_uid") != "phone-0000000")["len"].sum() / (plan.devices - 1)
        assert 60 < hot / others < 160

    def test_context_is_of_watched_devices(self):
        signals = frames(dataclasses.replace(SMALL, signals=1.0))["signals"]
        kinds = {"CAPTURE", "FOREGROUND_UI", "SCREEN_ON", "USER_INTERACTION", "LISTENER", "NAME_LOOKUP"}
        assert kinds <= {SignalKind(kind).name for kind in signals["kind"].unique()}
        assert frames(dataclasses.replace(SMALL, signals=0.0))["signals"].is_empty()

    def test_inventory_has_every_device_and_app(self):
        inventory = frames(SMALL)["inventory"]
        apps = inventory.drop_nulls("android_package")
        assert inventory.height == SMALL.devices * (APPS_A_PHONE + 1)
        assert not apps.select("device_uid", "android_package").is_duplicated().any()
        assert not apps.select("device_uid", "android_uid").is_duplicated().any()


class TestFaults:
    def test_a_duplicate_is_the_same_record_again(self):
        plan = dataclasses.replace(SMALL, faults=faults(duplicates=0.2))
        simulation = Simulation(plan)
        flows = pl.concat(pl.from_arrow(b.rows) for b in simulation.batches() if b.table == "flows")
        assert simulation.account.repeated == flows.height - plan.flows > 0
        assert flows.unique().height == plan.flows
        once = frames(SMALL)["flows"]
        assert frames(plan)["flows"].unique().sort("flow_id").equals(once.sort("flow_id"))

    @settings(max_examples=6)
    @given(st.integers(0, 1_000), st.integers(2, 3_600))
    def test_late_records_keep_their_bound(self, seed, bound):
        late = Faults(late=Fault(0.5, float(bound)))
        simulation = Simulation(dataclasses.replace(SMALL, seed=seed, volumes=0.0, faults=late))
        ends = pl.concat(
            pl.from_arrow(b.rows).select(pl.col("end_time").cast(pl.Int64))
            for b in simulation.batches()
            if b.table == "flows"
        )["end_time"]
        behind = ends.cum_max() - ends
        assert 0 < behind.max() <= bound * SECOND
        assert simulation.account.late > 0
        assert ends.len() == SMALL.flows

    def test_nothing_is_recorded_in_gaps_and_gaps_are_told(self):
        plan = dataclasses.replace(FAULTY, days=2, signals=1.0, volumes=1.0, faults=faults(gaps=0.7, skew=0.5))
        simulation = Simulation(plan)
        found = frames(plan)
        list(simulation.batches())
        gaps = found["signals"].filter(pl.col("kind") == int(SignalKind.LOGGING_GAP))
        assert simulation.account.missing == plan.flows - found["flows"].height > 0
        for name, moment in (
            ("flows", pl.col("end_time")),
            ("volumes", pl.col("start_time") + SECOND),
            ("signals", pl.coalesce("end_time", "start_time")),
        ):
            rows = found[name] if name != "signals" else found[name].filter(pl.col("kind") != SignalKind.LOGGING_GAP)
            rows = rows.select("device_uid", moment.alias("at"))
            within = rows.join(gaps.select("device_uid", "start_time", "end_time"), on="device_uid")
            assert within.height
            assert not ((within["at"] >= within["start_time"]) & (within["at"] < within["end_time"])).any()

    def test_a_skewed_clock_moves_all_of_a_device_alike(self):
        skewed = frames(dataclasses.replace(SMALL, faults=faults(skew=0.5)))
        both = frames(SMALL)["flows"].join(skewed["flows"], on="flow_id", suffix="_skewed")
        moved = both.select("device_uid", (pl.col("end_time_skewed") - pl.col("end_time")).alias("by")).unique()
        bound = Faults().skew.bound_s
        assert moved["device_uid"].is_unique().all()
        assert 0 < (moved["by"] != 0).sum() < moved.height
        assert moved["by"].abs().max() <= bound * SECOND
        assert skewed["flows"]["clock_skew_bound_s"].unique().to_list() == [bound]


class TestTruth:
    def test_it_names_as_many_relays_as_asked(self):
        truth = Simulation(SMALL).truth()
        assert truth.select("device_uid", "android_package").n_unique() == SMALL.relaying_pairs == 3
        assert Simulation(dataclasses.replace(SMALL, relays=0.0)).truth().is_empty()
        assert Simulation(dataclasses.replace(SMALL, relays=1e-9)).truth()["device_uid"].n_unique() == 1

    def test_accepted_sessions_are_all_of_relays_that_accept(self):
        plan = dataclasses.replace(SMALL, flows=20_000, relays=0.03)
        truth = Simulation(plan).truth().filter(pl.col("topology") == Topology.ACCEPTED.value)
        accepted = frames(plan)["flows"].filter(pl.col("direction_id") == int(Direction.INBOUND))
        assert accepted.height == truth["sessions"].sum() > 0
        assert set(accepted["device_uid"]) == set(truth["device_uid"])

    def test_episodes_lie_within_their_day(self):
        plan = dataclasses.replace(SMALL, days=3)
        truth = Simulation(plan).truth()
        begin, end = (truth[name].cast(pl.Int64) - plan.begin_us for name in ("begin", "end"))
        assert (begin // DAY_US == end // DAY_US).all()
        assert truth.select("device_uid", "android_package").n_unique() == plan.relaying_pairs

    def test_a_tunnel_sends_what_its_targets_received(self):
        plan = dataclasses.replace(SMALL, flows=60_000, volumes=1.0, relays=0.03)
        truth = Simulation(plan).truth().filter(pl.col("topology") == Topology.TUNNEL.value)
        flows = frames(plan)["flows"]
        assert truth.height
        for row in truth.iter_rows(named=True):
            own = flows.filter(
                (pl.col("device_uid") == row["device_uid"]) & (pl.col("android_package") == row["android_package"])
            )
            links = own.filter(pl.col("remote_ip").str.starts_with("192.0.2."))
            targets = own.filter(pl.col("remote_hostname").str.contains("site") | (pl.col("remote_port") == 443))
            assert (
                links["bytes_out"].sum()
                >= 0.9
                * targets.filter(pl.col("remote_hostname").str.contains("site").fill_null(value=False))[
                    "bytes_in"
                ].sum()
            )

    def test_too_few_flows_for_the_relays_is_said(self):
        with pytest.raises(SettingError, match="too few"):
            Simulation(Plan(devices=100, flows=1_000, relays=0.05))


def test_a_hunt_finds_the_relays_and_nobody_else(tmp_path):
    plan = Plan(devices=30, flows=60_000, volumes=0.7, signals=0.5, relays=0.01, seed=2)
    simulation = Simulation(plan)
    write_fleet(simulation, Form.PARQUET, tmp_path, lambda _: None)
    result = hunt([tmp_path / "telemetry"], Hunt(Settings(), Exceptions(()), datetime(2026, 2, 1, tzinfo=UTC)))
    truth = simulation.truth()
    assert result.summary.quarantine.total == 0
    called = {
        (found.device.uid, found.app.package)
        for found in result.findings
        if found.verdict in (Verdict.RELAY, Verdict.SUSPECTED_RELAY)
    }
    assert called == set(truth.select("device_uid", "android_package").iter_rows())
    assert set(truth["topology"]) == {topology.value for topology in Topology}


@given(st.lists(st.floats(0.001, 1_000.0), min_size=1, max_size=50))
def test_an_alias_table_keeps_the_weights(weights):
    given_weights = np.array(weights) / sum(weights)
    chance, instead = alias_of(given_weights)
    kept = np.clip(chance, 0.0, 1.0)
    drawn = kept + np.bincount(instead, 1.0 - kept, len(weights))
    assert drawn / len(weights) == pytest.approx(given_weights, abs=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"devices": 0},
        {"flows": 0},
        {"days": 400},
        {"relays": 1.5},
        {"volumes": -0.1},
        {"seed": -1},
        {"signals": float("nan")},
    ],
)
def test_a_plan_out_of_range_is_refused(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)
