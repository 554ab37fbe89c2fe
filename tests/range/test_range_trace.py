"""A capture becomes a trace as the phone sees it, also where both ends are of its own network."""

import json
import struct

import dpkt
import polars as pl
from relay_range.trace import SNAP, shortened, write

PHONE, PEER, SITE = bytes((10, 7, 0, 23)), bytes((10, 7, 0, 50)), bytes((198, 18, 3, 4))
CONTEXT = {"package": "com.a.b", "uid": 10_100, "trace_start": 100.0, "trace_end": 200.0, "listeners": []}
SYN, ACK = dpkt.tcp.TH_SYN, dpkt.tcp.TH_ACK


def segment(source, target, sport, dport, seq, flags, data=b""):
    tcp = dpkt.tcp.TCP(sport=sport, dport=dport, seq=seq, flags=flags, data=data)
    return bytes(dpkt.ip.IP(src=source, dst=target, p=6, data=tcp))


def connection(client, server, sport, dport, asked, answered):
    """SYN, SYN-ACK, a request and an answer."""
    return [
        segment(client, server, sport, dport, 10, SYN), segment(server, client, dport, sport, 50, SYN | ACK),
        segment(client, server, sport, dport, 11, ACK, bytes(asked)),
        segment(server, client, dport, sport, 51, ACK, bytes(answered)),
    ]  # fmt: skip


def capture(path, packets, snap=400):
    content = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snap, 101)
    for number, packet in enumerate(packets):
        head = struct.pack("<IIII", 100 + number, 0, len(packet[:snap]), len(packet))
        content += head + packet[:snap]
    path.write_bytes(content)
    return path


def test_directions_bytes_and_seconds_are_the_phones(tmp_path):
    packets = connection(PEER, PHONE, 4000, 8080, 70, 900) + connection(PHONE, SITE, 5000, 443, 30, 600)
    rows = write(tmp_path / "R1", capture(tmp_path / "c.pcap", packets), "10.7.0.23", CONTEXT).to_dicts()
    shown = [(r["direction"], r["local_port"], r["remote_ip"], r["tx_payload"], r["rx_payload"]) for r in rows]
    assert shown == [("in", 8080, "10.7.0.50", 900, 70), ("out", 5000, "198.18.3.4", 30, 600)]
    assert [(r["flow_id"], r["syn_seen"], r["established"]) for r in rows] == [(0, 1, 1), (1, 1, 1)]
    bins = pl.read_parquet(tmp_path / "R1" / "bins.parquet")
    assert bins.filter(pl.col("tx_bytes") > 0).select("flow_id", "sec", "tx_bytes").rows() == [
        (0, 103, 900),
        (1, 106, 30),
    ]
    assert json.loads((tmp_path / "R1" / "context.json").read_text())["note"].count("SCRIPTED") == 1


def test_a_phone_that_sent_nothing_leaves_no_trace_to_misread(tmp_path):
    assert write(tmp_path / "R1", capture(tmp_path / "c.pcap", []), "10.7.0.23", CONTEXT).is_empty()
    assert not (tmp_path / "R1" / "flows.csv").exists()


def test_the_shortened_capture_keeps_lengths_and_cuts_content(tmp_path):
    packet = segment(PHONE, SITE, 5000, 443, 11, ACK, bytes(1000))
    content = b"".join(shortened(capture(tmp_path / "c.pcap", [packet])))
    assert struct.unpack("<I", content[16:20])[0] == SNAP
    assert struct.unpack("<IIII", content[24:40])[2:] == (SNAP, len(packet))
    assert len(content) == 40 + SNAP
