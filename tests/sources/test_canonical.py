from __future__ import annotations

import io
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import assert_survives, mutate, read_path
from unit_reads import read_bytes, read_paths

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES, SignalKind
from relaywatch.model.tables import batch
from relaywatch.sources import canonical, json_records
from relaywatch.sources.canonical import required_columns, table_of
from relaywatch.sources.canonical_ndjson import CanonicalNdjson
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

WHEN = datetime(2024, 10, 5, 10, 0, 0, 123456, UTC)
FLOW = {
    "device_uid": "phone-7",
    "android_package": "com.example.app",
    "android_uid": 10123,
    "flow_id": 5,
    "start_time": WHEN,
    "protocol_num": 6,
    "direction_id": 2,
    "direction_observability": 1,
    "remote_ip": "198.51.100.7",
    "remote_port": 443,
    "bytes_out": 700,
    "bytes_in": 9000,
    "bytes_observability": 1,
    "established": True,
    "source": "first.pcap",
    "position": 17,
    "clock": "device",
    "clock_skew_bound_s": 0.5,
}
MICROSECONDS = (WHEN - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
RECORD = {"table": "flows", **FLOW, "start_time": "2024-10-05T10:00:00.123456Z"}


def ndjson(*records):
    content = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records).encode()
    return read_bytes(CanonicalNdjson(), content)


def matches(row, expected=FLOW):
    return {name: row[name] for name in expected} == expected


@pytest.mark.parametrize("table", list(TABLES))
def test_each_tables_required_columns_name_that_table(table):
    assert table_of(required_columns(table)) == table
    assert table_of(frozenset(TABLES[table].names)) == table
    assert table_of(required_columns(table) - {"device_uid"}) is None


def test_parquet_rows_come_back_as_written(tmp_path):
    rows = batch("flows", {name: [value] * 3 for name, value in FLOW.items()}, length=3).rows
    pq.write_table(pa.Table.from_batches([rows]), tmp_path / "flows.parquet")
    found, quarantine = read_paths(tmp_path)
    assert (found["flows"], quarantine.total) == (rows.to_pylist(), 0)


def test_plain_parquet_of_another_writer_is_taken_with_nulls_for_what_it_lacks(tmp_path):
    names = sorted(required_columns("flows"))
    plain = pa.table({name: [FLOW[name]] for name in names} | {"something_else": ["x"]})
    pq.write_table(plain, tmp_path / "export.bin")
    found, quarantine = read_paths(tmp_path / "export.bin")
    assert quarantine.total == 0
    assert matches(found["flows"][0], {name: FLOW[name] for name in names})
    assert found["flows"][0]["android_package"] is None


def test_parquet_rows_that_do_not_fit_are_put_aside(tmp_path):
    good = {name: FLOW[name] for name in required_columns("flows") | {"remote_port", "remote_ip"}}
    bad = [
        {"remote_port": 70000},
        {"clock": None},
        {"direction_id": 7},
        {"direction_observability": 3},
        {"bytes_observability": 3},
        {"start_time": datetime(1900, 1, 1, tzinfo=UTC)},
        {"remote_ip": "shop.example.com"},
        {"remote_ip": ""},
    ]
    rows = [good, *(good | damage for damage in bad), good]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "flows.parquet")
    found, quarantine = read_paths(tmp_path)
    assert len(found["flows"]) == 2
    assert [record.position for record in quarantine.records] == [f"row {at}" for at in range(2, 2 + len(bad))]
    assert "remote_port" in quarantine.records[0].reason


SIGNAL = {
    "device_uid": "phone-7",
    "kind": 12,
    "start_time": WHEN,
    "observability": 1,
    "source": "x",
    "position": 1,
    "clock": "device",
}


@pytest.mark.parametrize("damage", [{"kind": 0}, {"kind": max(SignalKind) + 1}, {"kind": 255}, {"observability": 3}])
def test_a_signal_whose_number_means_nothing_is_put_aside(tmp_path, damage):
    rows = [SIGNAL, SIGNAL | damage, SIGNAL]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "signals.parquet")
    for found, quarantine, place in (
        (*read_paths(tmp_path), "row 2"),
        (*ndjson(*({"table": "signals", **row, "start_time": MICROSECONDS} for row in rows)), "line 2"),
    ):
        assert [row["kind"] for row in found["signals"]] == [12, 12]
        assert [record.position for record in quarantine.records] == [place]


@pytest.mark.parametrize("kind", SignalKind)
def test_every_kind_of_signal_is_taken(tmp_path, kind):
    pq.write_table(pa.Table.from_pylist([SIGNAL | {"kind": int(kind)}]), tmp_path / "signals.parquet")
    found, quarantine = read_paths(tmp_path)
    assert ([row["kind"] for row in found["signals"]], quarantine.total) == ([kind], 0)


def unchecked_text(values: list[bytes]) -> pa.Array:
    """Text as a careless writer stores it: whatever the bytes are."""
    binary = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(values), *binary.buffers()[1:])


@pytest.mark.parametrize("as_binary", [True, False])
@given(names=st.lists(st.binary(max_size=4), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_rows_whose_text_is_no_utf_8_are_put_aside(tmp_path, names, as_binary):
    def is_text(name: bytes) -> bool:
        return name.decode("utf-8", "ignore").encode() == name

    names = [b"caf\xe9", *names, b"shop"]
    columns = {name: [FLOW[name]] * len(names) for name in required_columns("flows")}
    column = pa.array(names, pa.binary()) if as_binary else unchecked_text(names)
    pq.write_table(pa.table(columns | {"android_package": column}), tmp_path / "flows.parquet")
    found, quarantine = read_paths(tmp_path)
    assert [row["android_package"] for row in found["flows"]] == [name.decode() for name in names if is_text(name)]
    bad = [f"row {row}" for row, name in enumerate(names, 1) if not is_text(name)]
    assert [record.position for record in quarantine.records] == bad
    assert "android_package" in quarantine.records[0].reason


ADDRESSES = [
    ("::ffff:198.51.100.7", "198.51.100.7"),
    ("2001:DB8:0:0::7", "2001:db8::7"),
    ("fe80::1%wlan0", "fe80::1"),
    ("198.51.100.7", "198.51.100.7"),
]


@pytest.mark.parametrize("column", ["local_ip", "remote_ip"])
def test_addresses_are_canonical_however_they_were_written(tmp_path, column):
    rows = [FLOW | {column: written} for written, _ in ADDRESSES]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "flows.parquet")
    lines = ndjson(*(RECORD | {column: written} for written, _ in ADDRESSES))
    for found, quarantine in (read_paths(tmp_path), lines):
        assert [row[column] for row in found["flows"]] == [meant for _, meant in ADDRESSES]
        assert quarantine.total == 0


def test_text_that_repeats_is_held_once(tmp_path):
    names = pa.array(["x" * 1_000_000] * 3_000 + ["y"], pa.dictionary(pa.int32(), pa.large_string()))
    columns = {name: [FLOW[name]] * len(names) for name in required_columns("flows")}
    pq.write_table(pa.table(columns | {"app_protocol": names}), tmp_path / "flows.parquet")
    (unit,) = discover([tmp_path]).units
    (part,) = unit.read(Reading(Quarantine()))
    assert part.rows.num_rows == len(names)
    assert part.rows.nbytes < 10_000_000


def test_a_row_group_that_fills_memory_is_told_before_it_is_read(tmp_path, monkeypatch):
    pq.write_table(pa.Table.from_pylist([FLOW] * 10), tmp_path / "flows.parquet")
    group = pq.read_metadata(tmp_path / "flows.parquet").row_group(0).total_byte_size
    monkeypatch.setattr(canonical, "ROW_GROUP_BYTES", group)
    assert len(read_paths(tmp_path)[0]["flows"]) == 10
    monkeypatch.setattr(canonical, "ROW_GROUP_BYTES", group - 1)
    found, quarantine = read_paths(tmp_path)
    assert not found
    (record,) = quarantine.records
    assert record.position == "row group 1"
    assert "smaller row groups" in record.reason


def test_rows_out_of_nothing_are_told_as_a_bomb_before_they_are_read(tmp_path, monkeypatch):
    rows = pa.table({name: pa.repeat(pa.scalar(SIGNAL[name]), 300_000) for name in SIGNAL})
    pq.write_table(rows, tmp_path / "signals.parquet")
    (unit,) = discover([tmp_path]).units
    assert sum(part.rows.num_rows for part in unit.read(Reading(Quarantine()))) == rows.num_rows
    monkeypatch.setattr(canonical, "FREE_BYTES", 1 << 20)
    found, quarantine = read_paths(tmp_path)
    assert not found
    (record,) = quarantine.records
    assert "300000 rows" in record.reason
    assert "decompression bomb" in record.reason


def test_a_column_whose_name_is_no_text_is_damage(tmp_path):
    pq.write_table(pa.Table.from_pylist([FLOW | {"odd_name": 1}]), tmp_path / "flows.parquet")
    content = (tmp_path / "flows.parquet").read_bytes().replace(b"odd_name", b"odd\xffname")
    (tmp_path / "flows.parquet").write_bytes(content)
    found, quarantine = read_paths(tmp_path)
    assert not found
    assert "damaged Parquet" in quarantine.records[0].reason


def test_a_column_of_another_kind_is_an_error_that_names_it(tmp_path):
    rows = {name: [FLOW[name]] for name in required_columns("flows")} | {"flow_id": [[1, 2]]}
    pq.write_table(pa.table(rows), tmp_path / "flows.parquet")
    found, quarantine = read_paths(tmp_path)
    assert not found
    assert "flow_id" in quarantine.records[0].reason


def test_parquet_of_other_columns_is_not_recognised(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(SourceError, match="no known format"):
        discover([tmp_path / "other.parquet"])


@given(cut=st.integers(4, 3000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_parquet_is_said_not_raised(tmp_path, cut):
    rows = batch("flows", {name: [v] * 5 for name, v in FLOW.items()}, length=5).rows
    path = tmp_path / "flows.parquet"
    pq.write_table(pa.Table.from_batches([rows]), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    _, quarantine = read_paths(path)
    assert quarantine.total == (cut < len(whole))


def test_json_lines_come_back_by_table():
    signal = {"table": "signals", "device_uid": "phone-7", "kind": 12, "start_time": MICROSECONDS, "observability": 1}
    signal |= {"source": "x", "position": 1, "clock": "device"}
    found, quarantine = ndjson(RECORD, signal, RECORD | {"unheard_of": 1})
    assert quarantine.total == 0
    assert len(found["flows"]) == 2
    assert all(matches(row) for row in found["flows"])
    assert found["signals"][0]["start_time"] == WHEN


@pytest.mark.parametrize("written", ["2024-10-05T12:00:00.123456+02:00", "2024-10-05T10:00:00.123456Z", MICROSECONDS])
def test_json_times_may_be_rfc_3339_or_microseconds(written):
    assert ndjson(RECORD | {"start_time": written})[0]["flows"][0]["start_time"] == WHEN


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"start_time": "2024-10-05T10:00:00"}, "start_time"),
        ({"start_time": 1.5}, "start_time"),
        ({"start_time": -1}, "start_time"),
        ({"clock": None}, "clock is missing"),
        ({"remote_port": 70000}, "remote_port: '70000'"),
        ({"remote_port": "443"}, "remote_port"),
        ({"direction_id": 9}, "direction_id"),
        ({"bytes_in": -1}, "bytes_in"),
        ({"established": 1}, "established"),
        ({"remote_ip": 7}, "remote_ip"),
        ({"remote_ip": "shop.example.com"}, "remote_ip: 'shop.example.com'"),
        ({"local_ip": "10.0.0.300"}, "local_ip"),
        ({"bytes_observability": 3}, "bytes_observability"),
        ({"flow_id": 2**63}, "flow_id"),
        ({"clock_skew_bound_s": "x"}, "clock_skew_bound_s"),
        ({"table": "bytes"}, "canonical table"),
    ],
)
def test_a_damaged_json_line_is_put_aside_and_the_others_count(damage, reason):
    found, quarantine = ndjson(RECORD, RECORD | damage, RECORD)
    assert len(found["flows"]) == 2
    (record,) = quarantine.records
    assert record.position == "line 2"
    assert reason in record.reason


def test_an_endless_line_is_put_aside_in_bounded_memory():
    found, quarantine = ndjson(RECORD, '{"table":"flows","device_uid":"' + "a" * (20 << 20) + '"}', RECORD)
    assert len(found["flows"]) == 2
    assert [(record.position, "longer than" in record.reason) for record in quarantine.records] == [("line 2", True)]


TEXT = json.dumps(RECORD)
DAMAGED = st.tuples(st.integers(0, len(TEXT) - 1), st.sampled_from('[{"\x00\u00e9-9}')).map(
    lambda change: TEXT[: change[0]] + change[1] + TEXT[change[0] + 1 :]
)


@given(
    lines=st.lists(st.just(TEXT) | DAMAGED | st.sampled_from(["[" * 9000, "NaN", "1" * 5000, '"\\ud800"']), max_size=6)
)
@settings(max_examples=150, deadline=None)
def test_every_json_line_is_a_row_or_in_quarantine(lines):
    found, quarantine = ndjson(*lines)
    assert sum(map(len, found.values())) + quarantine.total == len(lines)


@given(content=st.binary(max_size=300))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_survived(content):
    found, quarantine = read_bytes(CanonicalNdjson(), content + b"\n" + TEXT.encode())
    assert len(found["flows"]) == 1
    assert quarantine.total == sum(1 for line in content.split(b"\n") if line.strip())


@given(content=st.binary(max_size=100), at=st.floats(0, 1))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_among_parquets_values_are_survived(tmp_path, content, at):
    """The damage may make another value of a value: every row comes or is put aside, or the file is told as damaged."""
    path = tmp_path / "flows.parquet"
    pq.write_table(pa.Table.from_pylist([FLOW] * 5), path)
    whole = path.read_bytes()
    index = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    start = 4 + int(at * (index - 4))
    path.write_bytes(whole[:start] + content[: index - start] + whole[start + len(content[: index - start]) :])
    found, quarantine = read_paths(path)
    whole_file = any("damaged Parquet" in record.reason for record in quarantine.records)
    assert whole_file or len(found["flows"]) + quarantine.total == 5


def as_parquet(*rows: dict[str, object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


FUZZ_SEEDS: list[tuple[str, bytes]] = [
    (
        "records.ndjson",
        "".join(
            json.dumps(record) + "\n"
            for record in (
                RECORD,
                RECORD | {"start_time": MICROSECONDS, "android_package": None, "remote_ip": "2001:db8::7"},
                {"table": "signals", **SIGNAL, "start_time": RECORD["start_time"]},
                {"table": "inventory", "device_uid": "phone-7", "source": "x", "position": 1, "clock": "device"},
            )
        ).encode(),
    ),
    ("flows.parquet", as_parquet(FLOW, FLOW | {"remote_ip": "2001:db8::7"}, FLOW | {"established": None})),
]


@pytest.mark.parametrize(("name", "content"), FUZZ_SEEDS)
def test_hostile_variants_are_survived_and_accounted_for(tmp_path, name, content):
    rng = random.Random(17)  # noqa: S311 - seeded, so that it repeats
    for _ in range(200):
        assert_survives(tmp_path, name, mutate(content * rng.choice([1, 30]), rng))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_whole_blocks_give_what_single_lines_give(seed):
    seeded = random.Random(seed)  # noqa: S311 - seeded, so that it repeats
    content = FUZZ_SEEDS[0][1] * 3 + mutate(FUZZ_SEEDS[0][1] * 3, seeded) + FUZZ_SEEDS[0][1]
    fast, aside = read_bytes(CanonicalNdjson(), content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "_regular", lambda _block: 0)
        patch.setattr(json_records, "FEWEST_AT_ONCE", 1 << 30)
        slow, slow_aside = read_bytes(CanonicalNdjson(), content)
    assert fast == slow
    assert sorted(map(str, aside.records)) == sorted(map(str, slow_aside.records))


@pytest.mark.parametrize(
    "written",
    [
        *("2024-10-05T10:00:00Z", "2024-10-05 10:00:00.5+01:00", "2024-10-05T10:00:00.1234567Z", "2024-10-05T10Z"),
        *("2024-10-05T10:00:00,5Z", "2024-10-05T10:00:60Z", "0000-10-05T10:00:00Z", "2024-13-05T10:00:00Z", "", "now"),
    ],
)
def test_an_unusual_time_among_thousands_is_what_python_says_it_is(written):
    reading = Reading(Quarantine())
    content = "".join(json.dumps(RECORD | {"start_time": at}) + "\n" for at in [RECORD["start_time"]] * 99 + [written])
    rows = [
        row
        for part in CanonicalNdjson().read(Path("x"), io.BytesIO(content.encode()), reading)
        for row in part.rows.to_pylist()
    ]
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        moment = None
    if moment is None:
        assert [entry.position for entry in reading.quarantine.records] == ["line 100"]
    else:
        assert rows[99]["start_time"] == moment.astimezone(UTC)
    assert reading.tally.records == reading.tally.with_rows + reading.quarantine.total == 100


def test_each_row_of_parquet_is_accounted_for(tmp_path):
    good = {name: FLOW[name] for name in required_columns("flows")}
    pq.write_table(pa.Table.from_pylist([good, good | {"direction_id": 7}, good]), tmp_path / "flows.parquet")
    _, quarantine, tally, _ = read_path(tmp_path)
    assert (tally.records, tally.with_rows, quarantine.total) == (3, 2, 1)
