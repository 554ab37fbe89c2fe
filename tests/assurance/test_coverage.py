"""What a user is promised of coverage: each answer follows from what the telemetry shows, and says why."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import BEGIN_US, Recorder, own_traffic, without
from sites import batches_of, counter, covered, phone, signal, windows

from relaywatch.assurance.gaps import GAPS, REMEDIES, remedies_for
from relaywatch.model.assurance import Answer
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import batch

DAY_US = 86_400_000_000
MIDNIGHT_US = BEGIN_US // DAY_US * DAY_US
YES, PART, NO = Answer.YES, Answer.IN_PART, Answer.NO


@pytest.fixture
def site():
    return batches_of(phone(1))


def answers(found):
    """Provable by topology, the same of every window of the site."""
    (only,) = {(w.provable.accepted, w.provable.back_connect, w.provable.tunnel) for w in found}
    return only


class TestProvable:
    def test_a_source_that_shows_everything_proves_every_topology(self, site, tmp_path):
        assert answers(windows(site, tmp_path)) == (YES, YES, YES)

    @pytest.mark.parametrize(
        ("table", "columns", "expected", "named"),
        [
            ("flows", ("android_package", "android_uid"), (NO, NO, NO), "app"),
            ("flows", ("bytes_out", "bytes_in"), (NO, NO, NO), "bytes"),
            ("flows", ("direction_id",), (NO, NO, NO), "direction"),
            ("flows", ("remote_hostname",), (YES, NO, NO), "hostname"),
            ("flows", ("remote_ip", "remote_hostname"), (NO, NO, NO), "address"),
            ("volumes", (), (YES, YES, NO), "volumes"),
        ],
    )
    def test_what_the_judgement_asks_for_and_is_not_there_makes_a_no(
        self, site, tmp_path, table, columns, expected, named
    ):
        found = windows(without(site, table, *columns), tmp_path)
        assert answers(found) == expected
        assert all(named in window.missing for window in found)
        assert all(window.remedies for window in found)

    def test_no_accepted_session_anywhere_leaves_listeners_unseen(self, tmp_path):
        quiet = own_traffic(np.random.default_rng(3), Recorder())
        (window,) = windows(batches_of([quiet]), tmp_path)
        assert (window.provable.accepted, window.provable.tunnel) == (NO, YES)
        assert window.missing == ["inbound"]

    def test_a_field_that_only_some_flows_show_promises_nothing(self, tmp_path):
        whole, bare = phone(1)
        found = windows([*batches_of([whole]), *without(batches_of([bare]), "flows", "bytes_in")], tmp_path)
        assert answers(found) == (PART, PART, PART)
        assert all("bytes" in window.partial for window in found)

    def test_a_sampling_exporter_promises_nothing(self, site, tmp_path):
        told = signal(SignalKind.CAPTURE, BEGIN_US, BEGIN_US + 700_000_000, detail="sampled 1:100")
        assert answers(windows([*site, told], tmp_path)) == (PART, PART, PART)

    def test_a_clock_of_whole_minutes_promises_no_pairs(self, tmp_path):
        app = Recorder()
        for k in range(20):
            app.flow(60.0 * k, 60.0 * k + 5.0, [(60.0 * k, 900, 9_000)], "198.18.1.1", hostname="a.example")
        (window,) = windows(batches_of([app]), tmp_path)
        assert (window.provable.back_connect, window.provable.tunnel) == (PART, YES)
        assert "clock" in window.partial

    def test_two_flows_at_whole_minutes_say_nothing_of_the_clock(self, tmp_path):
        app = Recorder()
        for k in range(2):
            app.flow(60.0 * k, 60.0 * k + 5.0, [(60.0 * k, 900, 9_000)], "198.18.1.1", hostname="a.example")
        (window,) = windows(batches_of([app]), tmp_path)
        assert window.provable.back_connect is YES


class TestDisprovable:
    def test_nothing_shows_that_all_interfaces_were_seen(self, site, tmp_path):
        found = windows(site, tmp_path)
        assert {window.disprovable for window in found} == {NO}
        assert all("interfaces" in window.partial for window in found)

    def counters(self, share=1.0):
        """The phone's own counts, of which the flows show `share`."""
        found = []
        for app in phone(1):
            sent, received = (sum(row[name] for row in app.rows["flows"]) for name in ("bytes_out", "bytes_in"))
            found.append(counter(app, MIDNIGHT_US, int(sent / share), int(received / share)))
        return found

    def test_the_phones_own_counters_show_that_nothing_went_elsewhere(self, site, tmp_path):
        found = windows([*site, *self.counters()], tmp_path)
        assert {window.disprovable for window in found} == {YES}
        assert {tuple(window.partial) for window in found} == {()}

    def test_counters_that_show_more_than_was_seen_leave_it_open(self, site, tmp_path):
        assert {w.disprovable for w in windows([*site, *self.counters(share=0.5)], tmp_path)} == {NO}

    def test_a_log_that_lost_records_leaves_it_open(self, site, tmp_path):
        lost = signal(SignalKind.LOGGING_GAP, BEGIN_US + 1_000_000, None)
        found = windows([*site, *self.counters(), lost], tmp_path)
        assert {window.disprovable for window in found} == {NO}
        assert all("logging_gap" in window.partial for window in found)

    def test_flows_of_nobody_leave_it_open(self, site, tmp_path):
        stray = Recorder(package=None, uid=None, device="phone-1")
        stray.flow(30.0, 31.0, [(30.0, 500, 700)], "198.18.3.3", hostname="b.example")
        found = windows([*site, *self.counters(), *batches_of([stray])], tmp_path)
        assert {window.disprovable for window in found} == {NO}
        assert all("unattributed" in w.partial for w in found if w.package is not None)

    def test_another_profile_without_traffic_leaves_it_open(self, site, tmp_path):
        other = {"device_uid": "phone-1", "user_id": 10, "source": "users", "position": 1, "clock": "device"}
        found = windows([*site, *self.counters(), batch("inventory", other, length=1)], tmp_path)
        assert {window.disprovable for window in found} == {NO}
        assert all("profile" in window.partial for window in found)

    def test_counters_below_what_any_relay_sends_are_enough(self, tmp_path):
        app = Recorder()
        app.flow(1.0, 2.0, [(1.0, 700, 900)], "198.18.1.1")
        batches = without(batches_of([app]), "flows", "bytes_out", "bytes_in")
        (window,) = windows([*batches, counter(app, MIDNIGHT_US, 900, 1_200)], tmp_path)
        assert (window.provable.every, window.disprovable) == (NO, YES)

    def test_an_app_that_its_own_counter_says_more_of_is_not_hidden_by_others(self, site, tmp_path):
        silent = Recorder(package="com.hidden", uid=10_199, device="phone-1")
        more = counter(silent, MIDNIGHT_US, 60_000, 70_000)
        found = {w.package: w for w in windows([*site, *self.counters(), more], tmp_path)}
        assert found["com.hidden"].disprovable is NO
        assert found["com.hidden"].provable.every is NO
        assert found["com.example.app0"].disprovable is YES

    def test_an_app_without_a_counter_is_not_covered_by_those_of_others(self, site, tmp_path):
        found = {w.package: w for w in windows([*site, self.counters()[0]], tmp_path)}
        assert (found["com.example.app0"].disprovable, found["com.example.app1"].disprovable) == (YES, NO)

    def test_flows_exported_twice_do_not_make_up_for_what_was_not_seen(self, site, tmp_path):
        again = [retold(part, source="again") for part in site if part.table == "flows"]
        found = windows([*site, *again, *self.counters(share=0.5)], tmp_path)
        assert {w.disprovable for w in found} == {NO}
        assert {w.flows for w in found} == {w.flows for w in windows(site, tmp_path / "once")}

    def test_counters_that_two_dumps_hold_count_once(self, site, tmp_path):
        again = [retold(part, source="second dump") for part in self.counters()]
        assert {w.disprovable for w in windows([*site, *self.counters(), *again], tmp_path)} == {YES}

    def test_counters_that_flows_contradict_are_not_believed(self, site, tmp_path):
        small = [counter(app, MIDNIGHT_US, 900, 1_200) for app in phone(1)]
        assert {w.disprovable for w in windows([*without(site, "volumes"), *small], tmp_path)} == {NO}

    def test_without_a_list_of_users_another_profile_may_be_there(self, site, tmp_path):
        bare = [part for part in site if part.table != "inventory"]
        found = windows([*bare, *self.counters()], tmp_path)
        assert {w.disprovable for w in found} == {NO}
        assert all("profile" in w.partial for w in found)

    def test_time_that_no_source_claims_to_have_watched_leaves_it_open(self, tmp_path):
        unclaimed = batches_of(phone(1, watched=False))
        found = windows([*unclaimed, *self.counters()], tmp_path)
        assert {(w.watched > 0.9, w.disprovable) for w in found} == {(True, NO)}
        assert all("pauses" in w.partial for w in found)

    def test_what_was_watched_before_the_first_flow_does_not_count(self, tmp_path):
        early = Recorder(device="phone-9")
        early.flow(1.0, 2.0, [(1.0, 700, 900)], "198.18.1.1", hostname="a.example")
        early.signal(SignalKind.CAPTURE, -3_300.0, 70.0)
        (window,) = (w for w in windows(batches_of([*phone(1), early]), tmp_path) if w.device == "phone-9")
        assert window.watched == pytest.approx(0.1, abs=0.02)
        assert "pauses" in window.partial


class TestReport:
    def test_populations_are_parted_by_group_and_add_up(self, tmp_path):
        groups = [
            batch("inventory", {"device_uid": f"phone-{k}", "device_group": name, **TOLD}, length=1)
            for k, name in ((1, "sales"), (2, "field"))
        ]
        report = covered([*batches_of([*phone(1), *phone(2)]), *groups], tmp_path).report
        assert [part.group for part in report.populations] == ["all devices", "field", "sales"]
        whole, *parts = report.populations
        assert whole.app_windows == sum(part.app_windows for part in parts) == 4
        for part in report.populations:
            for shares in (*part.provable.values(), part.disprovable):
                assert shares.yes + shares.in_part + shares.no == pytest.approx(1.0)

    def test_a_device_that_only_an_inventory_names_is_told_as_silent(self, site, tmp_path):
        named = batch("inventory", {"device_uid": "phone-9", **TOLD}, length=1)
        result = covered([*site, named], tmp_path)
        (window,) = (window for window in result.windows() if window.device == "phone-9")
        assert (result.report.devices, result.report.silent_devices) == (2, 1)
        assert (window.provable.every, window.missing, window.watched) == (NO, ["unwatched"], 0.0)

    def test_rows_say_what_fed_them(self, site, tmp_path):
        rows = {(row.data_component, row.table): row for row in covered(site, tmp_path).report.rows if row.analytic}
        assert rows["DC0085", "volumes"].fed == 1.0
        assert rows["DC0085", "flows"].formats == ["canonical-parquet"]
        assert rows["DC0114", "inventory"].fed == 1.0
        assert rows["DC0021", "signals"].fed == 1.0

    def test_rows_that_nothing_feeds_name_what_would(self, site, tmp_path):
        rows = covered(without(site, "volumes"), tmp_path).report.rows
        (row,) = (row for row in rows if row.table == "volumes")
        assert (row.fed, row.absent, row.formats) == (0.0, ["volumes"], [])
        assert row.remedies

    def test_blind_spots_show_their_trend(self, tmp_path):
        early, late = phone(1)[0], Recorder(package="com.example.app0", uid=10_100, device="phone-1")
        own_traffic(np.random.default_rng(1), late, 20, 500.0)
        moved = [shifted(part, DAY_US) for part in without(batches_of([late]), "volumes")]
        spots = {spot.name: spot for spot in covered([*batches_of([early]), *moved], tmp_path).report.blind_spots}
        assert [point.share for point in spots["bytes by interval"].trend] == [0.0, 1.0]
        assert spots["bytes by interval"].share == 0.5
        assert spots["app identity"].share == 0.0

    def test_a_phone_that_watched_and_saw_nothing_is_not_told_as_unwatched(self, site, tmp_path):
        told = signal(SignalKind.CAPTURE, BEGIN_US - 10_000_000, BEGIN_US + 800_000_000, device="phone-5")
        (window,) = (w for w in windows([*site, retold(told, source="capture")], tmp_path) if w.device == "phone-5")
        assert window.watched == pytest.approx(1.0)
        assert (window.missing, window.partial[0]) == ([], "unwatched")

    def test_a_wrong_clock_on_one_phone_stops_nothing(self, site, tmp_path):
        lost = Recorder(device="phone-7")
        lost.flow(-BEGIN_US / 1e6, 1.0 - BEGIN_US / 1e6, [(-BEGIN_US / 1e6, 700, 900)], "198.18.1.1")
        found = covered([*site, *without(batches_of([lost]), "volumes")], tmp_path)
        assert [part.start.year for part in found.report.populations] == [1970, 2026]

    def test_a_flow_of_days_is_there_on_each_day_that_has_flows(self, tmp_path):
        app = Recorder()
        app.flow(0.0, 86_400.0 * 1.5, [(0.0, 700, 900)], "198.18.1.1", hostname="a.example")
        app.flow(86_400.0 * 1.2, 86_400.0 * 1.2 + 1.0, [(103_680.0, 500, 900)], "198.18.1.2", hostname="b.example")
        assert [w.flows for w in windows(batches_of([app]), tmp_path)] == [1, 2]

    def test_answers_do_not_hang_on_what_other_phones_show(self, site, tmp_path):
        bare = without(batches_of(phone(70, 1)), "flows", "bytes_out", "bytes_in")
        alone = {w.device: w for w in windows([*site, *bare], tmp_path / "two")}["phone-70"]
        many = batches_of([app for number in range(2, 70) for app in phone(number, 1)])
        beside = {w.device: w for w in windows([*site, *many, *bare], tmp_path / "many")}["phone-70"]
        assert (alone.watched, alone.provable) == (beside.watched, beside.provable)

    def test_allowed_destinations_are_left_out_as_in_a_hunt(self, site, tmp_path):
        listed = tuple(f"site{number}.example" for number in range(100, 106))
        found = windows(site, tmp_path, allowed_destination_list=listed)
        assert sum(window.flows for window in found) == 1

    def test_a_group_called_all_devices_stays_a_group(self, site, tmp_path):
        named = [
            batch("inventory", {"device_uid": f"phone-{k}", "device_group": name, **TOLD}, length=1)
            for k, name in ((1, "all devices"), (2, "field"))
        ]
        report = covered([*site, *batches_of(phone(2)), *named], tmp_path).report
        assert [part.group for part in report.populations] == ["all devices", "all devices (a group)", "field"]

    def test_nothing_at_all_is_an_answer_too(self, tmp_path):
        named = batch("inventory", {"device_uid": "phone-9", **TOLD}, length=1)
        result = covered([named], tmp_path)
        assert (result.report.devices, result.report.silent_devices, result.report.populations) == (1, 1, [])
        assert list(result.windows()) == []

    def test_windows_too_short_for_the_time_covered_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("relaywatch.assurance.watching.MOST_WINDOWS", 20)
        with pytest.raises(RelaywatchError, match="longer --window"):
            covered(batches_of(phone(1)), tmp_path, window_s=0.5)

    def test_the_order_of_records_changes_nothing(self, tmp_path):
        batches = batches_of([*phone(1), *phone(2)])
        mixed = random.Random(1).sample(batches, len(batches))  # noqa: S311  an order, no secret
        one, other = covered(batches, tmp_path / "a"), covered(mixed, tmp_path / "b")
        assert list(one.windows()) == list(other.windows())


TOLD = {"source": "mdm", "position": 1, "clock": "sensor"}


def retold(part, **columns):
    """The batch with other values in some columns."""
    held = {name: part.rows[name] for name in part.rows.schema.names}
    return batch(part.table, held | columns, length=part.rows.num_rows)


def shifted(part, by_us):
    """The batch's times, so much later."""
    columns = {}
    for name in part.rows.schema.names:
        column = part.rows[name]
        moved = name in {"start_time", "end_time"}
        columns[name] = column.view("int64").to_numpy(zero_copy_only=False) + by_us if moved else column
    columns["source"] = "later"
    return batch(part.table, columns, length=part.rows.num_rows)


class TestRemedies:
    @given(st.sets(st.sampled_from(sorted({name for remedy in REMEDIES for name in remedy.closes}))))
    def test_they_close_every_gap_that_any_source_closes(self, gaps):
        chosen = [remedy for remedy in REMEDIES if remedy.source in remedies_for(gaps)]
        assert gaps <= {name for remedy in chosen for name in remedy.closes}

    def test_the_cheapest_single_source_is_named_where_one_is_enough(self):
        assert remedies_for({"hostname"}) == ("DNS and TLS logs beside the flows (Zeek dns.log, ssl.log)",)

    def test_every_gap_is_declared(self):
        assert {name for remedy in REMEDIES for name in remedy.closes} <= set(GAPS)
