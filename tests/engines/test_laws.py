"""What a user is promised of a hunt, whatever the input: no order, copy, neighbour or missing sensor adds a relay."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scenarios import (
    BENIGN,
    LISTENER_PORT,
    RELAYS,
    Recorder,
    back_connect_relay,
    found,
    hunted,
    independent_in_and_out,
    listener_relay,
    own_traffic,
    tunnel_relay,
    without,
)

from relaywatch.engines import local, names, shards
from relaywatch.model.finding import Finding, Verdict
from relaywatch.model.schemas import TABLES, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.native import finding_object

GRAVITY = {None: 0, Verdict.INSUFFICIENT_TELEMETRY: 1, Verdict.SUSPECTED_RELAY: 2, Verdict.RELAY: 3}
SEEDS = st.integers(0, 2**32 - 1)


def objects(findings: list[Finding]) -> list[dict[str, Any]]:
    return [finding_object(finding) for finding in findings]


def phone(number: int, seed: int = 1604) -> list[Batch]:
    """Telemetry of one phone: a relay of one topology and two apps that are none; its context seen by other sources."""
    rng = np.random.default_rng([seed, number])
    device = f"phone-{number}"
    relay = Recorder(device=device, package="com.example.flashlight", uid=10_100)
    (listener_relay, tunnel_relay, back_connect_relay)[number % 3](rng, relay)
    own_traffic(rng, relay, 15)
    for begin in (10.0, 95.0, 200.0):
        relay.signal(SignalKind.FOREGROUND_UI, begin, begin + 12.5, source=f"{device}/usage")
        relay.signal(SignalKind.USER_INTERACTION, begin + 1.0, None, source=f"{device}/usage")
    relay.signal(SignalKind.CAPTURE, 0.0, None, detail="FOREGROUND_UI USER_INTERACTION LISTENER SCREEN_ON")
    news = own_traffic(rng, Recorder(device=device, package="com.example.news", uid=10_101), 25)
    files = independent_in_and_out(rng, Recorder(device=device, package="com.example.files", uid=10_102), 25)
    return [part for app in (relay, news, files) for part in app.batches()]


FLEET = [part for number in range(3) for part in phone(number)]


def dealt(batches: list[Batch], seed: int) -> list[Batch]:
    """The same rows in another order, in other batches."""
    rng = np.random.default_rng(seed)
    pieces = []
    for table, schema in TABLES.items():
        whole = pa.Table.from_batches([part.rows for part in batches if part.table == table], schema)
        whole = whole.unify_dictionaries().combine_chunks().take(rng.permutation(len(whole)))
        edges = np.unique([0, *rng.integers(0, len(whole) + 1, rng.integers(0, 6)), len(whole)])
        for a, b in pairwise(edges):
            pieces += [Batch(table, rows) for rows in whole.slice(a, b - a).combine_chunks().to_batches()]
    rng.shuffle(pieces)
    return pieces


class TestOrder:
    @hypothesis_settings(max_examples=25)
    @given(SEEDS)
    def test_rows_in_any_order_and_batches_give_the_same_findings(self, seed):
        assert objects(found(dealt(FLEET, seed))) == objects(found(FLEET))

    @hypothesis_settings(max_examples=10)
    @given(st.permutations(range(3)))
    def test_files_in_any_order_give_the_same_findings(self, order):
        shuffled = [part for number in order for part in phone(number)]
        assert objects(found(shuffled)) == objects(found(FLEET))

    @hypothesis_settings(max_examples=10)
    @given(SEEDS)
    def test_rows_that_agree_in_time_are_told_apart_by_what_they_are(self, seed):
        coarse = [_in_whole_seconds(part) for part in FLEET]
        assert objects(found(dealt(coarse, seed))) == objects(found(coarse))

    def test_which_of_two_inventories_is_read_first_does_not_matter(self):
        app = listener_relay(np.random.default_rng(2), Recorder())
        other = next(part for part in app.batches() if part.table == "inventory")
        renamed = other.rows.set_column(
            other.rows.schema.get_field_index("user_name"),
            other.rows.schema.field("user_name"),
            pa.array(["B. Other"]).dictionary_encode(),
        )
        renamed = renamed.set_column(
            renamed.schema.get_field_index("source"),
            renamed.schema.field("source"),
            pa.array(["other/inventory"]).dictionary_encode(),
        )
        both = [*app.batches(), Batch("inventory", renamed)]
        assert objects(found(both)) == objects(found(both[::-1]))


def _in_whole_seconds(part: Batch) -> Batch:
    rows = part.rows
    for name in ("start_time", "end_time"):
        place = rows.schema.get_field_index(name)
        if part.table == "flows":
            whole = pa.array(np.asarray(rows[name].cast(pa.int64())) // 1_000_000 * 1_000_000, pa.int64())
            rows = rows.set_column(place, rows.schema.field(name), whole.cast(rows.schema.field(name).type))
    return Batch(part.table, rows)


class TestReplay:
    def test_the_same_records_twice_are_counted_once(self):
        assert objects(found(FLEET + FLEET)) == objects(found(FLEET))

    @hypothesis_settings(max_examples=10)
    @given(SEEDS, st.floats(0.0, 1.0))
    def test_records_that_overlap_are_counted_once(self, seed, share):
        again = [Batch(part.table, part.rows.slice(0, int(share * len(part.rows)))) for part in dealt(FLEET, seed)]
        assert objects(found([*FLEET, *(part for part in again if len(part.rows))])) == objects(found(FLEET))

    def test_a_source_that_names_no_local_port_is_counted_once_too(self):
        portless = without(phone(1), "flows", "local_port")
        assert objects(found(portless + portless)) == objects(found(portless))

    def test_a_copy_of_the_telemetry_under_another_name_adds_nothing(self):
        relay = listener_relay(np.random.default_rng(3), Recorder(source="a.capture"))
        copy = Recorder(source="b.capture", rows=relay.rows)
        plain, both = found(relay.batches()), found([*copy.batches(), *relay.batches()])
        assert objects(both) == objects(found([*relay.batches(), *copy.batches()]))
        assert (both[0].bridges, both[0].score, both[0].bytes_in) == (
            plain[0].bridges,
            plain[0].score,
            plain[0].bytes_in,
        )


class TestMemory:
    @pytest.mark.parametrize("kept", [0, 10_000])
    def test_what_outgrows_memory_gives_the_same_findings(self, kept, monkeypatch):
        expected = objects(found(FLEET))
        monkeypatch.setattr(shards, "KEPT_IN_MEMORY", kept)
        monkeypatch.setattr(names, "KEPT_IN_MEMORY", 10)
        assert objects(found(FLEET)) == expected
        assert objects(found(dealt(FLEET, 7))) == expected

    def test_many_rows_and_cases_at_a_time_come_to_what_all_at_once_come_to(self, monkeypatch):
        expected = objects(found(FLEET))
        monkeypatch.setattr(local, "ROWS_AT_ONCE", 100)
        monkeypatch.setattr(local, "DRAFTED_AT_ONCE", 1)
        assert objects(found(FLEET)) == expected

    def test_number_of_shards_does_not_matter(self, monkeypatch):
        expected = objects(found(FLEET))
        monkeypatch.setattr(shards, "SHARDS", 1)
        assert objects(found(FLEET)) == expected


class TestIsolation:
    @pytest.mark.parametrize("together", [64, 1])
    @hypothesis_settings(max_examples=8)
    @given(other=st.integers(3, 40), earlier=st.floats(0.0, 1e6))
    def test_another_phone_changes_nothing(self, other, earlier, together):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shards, "SHARDS", together)
            alone = objects(found(phone(0)))
            beside = found([*_moved(phone(other), earlier), *phone(0)])
        assert [o for o in objects(beside) if o["device"]["uid"] == "phone-0"] == alone

    @hypothesis_settings(max_examples=8)
    @given(seed=SEEDS, earlier=st.floats(0.0, 1e6))
    def test_another_app_on_the_phone_changes_nothing(self, seed, earlier):
        more = own_traffic(np.random.default_rng(seed), Recorder(device="phone-0", package="com.other", uid=10_500))
        beside = found([*_moved(more.batches(), earlier), *phone(0)])
        assert [o for o in objects(beside) if o["app"]["package"] != "com.other"] == objects(found(phone(0)))

    def test_two_users_of_one_package_are_two_apps(self):
        rng = np.random.default_rng(4)
        owner = own_traffic(rng, Recorder(uid=10_150))
        profile = listener_relay(rng, Recorder(uid=1_010_150))
        (finding,) = found([*owner.batches(), *profile.batches()])
        assert (finding.app.uid, finding.app.user_id) == (1_010_150, 10)


def _moved(batches: list[Batch], earlier_s: float) -> list[Batch]:
    """The batches with all flows and volumes so many seconds earlier."""
    moved = []
    for part in batches:
        rows = part.rows
        for name in ("start_time", "end_time"):
            place = rows.schema.get_field_index(name)
            if place >= 0:
                times = rows[name].cast(pa.int64())
                kind = rows.schema.field(name)
                rows = rows.set_column(
                    place,
                    kind,
                    pa.array(
                        [None if t is None else t - round(earlier_s * 1e6) for t in times.to_pylist()], pa.int64()
                    ).cast(kind.type),
                )
        moved.append(Batch(part.table, rows))
    return moved


BLINDED = {
    "volumes": lambda batches: without(batches, "volumes"),
    "signals": lambda batches: without(batches, "signals"),
    "inventory": lambda batches: without(batches, "inventory"),
    "bytes": lambda batches: without(without(batches, "flows", "bytes_out", "bytes_in"), "volumes"),
    "answers": lambda batches: without(without(batches, "flows", "bytes_in"), "volumes"),
    "hostname": lambda batches: without(batches, "flows", "remote_hostname", "hostname_observability"),
    "direction": lambda batches: without(batches, "flows", "direction_id", "direction_observability"),
    "ends": lambda batches: without(batches, "flows", "end_time"),
    "app": lambda batches: [
        part
        for table in TABLES
        for part in without([b for b in batches if b.table == table], table, "android_package", "android_uid")
    ],
}
NAMED = {"volumes", "hostname", "app", "direction"}
"""Sensors whose loss still lets something be reported, and must then be named."""


def gravest(findings: list[Finding]) -> int:
    return max((GRAVITY[finding.verdict] for finding in findings), default=0)


class TestMissingSensors:
    @pytest.mark.parametrize("lost", BLINDED)
    @pytest.mark.parametrize("scenario", BENIGN)
    @pytest.mark.parametrize("seed", range(3))
    def test_no_relay_comes_of_what_is_not_seen(self, seed, scenario, lost):
        rng = np.random.default_rng(seed)
        batches = own_traffic(rng, BENIGN[scenario](rng, Recorder())).batches()
        before = gravest(found(batches))
        if before < GRAVITY[Verdict.SUSPECTED_RELAY]:
            assert gravest(found(BLINDED[lost](batches))) < GRAVITY[Verdict.RELAY]

    @pytest.mark.parametrize("lost", BLINDED)
    @pytest.mark.parametrize("topology", RELAYS)
    def test_a_finding_says_what_was_not_seen(self, topology, lost):
        whole = RELAYS[topology](np.random.default_rng(8), Recorder()).batches()
        for finding in found(BLINDED[lost](whole)):
            missing = {gap.field for gap in finding.not_observable}
            assert {"bytes": "bytes", "answers": "bytes"}.get(lost, lost) in missing or lost not in NAMED
            assert all(gap.reason and gap.cost and gap.remedy for gap in finding.not_observable)

    @pytest.mark.parametrize("topology", RELAYS)
    def test_without_the_app_a_relay_is_suspected_at_most(self, topology):
        blinded = BLINDED["app"](RELAYS[topology](np.random.default_rng(9), Recorder()).batches())
        (finding,) = found(blinded)
        assert finding.verdict is Verdict.SUSPECTED_RELAY
        assert finding.app.package is finding.app.uid is None
        assert "app" in {gap.field for gap in finding.not_observable}

    def test_a_uid_is_an_app_even_where_its_package_is_not_known(self):
        blinded = without(listener_relay(np.random.default_rng(9), Recorder()).batches(), "flows", "android_package")
        for table in ("volumes", "signals", "inventory"):
            (finding,) = found(without(blinded, "volumes"))
            assert (finding.verdict, finding.app.package, finding.app.uid) == (Verdict.RELAY, "com.example.app", 10_150)
            blinded = without(blinded, table, "android_package")
        (finding,) = found(without(blinded, "volumes"))
        assert (finding.verdict, finding.app.package, finding.app.uid) == (Verdict.RELAY, None, 10_150)
        assert "no approved role" not in {item.name for item in finding.evidence}

    @pytest.mark.parametrize("topology", ["listener", "back_connect", "pooled"])
    def test_one_to_one_bridges_need_no_volumes(self, topology):
        batches = RELAYS[topology](np.random.default_rng(10), Recorder(see_volumes=False)).batches()
        (finding,) = found(batches)
        assert finding.verdict is Verdict.RELAY
        assert "volumes" in {gap.field for gap in finding.not_observable}

    def test_a_tunnel_without_volumes_is_at_most_said_to_need_them(self):
        batches = tunnel_relay(np.random.default_rng(11), Recorder(see_volumes=False)).batches()
        (finding,) = found(batches)
        assert finding.verdict is Verdict.INSUFFICIENT_TELEMETRY
        assert "volumes" in {gap.field for gap in finding.not_observable}

    @pytest.mark.parametrize("topology", RELAYS)
    def test_flows_without_bytes_are_named_as_not_judged_and_never_called_clean(self, topology):
        batches = BLINDED["bytes"](RELAYS[topology](np.random.default_rng(12), Recorder()).batches())
        result = hunted(batches)
        assert result.findings == []
        assert [entry.app for entry in result.summary.not_judged] == ["com.example.app"]


@hypothesis_settings(max_examples=40)
@given(st.sampled_from(sorted(BENIGN)), SEEDS)
@example("own_traffic", 0)
def test_an_app_that_is_none_is_never_called_a_relay(scenario, seed):
    rng = np.random.default_rng(seed)
    batches = own_traffic(rng, BENIGN[scenario](rng, Recorder())).batches()
    assert gravest(found(batches)) < GRAVITY[Verdict.RELAY]


def test_listener_port_is_that_of_the_relay():
    (finding,) = found(listener_relay(np.random.default_rng(13), Recorder()).batches())
    assert finding.listener_port == LISTENER_PORT
