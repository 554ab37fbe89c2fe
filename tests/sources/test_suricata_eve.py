"""Suricata's EVE log: flows seen from the device, names from TLS and DNS, netflow halves put together."""

import json
import random

import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path
from sensor_examples import assert_same_flows, flows, rows_of

from relaywatch.model.schemas import SignalKind
from relaywatch.outputs.telemetry import ExportFormat, export

COMMON = {
    "timestamp": "2026-03-03T09:00:10.540473+0000", "flow_id": 7, "src_ip": "10.0.0.5", "src_port": 40001,
    "dest_ip": "203.0.113.9", "dest_port": 443, "proto": "TCP",
}  # fmt: skip
FLOW = COMMON | {
    "event_type": "flow",
    "app_proto": "tls",
    "flow": {
        "pkts_toserver": 10, "pkts_toclient": 12, "bytes_toserver": 1540, "bytes_toclient": 12_648, "state": "closed",
        "start": "2026-03-03T09:00:01.000000+0000", "end": "2026-03-03T09:00:09.500000+0000",
    },
}  # fmt: skip
TLS = COMMON | {"event_type": "tls", "tls": {"sni": "Gw.Example."}}
DNS = COMMON | {
    "event_type": "dns",
    "timestamp": "2026-03-03T09:00:00.500000+0000",
    "proto": "UDP",
    "dest_port": 53,
    "dns": {
        "type": "answer",
        "rrname": "named.example",
        "answers": [{"rrname": "x", "rrtype": "A", "rdata": "203.0.113.9"}],
    },
}
HALF = COMMON | {
    "event_type": "netflow",
    "netflow": {
        "pkts": 5,
        "bytes": 500,
        "start": "2026-03-03T09:00:01.000000+0000",
        "end": "2026-03-03T09:00:08.0+0000",
    },
}
BACK = HALF | {
    "src_ip": "203.0.113.9", "src_port": 443, "dest_ip": "10.0.0.5", "dest_port": 40001,
    "netflow": {"pkts": 6, "bytes": 6000, "start": "2026-03-03T09:00:01.1+0000", "end": "2026-03-03T09:00:09.0+0000"},
}  # fmt: skip
ALERT = COMMON | {"event_type": "alert", "alert": {"signature": "x"}}
CONNECT = COMMON | {
    "event_type": "http", "src_ip": "198.51.100.7", "dest_ip": "10.0.0.5", "dest_port": 8080,
    "http": {"hostname": "a.example", "http_method": "CONNECT", "url": "a.example:443"},
}  # fmt: skip


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


FUZZ_SEEDS = [("eve.json", lines(TLS, FLOW, DNS, HALF, BACK, ALERT, CONNECT, FLOW))]


def read(tmp_path, *records, device=""):
    path = tmp_path / "eve.json"
    path.write_bytes(lines(*records))
    batches, quarantine, tally, unknown = read_path(path, device)
    assert not unknown
    assert_accounted(quarantine, tally)
    return batches, quarantine, tally


def test_a_flow_is_seen_from_the_device_with_frame_headers_taken_off(tmp_path):
    (row,) = rows_of(read(tmp_path, FLOW)[0])
    assert (row["device_uid"], row["direction_id"], row["direction_observability"]) == ("10.0.0.5", 2, 1)
    assert (row["wire_bytes_out"], row["wire_bytes_in"]) == (1400, 12_480)
    assert (row["bytes_out"], row["bytes_in"], row["bytes_observability"]) == (1000, 12_000, 2)
    assert (row["end_time"] - row["start_time"]).total_seconds() == 8.5


def test_a_flow_to_a_device_is_accepted(tmp_path):
    inbound = FLOW | {"src_ip": "198.51.100.7", "dest_ip": "10.0.0.5"}
    (row,) = rows_of(read(tmp_path, inbound)[0])
    assert (row["direction_id"], row["local_port"], row["bytes_out"]) == (1, 443, 12_000)


def test_names_come_from_the_flows_own_hello_or_an_earlier_answer(tmp_path):
    (row,) = rows_of(read(tmp_path, TLS, DNS, FLOW)[0])
    assert (row["remote_hostname"], row["hostname_observability"]) == ("gw.example", 1)
    (row,) = rows_of(read(tmp_path, DNS, FLOW)[0])
    assert (row["remote_hostname"], row["hostname_observability"]) == ("named.example", 2)
    late = DNS | {"timestamp": "2026-03-03T09:00:05.000000+0000"}
    (row,) = rows_of(read(tmp_path, late, FLOW)[0])
    assert row["remote_hostname"] is None


def test_netflow_halves_are_one_flow_and_a_lone_one_knows_one_side(tmp_path):
    batches, _, tally = read(tmp_path, BACK, HALF)
    (row,) = rows_of(batches)
    assert (row["direction_id"], row["packets_out"], row["packets_in"]) == (2, 5, 6)
    assert tally.unused == {"the other direction of a flow": 1}
    (row,) = rows_of(read(tmp_path, HALF)[0])
    assert row["bytes_in"] is None
    assert row["bytes_out"] is not None


def test_a_proxy_request_that_the_device_answered_is_a_signal(tmp_path):
    signals = rows_of(read(tmp_path, CONNECT)[0], "signals")
    assert [(row["kind"], row["device_uid"], row["local_port"], row["detail"]) for row in signals] == [
        (SignalKind.HTTP_CONNECT, "10.0.0.5", 8080, "a.example:443")
    ]


@pytest.mark.parametrize("damage", [{"src_ip": "x"}, {"proto": "XYZ"}, {"flow": {"start": "x"}, "timestamp": "never"}])
def test_a_damaged_flow_is_put_aside(tmp_path, damage):
    batches, quarantine, _ = read(tmp_path, FLOW, FLOW | damage, FLOW)
    assert [record.position for record in quarantine.records] == ["line 2"]
    assert len(rows_of(batches)) == 2


def test_other_events_are_left_with_the_reason(tmp_path):
    _, _, tally = read(tmp_path, ALERT, TLS)
    assert tally.unused == {"an event that no table holds": 1, "names a flow": 1}


def test_what_is_written_is_read_back(tmp_path):
    (path,) = export([flows()], ExportFormat.SURICATA, tmp_path)
    assert path.name.startswith("synthetic")
    batches, quarantine, _, _ = read_path(path)
    assert not quarantine.total
    assert_same_flows(rows_of(batches))


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(150):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
