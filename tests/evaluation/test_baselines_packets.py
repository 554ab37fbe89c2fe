import json
import os
import socket
import struct
from pathlib import Path

import dpkt
import polars as pl
import pyarrow as pa
import pytest
from baseline_traffic import flow, traffic
from hypothesis import example, given
from hypothesis import strategies as st

from relaywatch.evaluation.packets import PACKET_SCHEMA, read_packets
from relaywatch.model.errors import SourceError

NOON = 1_700_000_000.0
PHONE, PARTY = "10.0.0.23", "192.0.2.1"


def cut(source, target, protocol, transport, payload):
    """An IP packet whose payload is cut off, as a small snaplen does."""
    transport.data = bytes(payload)
    packet = dpkt.ip.IP(src=socket.inet_aton(source), dst=socket.inet_aton(target), p=protocol, data=transport)
    octets = bytes(packet)
    return octets[: len(octets) - payload]


def tcp(at, source, target, sequence, payload, ports=(40_001, 443)):
    segment = dpkt.tcp.TCP(sport=ports[0], dport=ports[1], seq=sequence % 2**32, flags=dpkt.tcp.TH_ACK)
    return at, cut(source, target, 6, segment, payload), 40 + payload


def udp(at, source, target, payload, ports):
    datagram = dpkt.udp.UDP(sport=ports[0], dport=ports[1], ulen=8 + payload)
    return at, cut(source, target, 17, datagram, payload), 28 + payload


def write_capture(folder, packets):
    with pa.CompressedOutputStream(pa.OSFile(str(folder / "trace.pcap.zst"), "wb"), "zstd") as stream:
        stream.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 96, 101))
        for at, octets, length in packets:
            stream.write(struct.pack("<IIII", int(at), round(at % 1 * 1e6), len(octets), length) + octets)


def rows(found):
    return [(flow_id, round(time - NOON, 3), sent, payload) for flow_id, time, sent, payload in found.iter_rows()]


def test_trace_without_packets_has_none(tmp_path):
    assert read_packets(tmp_path, traffic([]).flows) is None


def test_packet_table_counts_from_the_contexts_instant(tmp_path):
    (tmp_path / "context.json").write_text(json.dumps({"packets_t0": NOON}), encoding="utf-8")
    table = {"t_us": [250_000, 100_000, 100_000], "flow_id": [2, 1, 2], "len": [-70, 30, 0], "tx": [0, 1, 1]}
    pl.DataFrame(table).write_parquet(tmp_path / "packets.parquet")
    found = read_packets(tmp_path, traffic([]).flows)
    assert rows(found) == [(1, 0.1, True, 30), (2, 0.1, True, 0), (2, 0.25, False, 70)]
    assert dict(found.schema) == PACKET_SCHEMA


def test_captured_packets_find_their_flow_and_side(tmp_path):
    flows = [
        flow(1, NOON, remote=PARTY, local_port=40_001),
        flow(2, NOON + 1, remote=PARTY, remote_port=53, local_port=40_001, protocol="udp"),
        flow(3, NOON, inbound=True, remote=PARTY, remote_port=50_000, local_port=1080),
    ]
    write_capture(
        tmp_path,
        [
            tcp(NOON, PHONE, PARTY, 100, 10),
            tcp(NOON + 0.1, PARTY, PHONE, 900, 500, (443, 40_001)),
            tcp(NOON + 0.2, PARTY, PHONE, 5, 20, (50_000, 1080)),
            udp(NOON + 1, PHONE, PARTY, 30, (40_001, 53)),
            tcp(NOON + 2, PHONE, "192.0.2.77", 5, 20),
        ],
    )
    found = read_packets(tmp_path, traffic(flows).flows)
    assert rows(found) == [(1, 0.0, True, 10), (1, 0.1, False, 500), (2, 1.0, True, 30), (3, 0.2, False, 20)]


def test_same_ends_again_are_the_later_flow(tmp_path):
    flows = [flow(1, NOON, remote=PARTY, local_port=40_001), flow(2, NOON + 50, remote=PARTY, local_port=40_001)]
    write_capture(tmp_path, [tcp(at, PHONE, PARTY, 7, 10) for at in (NOON, NOON + 49, NOON + 50, NOON + 51)])
    assert read_packets(tmp_path, traffic(flows).flows)["flow_id"].to_list() == [1, 1, 2, 2]


def test_bytes_sent_before_are_no_new_payload(tmp_path):
    sequences = [(2**32 - 100, 100), (0, 50), (2**32 - 100, 100), (20, 80), (300, 10), (100, 200)]
    write_capture(
        tmp_path, [tcp(NOON + k, PHONE, PARTY, start, payload) for k, (start, payload) in enumerate(sequences)]
    )
    found = read_packets(tmp_path, traffic([flow(1, NOON, remote=PARTY, local_port=40_001)]).flows)
    # 20 to 100 overlaps 0 to 50; what fills the gap below the highest number counts as sent again.
    assert found["payload"].to_list() == [100, 50, 0, 50, 10, 0]


@pytest.mark.parametrize("context", ["{}", "[]", "no json", '{"packets_t0": "soon"}', '{"packets_t0": null}'])
def test_context_without_an_instant_is_an_error_that_says_so(tmp_path, context):
    (tmp_path / "context.json").write_text(context, encoding="utf-8")
    pl.DataFrame({"t_us": [1], "flow_id": [1], "len": [1], "tx": [1]}).write_parquet(tmp_path / "packets.parquet")
    with pytest.raises(SourceError, match=r"context\.json.*packets_t0"):
        read_packets(tmp_path, traffic([]).flows)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(b"\n\r\r\n".__add__))
@example(b"\n\r\r\n")
def test_damaged_files_are_errors_that_name_them(tmp_path_factory, content):
    for name in ("packets.parquet", "trace.pcap.zst"):
        folder = tmp_path_factory.mktemp("trace")
        (folder / "context.json").write_text('{"packets_t0": 0}', encoding="utf-8")
        (folder / name).write_bytes(content)
        with pytest.raises(SourceError, match=name):
            read_packets(folder, traffic([]).flows)


def test_table_without_the_columns_is_an_error(tmp_path):
    (tmp_path / "context.json").write_text('{"packets_t0": 0}', encoding="utf-8")
    pl.DataFrame({"t_us": [1]}).write_parquet(tmp_path / "packets.parquet")
    with pytest.raises(SourceError, match="packet table"):
        read_packets(tmp_path, traffic([]).flows)


def test_capture_that_ends_early_is_an_error(tmp_path):
    write_capture(tmp_path, [tcp(NOON + k, PHONE, PARTY, 10 * k, 10) for k in range(300)])
    whole = (tmp_path / "trace.pcap.zst").read_bytes()
    (tmp_path / "trace.pcap.zst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"trace\.pcap\.zst"):
        read_packets(tmp_path, traffic([flow(1, NOON)]).flows)


def lab_traces():
    shared = Path(os.environ.get("RELAYWATCH_SHARED", Path(__file__).parents[3] / "shared"))
    return sorted((shared / "lab-dev" / "traces").glob("*/packets.parquet"))[:5]


@pytest.mark.skipif(not lab_traces(), reason="the relay lab is not here")
def test_lab_packets_add_up_to_the_labs_flows():
    for folder in (path.parent for path in lab_traces()):
        counted = pl.read_csv(folder / "flows.csv").select("flow_id", sent="tx_payload", received="rx_payload")
        sides = (
            read_packets(folder, counted)
            .group_by("flow_id")
            .agg(sent=pl.col("payload").filter("sent").sum(), received=pl.col("payload").filter(~pl.col("sent")).sum())
        )
        assert sides.sort("flow_id").equals(counted.filter(pl.col("flow_id").is_in(sides["flow_id"].implode())))
