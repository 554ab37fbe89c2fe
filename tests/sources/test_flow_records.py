"""NetFlow as nfdump and collectors write it, and VPC flow logs: both directions and all pieces are one connection."""

import json
import random

import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path
from sensor_examples import assert_same_flows, flows, rows_of

from relaywatch.model.schemas import SignalKind
from relaywatch.outputs.telemetry import ExportFormat, export

NFDUMP = {
    "type": "FLOW", "export_sysid": "1", "first": "2026-03-03T09:00:00.100", "last": "2026-03-03T09:00:30.000",
    "in_packets": 10, "in_bytes": 1400, "proto": 6, "tcp_flags": "...AP.SF", "src_port": 40001, "dst_port": 443,
    "src4_addr": "10.0.0.5", "dst4_addr": "203.0.113.9", "sampled": 0,
}  # fmt: skip
BACK = NFDUMP | {
    "first": "2026-03-03T09:00:00.150", "in_packets": 20, "in_bytes": 20_800, "src_port": 443, "dst_port": 40001,
    "src4_addr": "203.0.113.9", "dst4_addr": "10.0.0.5",
}  # fmt: skip
MORE = NFDUMP | {
    "first": "2026-03-03T09:00:31.000",
    "last": "2026-03-03T09:01:00.000",
    "in_packets": 5,
    "in_bytes": 700,
}
V9 = {
    "IPV4_SRC_ADDR": "10.0.0.5", "IPV4_DST_ADDR": "203.0.113.9", "L4_SRC_PORT": 40001,
    "L4_DST_PORT": 443, "PROTOCOL": 6,
    "IN_BYTES": 1400, "IN_PKTS": 10, "FIRST_SWITCHED": 1000, "LAST_SWITCHED": 31_000,
}  # fmt: skip
IPFIX = {
    "sourceIPv4Address": "203.0.113.9", "destinationIPv4Address": "10.0.0.5", "sourceTransportPort": 443,
    "destinationTransportPort": 40001, "protocolIdentifier": 6, "octetDeltaCount": 20_800, "packetDeltaCount": 20,
    "flowStartMilliseconds": 1_772_528_400_150, "flowEndMilliseconds": 1_772_528_430_000,
}  # fmt: skip
VPC = "2 123 eni-1 10.0.0.5 203.0.113.9 40001 443 6 10 1400 1772528400 1772528430 ACCEPT OK"
VPC_BACK = "2 123 eni-1 203.0.113.9 10.0.0.5 443 40001 6 20 20800 1772528400 1772528430 ACCEPT OK"
NODATA = "2 123 eni-1 - - - - - - - 1772528400 1772528430 - NODATA"
SKIPPED = "2 123 eni-1 - - - - - - - 1772528430 1772528490 - SKIPDATA"
OUTGOING = {"src4_xlt_ip": "198.51.100.77", "dst4_xlt_ip": "203.0.113.9", "src_xlt_port": 61_001, "dst_xlt_port": 443}
RETURNING = {"dst4_addr": "198.51.100.77", "dst_port": 61_001, "src4_xlt_ip": "203.0.113.9", "src_xlt_port": 443} | {
    "dst4_xlt_ip": "10.0.0.5",
    "dst_xlt_port": 40_001,
}
"""What nfdump adds of a translation (NAT) to a record of either direction."""


def lines(*records):
    return "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records).encode()


FUZZ_SEEDS = [
    ("nfdump.json", lines(NFDUMP, BACK, MORE, NFDUMP | {"out_packets": 3, "out_bytes": 200})),
    ("netflow.json", lines(V9 | {"@timestamp": "2026-03-03T09:00:31Z"}, IPFIX, V9)),
    ("vpc.log", lines(VPC, VPC_BACK, NODATA, SKIPPED, VPC)),
    ("nfdump.json", lines(NFDUMP | OUTGOING, BACK | RETURNING, NFDUMP)),
]


def read(tmp_path, *records, device=""):
    path = tmp_path / "records"
    path.write_bytes(lines(*records))
    batches, quarantine, tally, unknown = read_path(path, device)
    assert not unknown
    assert_accounted(quarantine, tally)
    return batches, quarantine, tally


@pytest.mark.parametrize("records", [(NFDUMP, BACK), (BACK, NFDUMP), (VPC_BACK, VPC), (VPC, VPC_BACK)])
def test_two_directions_are_one_connection_of_who_opened_it(tmp_path, records):
    batches, _, tally = read(tmp_path, *records)
    (row,) = rows_of(batches)
    assert (row["device_uid"], row["direction_id"], row["direction_observability"]) == ("10.0.0.5", 2, 2)
    assert (row["local_port"], row["remote_port"]) == (40001, 443)
    assert (row["wire_bytes_out"], row["wire_bytes_in"], row["packets_out"], row["packets_in"]) == (
        1400,
        20_800,
        10,
        20,
    )
    assert (row["bytes_out"], row["bytes_in"], row["bytes_observability"]) == (1000, 20_000, 2)
    assert tally.unused == {"more of a connection, or its other direction": 1}


def test_pieces_of_a_long_connection_add_up_and_a_later_one_is_another(tmp_path):
    later = MORE | {"first": "2026-03-03T10:00:00.000", "last": "2026-03-03T10:00:10.000"}
    rows = rows_of(read(tmp_path, NFDUMP, MORE, later)[0])
    assert [row["wire_bytes_out"] for row in rows] == [2100, 700]
    assert [row["wire_bytes_in"] for row in rows] == [None, None]


def test_two_exporters_of_one_flow_count_once(tmp_path):
    (row,) = rows_of(read(tmp_path, NFDUMP, NFDUMP | {"export_sysid": "2", "in_bytes": 1399})[0])
    assert row["wire_bytes_out"] == 1400


def test_sampled_counts_are_scaled_and_said(tmp_path):
    batches, _, _ = read(tmp_path, IPFIX | {"samplingInterval": 100})
    (row,) = rows_of(batches)
    assert (row["wire_bytes_in"], row["bytes_observability"]) == (2_080_000, 2)
    assert [signal["detail"] for signal in rows_of(batches, "signals")] == ["sampled 1:100"]


def test_sampling_of_a_rate_that_is_not_stated_is_said(tmp_path):
    batches, _, _ = read(tmp_path, NFDUMP | {"sampled": 1})
    assert [row["wire_bytes_out"] for row in rows_of(batches)] == [1400]
    assert [signal["detail"] for signal in rows_of(batches, "signals")] == ["sampled, at a rate that is not stated"]


def test_a_record_that_counts_both_directions_is_whole(tmp_path):
    (row,) = rows_of(read(tmp_path, NFDUMP | {"out_packets": 20, "out_bytes": 20_800})[0])
    assert (row["wire_bytes_out"], row["wire_bytes_in"]) == (1400, 20_800)


def test_names_of_version_9_and_ipfix_are_read_and_meet(tmp_path):
    (row,) = rows_of(read(tmp_path, V9 | {"@timestamp": "2026-03-03T09:00:30Z"}, IPFIX)[0])
    assert (row["wire_bytes_out"], row["wire_bytes_in"]) == (1400, 20_800)
    assert (row["end_time"] - row["start_time"]).total_seconds() == 30


def test_times_from_the_exporters_start_alone_are_put_aside_with_a_remedy(tmp_path):
    batches, quarantine, _ = read(tmp_path, V9, IPFIX)
    assert len(rows_of(batches)) == 1
    assert [(record.position, "@timestamp" in record.reason) for record in quarantine.records] == [("line 1", True)]


def test_vpc_logs_are_read_by_header_and_as_json(tmp_path):
    header = "start end srcaddr dstaddr srcport dstport protocol packets bytes log-status"
    (row,) = rows_of(read(tmp_path, header, "1772528400 1772528430 10.0.0.5 203.0.113.9 40001 443 6 10 1400 OK")[0])
    record = dict(
        zip(
            header.split(),
            ["1772528400", "1772528430", "10.0.0.5", "203.0.113.9", "40001", "443", "6", "10", "1400", "OK"],
            strict=True,
        )
    )
    (same,) = rows_of(read(tmp_path, {name.replace("-", "_"): value for name, value in record.items()})[0])
    assert {**row, "position": 0, "flow_id": 0} == {**same, "position": 0, "flow_id": 0}
    assert row["wire_bytes_out"] == 1400


def test_intervals_without_traffic_are_left(tmp_path):
    assert read(tmp_path, VPC, NODATA)[2].unused == {"an interval without traffic": 1}


@pytest.mark.parametrize(
    "bad",
    [
        NFDUMP | {"src4_addr": "x"},
        NFDUMP | {"last": "2026-03-03T08:00:00.000"},
        NFDUMP | {"in_bytes": -1},
        NFDUMP | {"proto": 999},
    ],
)
def test_a_damaged_record_is_put_aside(tmp_path, bad):
    batches, quarantine, _ = read(tmp_path, NFDUMP, bad, BACK)
    assert [record.position for record in quarantine.records] == ["line 2"]
    assert len(rows_of(batches)) == 1


def test_what_aws_skipped_is_a_gap_of_the_devices_that_the_log_shows(tmp_path):
    batches, _, tally = read(tmp_path, VPC, SKIPPED, VPC_BACK, SKIPPED.replace("1772528490", "-"))
    (gap,) = [row for row in rows_of(batches, "signals") if row["kind"] == SignalKind.LOGGING_GAP]
    assert (gap["device_uid"], gap["position"]) == ("10.0.0.5", 2)
    assert [gap[name].timestamp() for name in ("start_time", "end_time")] == [1772528430, 1772528490]
    assert tally.unused["an interval that AWS skipped"] == 1


def test_a_gap_in_a_log_that_shows_no_device_is_left(tmp_path):
    assert read(tmp_path, NODATA, SKIPPED)[2].unused["an interval that AWS skipped"] == 1


@pytest.mark.parametrize("records", [(NFDUMP | OUTGOING, BACK | RETURNING), (BACK | RETURNING, NFDUMP | OUTGOING)])
def test_both_directions_of_a_translated_connection_are_the_inside_devices(tmp_path, records):
    batches, _, _ = read(tmp_path, *records)
    (row,) = rows_of(batches)
    assert (row["device_uid"], row["local_port"], row["remote_ip"]) == ("10.0.0.5", 40_001, "203.0.113.9")
    assert (row["wire_bytes_out"], row["wire_bytes_in"]) == (1400, 20_800)
    told = [row for row in rows_of(batches, "signals") if row["kind"] == SignalKind.TRANSLATION]
    assert {(row["device_uid"], row["local_port"], row["detail"]) for row in told} == {
        ("10.0.0.5", 40_001, "tcp 198.51.100.77 61001")
    }
    assert min(signal["start_time"] for signal in told) == row["start_time"]


def test_a_record_that_was_not_translated_shows_no_translation(tmp_path):
    nothing = {"src4_xlt_ip": "0.0.0.0", "dst4_xlt_ip": "0.0.0.0", "src_xlt_port": 0, "dst_xlt_port": 0}  # noqa: S104
    same = {"src4_xlt_ip": "10.0.0.5", "dst4_xlt_ip": "203.0.113.9", "src_xlt_port": 40_001, "dst_xlt_port": 443}
    batches, _, _ = read(tmp_path, NFDUMP | nothing, BACK | nothing, MORE | same)
    assert len(rows_of(batches)) == 1
    assert not [row for row in rows_of(batches, "signals") if row["kind"] == SignalKind.TRANSLATION]


@pytest.mark.parametrize(
    ("form", "seconds"),
    [
        (ExportFormat.NFDUMP, 0.001),
        (ExportFormat.NETFLOW_V9, 0.001),
        (ExportFormat.IPFIX, 0.001),
        (ExportFormat.VPC_FLOW_LOGS, 1.0),
    ],
)
def test_what_is_written_is_read_back(tmp_path, form, seconds):
    (path,) = export([flows()], form, tmp_path)
    assert path.name.startswith("synthetic")
    batches, quarantine, _, _ = read_path(path)
    assert not quarantine.total
    found = rows_of(batches)
    if form is ExportFormat.VPC_FLOW_LOGS:  # whole seconds do not show who sent first; the ports do
        assert len(found) == 3
    else:
        assert_same_flows(found, seconds=seconds)


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(100):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
