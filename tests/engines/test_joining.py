"""What a phone and a sensor saw of one connection is one flow: the app from one, bytes and direction from the other."""

import itertools
from collections.abc import Iterable

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scenarios import (
    BEGIN_US,
    LISTENER_PORT,
    LOCAL_IP,
    Recorder,
    back_connect_relay,
    found,
    hunted_views,
    listener_relay,
    own_traffic,
    pooled_relay,
    without,
)

from relaywatch.engines.attribution import BY_ENDPOINT, BY_LISTENER, BY_LOOKUP, OWN_LOOKUP
from relaywatch.engines.joining import TWIN, JoinAccount
from relaywatch.model.finding import Verdict
from relaywatch.model.schemas import TABLES, Direction, SignalKind
from relaywatch.model.tables import Batch, batch

RELAYS = {"listener": listener_relay, "back_connect": back_connect_relay, "pooled": pooled_relay}
BYTES = ("bytes_out", "bytes_in", "wire_bytes_out", "wire_bytes_in", "packets_out", "packets_in")


def frame(part: Batch) -> pl.DataFrame:
    table = pl.from_arrow(pa.Table.from_batches([part.rows]))
    return table.with_columns(pl.col(pl.Categorical).cast(pl.String))


def changed(part: Batch, *columns: pl.Expr) -> Batch:
    return as_batch(part.table, frame(part).with_columns(columns))


def as_batch(table: str, rows: pl.DataFrame) -> Batch:
    return Batch(table, rows.to_arrow().cast(TABLES[table]).combine_chunks().to_batches()[0])


def later(seconds: float) -> pl.Expr:
    return pl.col("start_time") + pl.duration(microseconds=round(seconds * 1e6))


def sensor(batches: Iterable[Batch], device: str = LOCAL_IP) -> list[Batch]:
    """What a sensor beside the phone sees: flows with bytes and direction, by address, no app, no context."""
    batches = [part for part in batches if part.table in {"flows", "volumes"}]
    for table in ("flows", "volumes"):
        batches = without(batches, table, "android_package", "android_uid")
    named = [
        changed(part, pl.lit(device).alias("device_uid"), pl.lit("sensor.log").alias("source")) for part in batches
    ]
    return [changed(part, pl.lit(None).alias("remote_hostname")) if part.table == "flows" else part for part in named]


def phone(batches: Iterable[Batch], ahead: float = 0.0, jitter: float = 0.02) -> list[Batch]:
    """What Android's logs show: dialled TCP connects with the app, no port, no bytes, no end; signals; inventory."""
    told = []
    rng = np.random.default_rng(0)
    blank = [pl.lit(None).alias(name) for name in ("end_time", "local_ip", "local_port", *BYTES)]
    for part in batches:
        if part.table == "flows":
            delay = pl.Series(rng.uniform(-jitter, 0.0, part.rows.num_rows) * 1e6).cast(pl.Duration("us"))
            moved = frame(part).with_columns((later(ahead) + delay).alias("start_time"))
            rows = moved.filter(pl.col("direction_id") == int(Direction.OUTBOUND)).with_columns(
                *blank, pl.lit(0, pl.UInt8).alias("bytes_observability"), pl.lit("connects.log").alias("source")
            )
            told.append(as_batch("flows", rows))
        elif part.table == "signals":
            told.append(changed(part, later(ahead).alias("start_time"), pl.lit("connects.log").alias("source")))
        elif part.table == "inventory":
            told.append(part)
    return told


def listening(app: Recorder, port: int = LISTENER_PORT) -> Recorder:
    app.signal(SignalKind.LISTENER, 0.0, 900.0, local_port=port)
    return app


class TestMoreTelemetryNeverShowsLess:
    """A phone's logs name the app of what it dials, and nobody of what it accepts."""

    def seen(self, views):
        findings = hunted_views(views).findings
        return [(finding.verdict, finding.topology.value, finding.app.package) for finding in findings]

    def test_an_accepted_relay_stays_suspected_when_the_phones_logs_join_the_sensor(self):
        relay = without(listener_relay(np.random.default_rng(5), Recorder(), 20).batches(), "signals")
        alone = self.seen({"zeek": sensor(relay)})
        both = self.seen({"zeek": sensor(relay), "intrusion-logs": phone(relay)})
        assert alone == both == [(Verdict.SUSPECTED_RELAY, "accepted", None)]

    def test_it_is_laid_to_its_app_once_a_source_says_who_listens(self):
        relay = listening(listener_relay(np.random.default_rng(5), Recorder(), 20)).batches()
        found = self.seen({"zeek": sensor(relay), "intrusion-logs": phone(relay)})
        assert found == [(Verdict.RELAY, "accepted", "com.example.app")]

    def test_ordinary_apps_with_a_stray_accepted_session_stay_unsuspected(self):
        app = own_traffic(np.random.default_rng(6), Recorder(), 60)
        app.flow(50.0, 52.0, [(50.5, 4_000, 300)], "192.0.2.9", port=0, direction=Direction.INBOUND, local_port=80)
        batches = app.batches()
        assert self.seen({"zeek": sensor(batches), "intrusion-logs": phone(batches)}) == []


def test_an_app_of_which_only_counters_are_seen_is_told_as_not_judged():
    columns = {"start_time": BEGIN_US, "duration_us": 7_200_000_000, "bytes_out": 9_000, "bytes_in": 90_000}
    who = {"device_uid": "phone-1", "android_uid": 10_150, "source": "netstats", "position": 1, "clock": "device"}
    (told,) = hunted_views({"netstats": [batch("volumes", columns | who, length=1)]}).summary.not_judged
    assert (told.app, "counters" in told.reason) == ("uid 10150", True)


OUTSIDE_IP = "203.0.113.77"


def outside(batches: Iterable[Batch], device: str, first_port: int) -> tuple[list[Batch], Batch]:
    """What a sensor outside a translator sees of a phone's flows, and what the translator logs of them."""
    seen = sensor(batches, OUTSIDE_IP)
    flows = pl.concat(frame(part) for part in seen if part.table == "flows")
    ports = {port: first_port + n for n, port in enumerate(sorted(set(flows["local_port"].to_list())))}
    mapped = pl.col("local_port").replace_strict(ports, return_dtype=pl.UInt16)
    moved = [
        changed(part, pl.lit(f"{device}.out").alias("source"))
        if part.table != "flows"
        else changed(part, pl.lit(OUTSIDE_IP).alias("local_ip"), mapped, pl.lit(f"{device}.out").alias("source"))
        for part in seen
    ]
    begins = pl.col("start_time").dt.epoch("us") - 5_000
    told = flows.select("local_port", begins.alias("start"), mapped.alias("port"), pl.col("end_time").dt.epoch("us"))
    columns = {
        "device_uid": device,
        "kind": int(SignalKind.TRANSLATION),
        "start_time": told["start"].to_list(),
        "end_time": told["end_time"].to_list(),
        "observability": 1,
        "local_port": told["local_port"].to_list(),
        "detail": [f"tcp {OUTSIDE_IP} {port}" for port in told["port"].to_list()],
        "source": "nat.log",
        "position": np.arange(told.height) + 1,
        "clock": "sensor",
    }
    return moved, batch("signals", columns, length=told.height)


class TestOutsideATranslator:
    """Two phones behind one address: what a sensor outside saw is told apart by the translator's log alone."""

    def views(self):
        relaying = back_connect_relay(np.random.default_rng(3), Recorder()).batches()
        other = own_traffic(np.random.default_rng(4), Recorder(device="phone-2", package="com.example.other")).batches()
        far, log = outside(relaying, "10.9.0.2", 30_000)
        far_other, log_other = outside(other, "10.9.0.3", 40_000)
        phones = [*phone(relaying), *phone(other)]
        return {"sensor": [*far, *far_other], "phone": phones, "nat": [log, log_other]}, relaying

    def test_the_log_joins_them(self):
        views, relaying = self.views()
        (alone,) = found(relaying)
        result = hunted_views(views)
        (joined,) = result.findings
        assert (joined.verdict, joined.app, joined.device.uid) == (alone.verdict, alone.app, "phone-1")
        assert joined.bridges == alone.bridges
        assert result.summary.joins.translated == sum(
            part.rows.num_rows for part in views["sensor"] if part.table == "flows"
        )
        assert result.summary.devices == 2

    def test_without_the_log_they_are_not_joined(self):
        views, _ = self.views()
        result = hunted_views({name: views[name] for name in ("sensor", "phone")})
        assert {finding.device.uid for finding in result.findings} <= {OUTSIDE_IP}
        assert not result.summary.joins.translated
        assert not any(pair.matched for pair in result.summary.joins.pairs)

    def test_a_translation_of_another_time_moves_nothing(self):
        views, _ = self.views()
        (log, other) = views["nat"]
        gone = changed(log, pl.col("start_time") - pl.duration(days=2), pl.col("end_time") - pl.duration(days=2))
        result = hunted_views(views | {"nat": [gone, other]})
        assert result.summary.joins.translated == other.rows.num_rows

    def test_the_order_of_the_sources_changes_nothing(self):
        views, _ = self.views()
        seen = [hunted_views({name: views[name] for name in order}) for order in itertools.permutations(views)]
        assert all(result.findings == seen[0].findings for result in seen)


class TestOneView:
    @pytest.mark.parametrize("ahead", [0.0, 2.0, -1.7])
    @pytest.mark.parametrize("topology", RELAYS)
    def test_the_joined_view_gives_the_verdict_of_a_source_that_sees_all(self, topology, ahead):
        app = listening(Recorder(see_volumes=False))
        whole = RELAYS[topology](np.random.default_rng(3), app).batches()
        (alone,) = found(whole)
        result = hunted_views({"sensor": sensor(whole), "phone": phone(whole, ahead)})
        (joined,) = result.findings
        assert (joined.verdict, joined.topology, joined.app) == (alone.verdict, alone.topology, alone.app)
        assert joined.device.uid == "phone-1"
        assert joined.bridges == alone.bridges
        (pair,) = result.summary.joins.pairs
        assert pair.matched == pair.records
        assert pair.skew_s == pytest.approx(ahead, abs=0.05)
        assert (result.summary.devices, result.summary.apps) == (1, 1)

    def test_neither_side_alone_shows_it(self):
        whole = listener_relay(np.random.default_rng(3), listening(Recorder(see_volumes=False))).batches()
        assert [finding.verdict for finding in found(sensor(whole))] == [Verdict.SUSPECTED_RELAY]
        assert found(phone(whole)) == []

    def test_a_finding_cites_the_records_of_both(self):
        whole = listener_relay(np.random.default_rng(3), listening(Recorder(see_volumes=False))).batches()
        (finding,) = hunted_views({"sensor": sensor(whole), "phone": phone(whole)}).findings
        cited = {record.source for item in finding.evidence for record in item.records}
        assert {"sensor.log", "connects.log"} <= cited
        assert {source.format for source in finding.sources} == {"sensor", "phone"}

    def test_a_finding_says_how_its_legs_came_to_their_app(self):
        whole = listener_relay(np.random.default_rng(3), listening(Recorder(see_volumes=False))).batches()
        (finding,) = hunted_views({"sensor": sensor(whole), "phone": phone(whole)}).findings
        (told,) = (fact for fact in finding.context if fact.name == "app identity")
        dialled = finding.bridges  # the phone's log has no accepted session
        legs = int(told.value)
        assert told.statement == (
            f"the app of {legs} legs: {dialled} by another source's record of the connection, "
            f"{legs - dialled} by inference, as no other app fits"
        )
        assert legs > dialled
        (alone,) = found(whole)
        assert "app identity" not in {fact.name for fact in alone.context}

    def test_the_order_of_the_sources_changes_nothing(self):
        whole = pooled_relay(np.random.default_rng(5), Recorder(see_volumes=False)).batches()
        views = {"sensor": sensor(whole), "phone": phone(whole, 2.0), "other": without(whole, "volumes")}
        seen = []
        for order in itertools.permutations(views):
            result = hunted_views({name: views[name] for name in order})
            seen.append((result.findings, result.summary.joins))
        for findings, joins in seen:
            assert joins == seen[0][1]
            assert findings == seen[0][0]

    def test_volumes_of_the_merged_source_follow_their_flow(self):
        whole = RELAYS["pooled"](np.random.default_rng(5), Recorder()).batches()
        sensed = without(sensor(whole), "volumes")
        (alone,) = found(whole)
        (joined,) = hunted_views({"sensor": sensed, "phone": whole}).findings
        assert (joined.verdict, joined.bridges) == (alone.verdict, alone.bridges)
        assert "volumes" not in {gap.field for gap in joined.not_observable}

    @hypothesis_settings(max_examples=15)
    @given(seed=st.integers(0, 10_000), ahead=st.floats(-2, 2))
    def test_every_dialled_flow_gets_its_app_among_several(self, seed, ahead):
        rng = np.random.default_rng(seed)
        apps = [Recorder(package=f"com.app{n}", uid=10_001 + n, see_volumes=False) for n in range(3)]
        batches = [part for app in apps for part in own_traffic(rng, app).batches()]
        moved = [
            changed(
                part,
                (pl.col("flow_id") + 1000 * n).alias("flow_id"),
                (pl.col("local_port") + 1000 * n).alias("local_port"),
            )
            if part.table == "flows"
            else part
            for n, part in enumerate(batches)
        ]
        joins = hunted_views({"sensor": sensor(moved), "phone": phone(moved, ahead)}).summary.joins
        assert sum(pair.matched for pair in joins.pairs) == sum(pair.records for pair in joins.pairs) == 120
        assert not joins.attributed

    def test_a_package_here_and_a_uid_there_are_one_app_by_their_connections(self):
        whole = listener_relay(np.random.default_rng(3), listening(Recorder(see_volumes=False))).batches()
        (alone,) = found(whole)
        logs = [part for part in phone(whole) if part.table == "flows"]
        events = without(logs, "flows", "android_uid")
        sockets = [part for part in whole if part.table in {"flows", "signals"}]
        tables = []
        for part in sockets:
            (seen,) = without([part], part.table, "android_package")
            seen = changed(seen, pl.lit("sockets.log").alias("source"))
            tables.append(
                seen if part.table == "signals" else changed(seen, pl.lit(2, pl.UInt8).alias("start_observability"))
            )
        result = hunted_views({"sensor": sensor(whole), "events": events, "sockets": tables})
        (joined,) = result.findings
        assert (joined.verdict, joined.app.package, joined.app.uid) == (alone.verdict, alone.app.package, alone.app.uid)
        assert result.summary.apps == 1


class TestWhoseItIs:
    def test_a_lease_says_whose_an_address_was(self):
        whole = listener_relay(np.random.default_rng(3), listening(Recorder(see_volumes=False))).batches()
        lease = {"identifier_kind": "ip", "identifier": LOCAL_IP, "position": 1, "source": "leases", "clock": "sensor"}
        mac = lease | {"identifier_kind": "mac", "identifier": "3c:22:fb:00:00:01", "position": 2}
        views = {
            "sensor": sensor(whole),
            "leases": [
                batch("inventory", row | {"device_uid": "mac:3c:22:fb:00:00:01"}, length=1) for row in (lease, mac)
            ],
            "inventory": [batch("inventory", mac | {"device_uid": "phone-1", "user_name": "A. Holder"}, length=1)],
        }
        result = hunted_views(views)
        (finding,) = result.findings
        assert (finding.device.uid, finding.user.name) == ("phone-1", "A. Holder")
        assert result.summary.joins.devices == {"phone-1": ["mac:3c:22:fb:00:00:01"]}
        assert result.summary.joins.by_address > 0

    def test_an_address_that_two_devices_claim_stays_an_address(self):
        whole = listener_relay(np.random.default_rng(3), Recorder(see_volumes=False)).batches()
        lease = {"identifier_kind": "ip", "identifier": LOCAL_IP, "source": "leases", "clock": "sensor"}
        claims = [
            batch(
                "inventory",
                lease | {"device_uid": name, "position": n, "valid_from": 0, "valid_to": 4 * 10**15},
                length=1,
            )
            for n, name in enumerate(["one", "other"])
        ]
        result = hunted_views({"sensor": sensor(whole), "leases": claims})
        assert [finding.device.uid for finding in result.findings] == [LOCAL_IP]
        assert result.summary.joins.contested_addresses > 0


APP_DIALLED = {
    "android_package": "com.a", "android_uid": 10_123, "device_uid": "phone-1", "protocol_num": 6, "direction_id": 2,
    "direction_observability": 1, "remote_port": 443, "clock": "device",
}  # fmt: skip


class TestWithoutAddresses:
    """Perfetto's flows have ports and no address, connect events an address and no local port."""

    def trace(self, *starts: float, **further) -> Batch:
        count = len(starts)
        row = APP_DIALLED | {"source": "trace", "bytes_observability": 2, "bytes_out": 9, "bytes_in": 9}
        many = {"start_time": [BEGIN_US + round(start * 1e6) for start in starts], "flow_id": range(count)}
        many |= {"local_port": [40_000 + n for n in range(count)], "position": range(count)}
        return batch("flows", row | many | further, length=count)

    def connects(self, *starts: float, **further) -> Batch:
        count = len(starts)
        row = APP_DIALLED | {"source": "connects.log", "bytes_observability": 0}
        many = {"start_time": [BEGIN_US + round(start * 1e6) for start in starts], "flow_id": range(count)}
        many |= {"remote_ip": [f"198.51.{n}.9" for n in range(count)], "position": range(count)}
        return batch("flows", row | many | further, length=count)

    def matched(self, trace: Batch, connects: Batch) -> int:
        (pair,) = hunted_views({"trace": [trace], "log": [connects]}).summary.joins.pairs
        assert (pair.one, pair.other) == ("log", "trace")
        return pair.matched

    def test_an_apps_connect_brings_the_address_of_the_one_flow_that_fits(self):
        assert self.matched(self.trace(10, 20, 30), self.connects(10.01, 20.02, 29.99)) == 3

    def test_where_two_fit_none_is_taken(self):
        assert self.matched(self.trace(10, 10.1, 30), self.connects(10.02, 10.12, 30)) == 1
        assert self.matched(self.trace(10, 30), self.connects(10.02, 10.12)) == 0
        assert self.matched(self.trace(10, 10.1), self.connects(10.05, 60)) == 0

    @pytest.mark.parametrize(
        "other",
        [
            {"android_package": "com.b", "android_uid": 10_124},
            {"remote_port": 80},
            {"android_package": None, "android_uid": None},
        ],
    )
    def test_another_app_or_port_and_an_unknown_app_do_not_fit(self, other):
        assert self.matched(self.trace(10, 20), self.connects(10, 20, **other)) == 0

    def test_a_connect_at_another_time_does_not_fit(self):
        assert self.matched(self.trace(10, 50), self.connects(11, 49)) == 0

    def test_sessions_that_the_phone_accepted_are_no_connects(self):
        assert self.matched(self.trace(10, 20, direction_id=1), self.connects(10, 20)) == 0


class TestApps:
    def signal(self, package: str, kind: SignalKind, **further) -> Batch:
        row = {
            "device_uid": "phone-1",
            "android_package": package,
            "kind": int(kind),
            "start_time": 1_772_528_400_000_000,
        }
        rest = {"observability": 1, "source": "phone.log", "position": 1, "clock": "device"}
        return batch("signals", row | rest | further, length=1)

    def flow(self, **further) -> Batch:
        row = {
            "device_uid": "phone-1", "flow_id": 1, "start_time": BEGIN_US + 60_000_000, "protocol_num": 6,
            "direction_id": 2, "direction_observability": 1, "remote_ip": "198.51.100.9", "remote_port": 443,
            "bytes_observability": 1, "bytes_out": 5, "bytes_in": 5, "source": "sensor.log", "position": 1,
            "clock": "sensor",
            "local_port": 40_000,
        }  # fmt: skip
        return batch("flows", row | further, length=1)

    def attributed(self, flows: list[Batch], *told: Batch) -> dict[str, int]:
        return dict(hunted_views({"sensor": flows, "phone": list(told)}).summary.joins.attributed)

    def test_an_accepted_session_is_the_listeners(self):
        accepted = self.flow(direction_id=1, local_port=8899, remote_port=50_000)
        listener = self.signal("com.a", SignalKind.LISTENER, local_port=8899)
        assert self.attributed([accepted], listener) == {BY_LISTENER: 1}

    def test_a_connection_is_the_apps_that_looked_its_address_up(self):
        lookup = self.signal("com.a", SignalKind.NAME_LOOKUP, detail="host.example 198.51.100.8 198.51.100.9")
        assert self.attributed([self.flow()], lookup) == {BY_LOOKUP: 1}

    def test_where_two_apps_fit_neither_is_chosen(self):
        answer = "host.example 198.51.100.9"
        lookups = [self.signal(name, SignalKind.NAME_LOOKUP, detail=answer) for name in ("com.a", "com.b")]
        assert BY_LOOKUP not in self.attributed([self.flow()], *lookups)

    def test_an_address_that_one_app_dials_is_its_own(self):
        named = self.flow(
            android_package="com.a", source="phone.log", local_port=None, start_time=1_772_528_000_000_000
        )
        assert self.attributed([self.flow()], named) == {BY_ENDPOINT: 1}

    def test_name_look_ups_of_the_system_are_left_open(self):
        lookup = self.flow(protocol_num=17, remote_port=53)
        assert self.attributed([lookup], self.signal("com.a", SignalKind.SCREEN_ON)) == {OWN_LOOKUP: 1}


PLACES = st.tuples(st.integers(0, 3), st.integers(0, 6))


@given(st.lists(st.tuples(PLACES, PLACES), max_size=20), st.lists(PLACES, max_size=12))
def test_every_record_merged_into_one_is_told_and_no_other(merged, asked):
    account = JoinAccount()
    account.seal([np.array([(*one, *other) for one, other in merged], TWIN)])
    sources, positions = np.array(asked, np.int64).reshape(-1, 2).T
    told = account.twins_of(sources.astype(np.uint32), positions)
    assert told == [sorted(other for one, other in merged if one == place) for place in asked]
