from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit_reads import read_bytes, read_paths

from relaywatch.model.errors import SourceError
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import batch
from relaywatch.sources.canonical import CanonicalNdjson, required_columns, table_of
from relaywatch.sources.discovery import discover

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
    good = {name: FLOW[name] for name in required_columns("flows") | {"remote_port"}}
    bad = [
        {"remote_port": 70000},
        {"clock": None},
        {"direction_id": 7},
        {"start_time": datetime(1900, 1, 1, tzinfo=UTC)},
    ]
    rows = [good, *(good | damage for damage in bad), good]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "flows.parquet")
    found, quarantine = read_paths(tmp_path)
    assert len(found["flows"]) == 2
    assert [record.position for record in quarantine.records] == ["row 2", "row 3", "row 4", "row 5"]
    assert "remote_port" in quarantine.records[0].reason


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
    found, quarantine = ndjson(RECORD, '{"table":"flows","device_uid":"' + "a" * (9 << 20) + '"}', RECORD)
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
    read_bytes(CanonicalNdjson(), content)
