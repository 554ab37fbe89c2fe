import io
import os
import random
import socket
import struct
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import dpkt
import polars as pl
import pytest
from capture_examples import (
    ACK,
    FIN,
    RST,
    SYN,
    T0,
    Result,
    classic,
    client_hello,
    connection,
    dns_answer,
    enhanced,
    ethernet,
    interface,
    ip,
    option,
    section,
    tcp,
    timed,
    trailed,
    udp,
    uid_map,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import assert_accounted, assert_survives, mutate

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.sources import discovery
from relaywatch.sources.capture_framing import Frames
from relaywatch.sources.capture_reading import NOT_IP, stem
from relaywatch.sources.compression import open_content
from relaywatch.sources.pcap import Pcap
from relaywatch.sources.reading import Head, Reading

PHONE, WEB, DNS = "10.0.0.2", "198.51.100.7", "203.0.113.53"
PHONE_6, WEB_6 = "fd00::2", "2001:db8::7"


def at(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def raw(packets: list[bytes], step: int = 1000) -> bytes:
    return classic(timed(packets, step=step), link=101)


def test_a_connection_is_one_flow_with_both_directions_counted() -> None:
    result = Result(raw(connection((PHONE, 4000), (WEB, 443), [b"x" * 100, b"y" * 50], [b"z" * 700])))
    (flow,) = result.flows
    assert (flow["device_uid"], flow["local_ip"], flow["local_port"]) == (PHONE, PHONE, 4000)
    assert (flow["remote_ip"], flow["remote_port"], flow["protocol_num"]) == (WEB, 443, 6)
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.OBSERVED)
    assert (flow["bytes_out"], flow["bytes_in"]) == (150, 700)
    assert (flow["packets_out"], flow["packets_in"]) == (4, 3)
    assert (flow["wire_bytes_out"], flow["wire_bytes_in"]) == (150 + 4 * 40, 700 + 3 * 40)
    assert (flow["start_time"], flow["end_time"]) == (at(T0), at(T0 + 6000))
    assert (flow["established"], flow["position"], flow["clock"]) == (True, 1, "sensor")
    assert flow["android_uid"] is None


@pytest.mark.parametrize("tags", [0, 1, 2])
def test_ethernet_with_vlan_tags(tags: int) -> None:
    frames = [ethernet(packet, tags) for packet in connection((PHONE, 1), (WEB, 2), [b"abc"], [])]
    assert Result(classic(timed(frames))).flows[0]["bytes_out"] == 3


@pytest.mark.parametrize(
    ("link", "head"),
    [
        (0, b"\x02\0\0\0"),
        (0, b"\0\0\0\x02"),
        (101, b""),
        (228, b""),
        (113, b"\0\4\0\1\0\6" + bytes(8) + b"\x08\0"),
        (276, b"\x08\0" + bytes(18)),
    ],
)
def test_other_link_types(link: int, head: bytes) -> None:
    frames = [head + packet for packet in connection((PHONE, 1), (WEB, 2), [b"abc"], [])]
    result = Result(classic(timed(frames), link=link))
    assert result.flows[0]["bytes_out"] == 3
    assert result.quarantine.total == 0


def test_ipv6_with_extension_headers() -> None:
    datagram = struct.pack(">HHHH", 5, 6, 12, 0) + b"four"
    hop = b"\x3c\0" + bytes(6)
    destination = b"\x11\0" + bytes(6)
    (flow,) = Result(raw([ip(PHONE_6, WEB_6, hop + destination + datagram, 0)])).flows
    assert (flow["protocol_num"], flow["local_ip"], flow["remote_port"]) == (17, PHONE_6, 6)
    assert (flow["bytes_out"], flow["wire_bytes_out"]) == (4, 40 + 28)


def test_a_small_snaplen_changes_no_count() -> None:
    packets = [ethernet(p) for p in connection((PHONE, 4000), (WEB, 443), [b"x" * 1000], [b"y" * 1400])]
    whole, cut = Result(classic(timed(packets))), Result(classic(timed(packets), snaplen=60))
    assert cut.flows == whole.flows
    assert cut.quarantine.total == 0


def test_retransmissions_and_disorder_do_not_change_payload() -> None:
    packets = connection((PHONE, 4000), (WEB, 443), [b"a" * 10, b"b" * 20, b"c" * 30], [])
    shuffled = [*packets[:2], packets[4], packets[3], packets[3], packets[2], *packets[4:]]
    (flow,) = Result(raw(shuffled)).flows
    assert flow["bytes_out"] == 60
    assert flow["packets_out"] == 7


def test_an_accepted_session_is_inbound() -> None:
    (flow,) = Result(raw(connection(("203.0.113.9", 5555), (PHONE, 1080), [b"\5\1\0"], [b"\5\0"]))).flows
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.INBOUND, Observability.OBSERVED)
    assert (flow["local_port"], flow["remote_port"]) == (1080, 5555)
    assert (flow["bytes_out"], flow["bytes_in"]) == (2, 3)


def test_without_a_syn_the_first_packet_infers_the_direction() -> None:
    (flow,) = Result(raw(connection((PHONE, 4000), (WEB, 443), [b"x"], [b"y"])[2:])).flows
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.INFERRED)
    (answered,) = Result(raw(connection((PHONE, 4000), (WEB, 443), [b"x"], [b"y"])[1:])).flows
    assert (answered["direction_id"], answered["direction_observability"]) == (
        Direction.OUTBOUND,
        Observability.OBSERVED,
    )


def test_an_unanswered_syn_was_not_established_and_one_sided_udp_is_not_known() -> None:
    syn = [tcp(PHONE, 1, WEB, 2, 5, SYN), tcp(PHONE, 1, WEB, 2, 5, SYN)]
    flows = Result(raw([*syn, udp(PHONE, 3, WEB, 4, b"x")])).flows
    assert [flow["established"] for flow in flows] == [False, None]


def test_a_used_port_begins_a_new_flow() -> None:
    ends = ((PHONE, 4000), (WEB, 443))
    closed = connection(*ends, [b"x"], []) + connection(*ends, [b"yy"], [], isn=900_000)
    assert [flow["bytes_out"] for flow in Result(raw(closed)).flows] == [1, 2]
    left = connection(*ends, [b"x"], [])[:3] + connection(*ends, [b"yy"], [], isn=7)
    assert [flow["bytes_out"] for flow in Result(raw(left)).flows] == [1, 2]
    reset = [
        *connection(*ends, [b"x"], [])[:3],
        tcp(WEB, 443, PHONE, 4000, 0, RST),
        *connection(*ends, [b"yy"], [], isn=1000),
    ]
    assert [flow["bytes_out"] for flow in Result(raw(reset)).flows] == [1, 2]


def test_a_repeated_syn_and_late_packets_belong_to_their_connection() -> None:
    packets = connection((PHONE, 4000), (WEB, 443), [b"x"], [b"y"])
    late = [*packets, tcp(PHONE, 4000, WEB, 443, 1003, ACK), tcp(WEB, 443, PHONE, 4000, 1502, FIN)]
    assert len(Result(raw([packets[0], *late])).flows) == 1


def test_silence_splits_udp_but_not_an_open_connection() -> None:
    minutes = 3 * 60 * 10**6
    datagrams = [(T0, udp(PHONE, 3, WEB, 4, b"x")), (T0 + minutes, udp(WEB, 4, PHONE, 3, b"yy"))]
    assert len(Result(classic(datagrams, link=101)).flows) == 2
    packets = timed(connection((PHONE, 4000), (WEB, 443), [b"x"], [b"y"]))
    silent = packets[:3] + [(time + minutes, packet) for time, packet in packets[3:]]
    assert len(Result(classic(silent, link=101)).flows) == 1


def test_other_protocols_are_flows_without_ports() -> None:
    (flow,) = Result(raw([ip(PHONE, WEB, bytes(8), 1), ip(WEB, PHONE, bytes(8), 1)])).flows
    assert (flow["protocol_num"], flow["local_port"], flow["remote_port"]) == (1, None, None)
    assert (flow["packets_out"], flow["packets_in"], flow["bytes_out"]) == (1, 1, 8)


def test_later_fragments_belong_to_the_first_ones_flow() -> None:
    body = struct.pack(">HHHH", 5, 6, 2008, 0) + bytes(2000)
    first, later = bytearray(ip(PHONE, WEB, body[:1480], 17)), bytearray(ip(PHONE, WEB, body[1480:], 17))
    first[4:8], later[4:8] = b"\0\x09\x20\0", b"\0\x09\0\xb9"
    (flow,) = Result(raw([bytes(first), bytes(later)])).flows
    assert (flow["bytes_out"], flow["packets_out"], flow["local_port"]) == (2000, 2, 5)


def test_volumes_are_one_row_a_second_and_add_up_to_the_flow() -> None:
    packets = connection((PHONE, 4000), (WEB, 443), [b"a" * 5, b"b" * 7], [b"c" * 11])
    result = Result(raw(packets, step=400_000))
    (flow,) = result.flows
    starts = [row["start_time"] for row in result.volumes]
    assert len(set(starts)) == len(starts) == 3
    assert all(start.microsecond == 0 for start in starts)
    assert {row["duration_us"] for row in result.volumes} == {1_000_000}
    for name in ("bytes_out", "bytes_in", "packets_out", "packets_in"):
        assert sum(row[name] for row in result.volumes) == flow[name]
    assert {row["flow_id"] for row in result.volumes} == {flow["flow_id"]}


def test_packets_out_of_order_around_a_second_stay_in_one_row() -> None:
    frames = [(T0 + shift, udp(PHONE, 1, WEB, 2, b"x")) for shift in (999_990, 1_000_010, 999_999, 1_000_020)]
    rows = Result(classic(frames, link=101)).volumes
    assert [(row["start_time"], row["packets_out"]) for row in rows] == [(at(T0), 1), (at(T0 + 10**6), 3)]


def test_more_flows_than_any_batch_holds() -> None:
    """Every packet is a flow of its own, so that each output fills several times."""
    number = 150_000
    packet = bytearray(udp(PHONE, 1, WEB, 2, b"xy"))
    records = [classic([], link=101)]
    for i in range(number):
        packet[20:24] = struct.pack(">HH", i % 60_000 + 1, i // 60_000 + 1)
        records.append(struct.pack("<IIII", T0 // 10**6, i, len(packet), len(packet)) + packet)
    sums = defaultdict(int)
    ids = set()
    for part in Pcap(open_flows=1000).read(Path("x.pcap"), io.BytesIO(b"".join(records)), Reading(Quarantine())):
        if part.table in ("flows", "volumes"):
            sums[part.table] += sum(part.rows["bytes_out"].to_pylist())
        if part.table == "flows":
            ids.update(part.rows["flow_id"].to_pylist())
    assert sums == {"flows": 2 * number, "volumes": 2 * number}
    assert ids == set(range(number))


def test_a_datagram_to_a_group_is_no_groups_flow() -> None:
    frame = b"\xff" * 6 + b"\2\0\0\0\0\2\x08\0" + udp(PHONE, 137, "10.0.0.255", 137, b"x")
    (flow,) = Result(classic([(T0, frame)])).flows
    assert (flow["device_uid"], flow["direction_id"]) == (PHONE, Direction.OUTBOUND)


def test_dns_over_tcp_names_flows_too() -> None:
    message = dns_answer("shop.example", WEB)
    packets = connection((PHONE, 4000), (DNS, 53), [b"\0\x04ask?"], [struct.pack(">H", len(message)) + message])
    flows = Result(raw([*packets, udp(PHONE, 9, WEB, 2, b"x")])).flows
    assert [(flow["app_protocol"], flow["remote_hostname"]) for flow in flows] == [
        ("dns", None),
        (None, "shop.example"),
    ]


def test_two_local_ends_each_see_the_flow_unless_the_device_is_named() -> None:
    content = raw(connection((PHONE, 4000), ("192.168.1.9", 80), [b"abc"], [b"zz"]))
    mine, other = Result(content).flows
    assert (mine["device_uid"], mine["direction_id"], mine["bytes_out"]) == (PHONE, Direction.OUTBOUND, 3)
    assert (other["device_uid"], other["direction_id"], other["bytes_out"]) == ("192.168.1.9", Direction.INBOUND, 2)
    assert mine["flow_id"] != other["flow_id"]
    assert (other["local_port"], other["remote_ip"]) == (80, PHONE)
    (named,) = Result(content, device="phone-7").flows
    assert (named["device_uid"], named["local_ip"]) == ("phone-7", PHONE)


def test_a_named_device_is_known_by_its_other_flows() -> None:
    outside = connection((PHONE, 4000), (WEB, 443), [b"abc"], [])
    inside = connection(("10.0.0.77", 5000), (PHONE, 1080), [b"abc"], [])
    flows = Result(raw([*outside, *inside]), device="phone-7").flows
    assert [flow["direction_id"] for flow in flows] == [Direction.OUTBOUND, Direction.INBOUND]


@pytest.mark.parametrize(
    ("address", "local"),
    [("10.1.2.3", True), ("172.31.0.1", True), ("172.32.0.1", False), ("192.168.9.9", True), ("100.64.0.1", True),
     ("100.128.0.1", False), ("198.18.0.1", False), ("fd12::1", True), ("fe80::1", True), ("2001:db8::1", False)],
)  # fmt: skip
def test_which_addresses_are_local(address: str, local: bool) -> None:  # noqa: FBT001
    other = "2001:db8:9::9" if ":" in address else "203.0.113.99"
    (flow,) = Result(raw([udp(other, 1, address, 2, b"x")])).flows
    assert (flow["device_uid"] == address) == local


def test_the_capture_itself_is_a_signal_of_each_device() -> None:
    result = Result(raw([udp(PHONE, 1, WEB, 2, b"x"), udp("10.0.0.3", 1, WEB, 2, b"x")]))
    rows = result.tables["signals"]
    assert [(row["device_uid"], row["kind"], row["detail"]) for row in rows] == [
        ("10.0.0.2", SignalKind.CAPTURE, ""),
        ("10.0.0.3", SignalKind.CAPTURE, ""),
    ]
    assert {(row["start_time"], row["end_time"]) for row in rows} == {(at(T0), at(T0 + 1000))}


def test_a_dns_answer_names_later_flows_of_its_device_only() -> None:
    packets = [
        udp(PHONE, 9, WEB, 1, b"early"),
        udp(DNS, 53, PHONE, 4001, dns_answer("shop.example", WEB)),
        udp(PHONE, 9, WEB, 2, b"x"),
        udp("10.0.0.3", 9, WEB, 3, b"x"),
    ]
    names = {
        flow["remote_port"]: (flow["remote_hostname"], flow["hostname_observability"])
        for flow in Result(raw(packets)).flows
    }
    assert names[1] == (None, Observability.NOT_OBSERVABLE)
    assert names[2] == ("shop.example", Observability.INFERRED)
    assert names[3] == (None, Observability.NOT_OBSERVABLE)


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_a_split_client_hello_names_the_flow(order: tuple[int, int]) -> None:
    hello = client_hello("api.example", padding=1600)
    packets = connection((PHONE, 4000), (WEB, 443), [hello[:1400], hello[1400:], b"\x17\x03\x03"], [b"x"])
    packets[2:4] = [packets[i] for i in order]
    (flow,) = Result(raw(packets)).flows
    assert (flow["remote_hostname"], flow["hostname_observability"]) == ("api.example", Observability.OBSERVED)
    assert flow["app_protocol"] == "tls"


def test_http_and_quic_are_labelled_and_what_is_not_evident_is_null() -> None:
    get = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"
    packets = [
        *connection((PHONE, 1), (WEB, 80), [get], []),
        udp(PHONE, 2, WEB, 443, b"\xc3\0\0\0\1" + bytes(1200)),
        udp(PHONE, 3, WEB, 999, b"whatever"),
    ]
    flows = Result(raw(packets)).flows
    assert [flow["app_protocol"] for flow in flows] == ["http", "quic", None]
    assert flows[0]["remote_hostname"] == "shop.example"


def test_a_hello_to_the_device_names_the_device_and_not_the_other_side() -> None:
    (flow,) = Result(raw(connection((WEB, 999), (PHONE, 443), [client_hello("me.example")], []))).flows
    assert (flow["app_protocol"], flow["remote_hostname"]) == ("tls", None)


def test_pcapdroid_trailers_give_uid_and_label() -> None:
    packets = connection(("10.215.173.1", 4000), ("10.215.173.2", 443), [b"x" * 9], [b"y"])
    frames = [trailed(packet, 1010234, "Ein Name, der zu lang ist") for packet in packets]
    frames += [trailed(udp("10.215.173.1", 1, WEB, 2, b"q"), -1, "?")]
    result = Result(classic(timed(frames)), name="folder/my.phone.pcap.gz")
    assert result.quarantine.total == 0
    first, second = result.flows
    assert (first["device_uid"], first["android_uid"], first["clock"]) == ("my.phone", 1010234, "device")
    assert (first["direction_id"], first["bytes_out"], first["wire_bytes_out"]) == (Direction.OUTBOUND, 9, 9 + 3 * 40)
    assert second["android_uid"] is None
    (app,) = result.tables["inventory"]
    assert (app["android_uid"], app["app_label"], app["user_id"]) == (1010234, "Ein Name, der zu la", 10)
    assert app["android_package"] is None
    assert {row["android_uid"] for row in result.volumes} == {1010234, None}
    assert [row["device_uid"] for row in result.tables["signals"]] == ["my.phone"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapdroid_pcapng_gives_uid_package_and_direction(order: str) -> None:
    def told(packet: bytes, time: int, heading: int) -> bytes:
        options = option(2, struct.pack(order + "I", heading), order) + option(1, b"u-10234", order) + bytes(4)
        return enhanced(time, packet, 0, order, options)

    inside = connection(("192.168.1.50", 5000), ("192.168.1.23", 1080), [b"\5\1\0"], [b"\5\0"])
    blocks = [told(packet, T0 + i, 2 if packet[12:16] == b"\xc0\xa8\x01\x17" else 1) for i, packet in enumerate(inside)]
    content = section(order) + interface(101, order) + uid_map(10234, "org.example.app", "Example", order)
    result = Result(content + b"".join(blocks), device="phone-7")
    (flow,) = result.flows
    assert (flow["device_uid"], flow["android_uid"], flow["android_package"]) == ("phone-7", 10234, "org.example.app")
    assert (flow["direction_id"], flow["local_ip"], flow["local_port"]) == (Direction.INBOUND, "192.168.1.23", 1080)
    (app,) = result.tables["inventory"]
    assert (app["android_package"], app["app_label"], app["android_uid"]) == ("org.example.app", "Example", 10234)


def test_damaged_packets_go_to_the_quarantine_and_the_others_count() -> None:
    good = udp(PHONE, 1, WEB, 2, b"x")
    arp = b"\xff" * 6 + bytes(6) + b"\x08\x06" + bytes(28)
    frames = [ethernet(good), ethernet(good)[:30], b"\1", arp, arp, ethernet(good)]
    result = Result(classic(timed(frames)))
    assert result.flows[0]["packets_out"] == 2
    assert [reason.split(":")[0] for reason in result.reasons] == ["packet 2", "packet 3"]
    assert (result.tally.records, result.tally.with_rows, result.tally.unused[NOT_IP]) == (6, 2, 2)


def test_a_link_type_that_cannot_be_read_is_said_for_each_packet() -> None:
    result = Result(section() + interface(127) + enhanced(T0, bytes(60)))
    assert result.flows == []
    assert "link type" in result.reasons[0]


def test_damaged_compression_gives_what_came_before_and_then_the_error() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            if not data:
                raise SourceError("lab.pcap", "damaged gzip data.")
            return data

    tables = []
    stream = Broken(raw(connection((PHONE, 1), (WEB, 2), [b"x"], [])))
    with pytest.raises(SourceError, match="damaged gzip"):
        tables.extend(part.table for part in Pcap().read(Path("lab.pcap"), stream, Reading(Quarantine())))
    assert set(tables) == {"flows", "volumes", "signals"}


def test_a_full_table_gives_up_the_longest_silent_flow_and_loses_nothing() -> None:
    packets = [udp(PHONE, port, WEB, 9, b"xy") for port in [*range(1, 41), *range(1, 41)]]
    result = Result(raw(packets), reader=Pcap(open_flows=8))
    assert sum(flow["bytes_out"] for flow in result.flows) == 160
    assert len({flow["flow_id"] for flow in result.flows}) == 80


def test_fits_and_names() -> None:
    assert Pcap.fits(Head(Path("anything.txt"), classic([])))
    assert not Pcap.fits(Head(Path("looks.pcap"), b"text"))
    assert stem(Path("a/b.c.PCAPNG.zst")) == "b.c"


# An independent reading: dpkt, one packet at a time, payload as sets of sequence numbers.
def oracle(content: bytes) -> dict[tuple[object, ...], dict[str, int]]:
    flows: dict[tuple[object, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    seen: dict[tuple[object, ...], set[int]] = defaultdict(set)
    for _, frame in dpkt.pcap.Reader(io.BytesIO(content)):
        packet = dpkt.ip.IP(frame) if frame[0] >> 4 == 4 else dpkt.ip6.IP6(frame)
        wire = packet.len if isinstance(packet, dpkt.ip.IP) else packet.plen + 40
        data = packet.data
        out = packet.src[:1] in (b"\x0a", b"\xfd")
        ends = (packet.src, data.sport, packet.dst, data.dport)
        key = (packet.p, *(ends if out else (*ends[2:], *ends[:2])))
        side = "out" if out else "in"
        flows[key][f"packets_{side}"] += 1
        flows[key][f"wire_bytes_{side}"] += wire
        if isinstance(data, dpkt.tcp.TCP):
            begin = data.seq + bool(data.flags & SYN)
            new = set(range(begin, begin + len(data.data))) - seen[key, side]
            seen[key, side] |= new
            flows[key][f"bytes_{side}"] += len(new)
        else:
            flows[key][f"bytes_{side}"] += len(data.data)
    return flows


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Connections and datagrams, mixed; data segments of a connection in any order, some twice."""
    lanes = []
    for number in range(draw(st.integers(1, 5))):
        six = draw(st.booleans())
        phone, web = (PHONE_6, WEB_6) if six else (PHONE, WEB)
        client, server = (phone, 1000 + number), (web, 443)
        if draw(st.booleans()):
            client, server = (web, 2000 + number), (phone, 1080)
        if draw(st.booleans()):
            lanes.append(
                [udp(*client, *server, b"u" * draw(st.integers(0, 50))) for _ in range(draw(st.integers(1, 4)))]
            )
            continue
        sizes = draw(st.lists(st.integers(1, 60), max_size=4))
        replies = draw(st.lists(st.integers(1, 60), max_size=4))
        packets = connection(
            client, server, [b"s" * n for n in sizes], [b"r" * n for n in replies], draw(st.integers(0, 10**6))
        )
        data = packets[2:-2] + draw(st.lists(st.sampled_from(packets[2:-2]), max_size=3)) if sizes or replies else []
        lanes.append([*packets[:2], *draw(st.permutations(data)), *packets[-2:]])
    mixed = []
    while lanes:
        lane = draw(st.sampled_from(range(len(lanes))))
        mixed.append(lanes[lane].pop(0))
        lanes = [rest for rest in lanes if rest]
    return mixed


@settings(max_examples=120, deadline=None)
@given(conversations())
def test_counts_are_those_of_an_independent_reading(packets: list[bytes]) -> None:
    content = raw(packets)
    result = Result(content)
    expected = oracle(content)
    assert len(result.flows) == len(expected)
    for flow in result.flows:
        kind = socket.AF_INET6 if ":" in flow["local_ip"] else socket.AF_INET
        local, remote = socket.inet_pton(kind, flow["local_ip"]), socket.inet_pton(kind, flow["remote_ip"])
        want = expected[flow["protocol_num"], local, flow["local_port"], remote, flow["remote_port"]]
        for side in ("out", "in"):
            for name in ("packets_", "wire_bytes_", "bytes_"):
                assert flow[name + side] == want[name + side], name + side


@settings(max_examples=100, deadline=None)
@given(
    conversations(),
    st.sampled_from(["classic", "pcapng"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
)
def test_no_damage_raises_anything_but_sourceerror_and_no_packet_is_lost(
    packets: list[bytes], kind: str, changes: list[tuple[float, int]], kept: float
) -> None:
    frames = [ethernet(packet) for packet in packets]
    content = bytearray(classic(timed(frames)))
    if kind == "pcapng":
        content = bytearray(section() + interface() + b"".join(enhanced(T0 + i, f) for i, f in enumerate(frames)))
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    content = content[: int(kept * len(content))]
    try:
        result = Result(bytes(content))
    except SourceError:
        return
    frames_read = Frames(Path("lab.pcap"), io.BytesIO(bytes(content)), Quarantine())
    met = sum(len(part.packets) for part in frames_read)
    # Flows between two local ends are given twice, with one position.
    counted = sum({flow["position"]: flow["packets_out"] + flow["packets_in"] for flow in result.flows}.values())
    aside = sum(reason.startswith("packet ") for reason in result.reasons)
    assert counted + aside + result.tally.unused[NOT_IP] == met
    assert counted == result.tally.with_rows
    assert_accounted(result.quarantine, result.tally)
    if not changes:
        assert counted == met
        assert (met == len(packets)) or kept < 1
        assert result.quarantine.total <= 1


SHARED = Path(os.environ.get("RELAYWATCH_SHARED", Path(__file__).parents[2].parent / "shared"))


@pytest.mark.parametrize("path", sorted(SHARED.glob("samples/*/*.pcap")), ids=lambda path: path.name)
def test_public_samples_are_read_without_loss(path: Path) -> None:
    with path.open("rb") as file:
        expected = sum(1 for _ in dpkt.pcap.Reader(file))
    with path.open("rb") as file:
        result = Result(file, device="sample", name=str(path))
    counted = sum(flow["packets_out"] + flow["packets_in"] for flow in result.flows)
    assert counted + result.quarantine.total == expected


@pytest.mark.parametrize(
    "path", sorted(SHARED.glob("lab-dev/traces/*/trace.pcap.zst")), ids=lambda path: path.parent.name
)
def test_lab_traces_agree_with_their_flows(path: Path) -> None:
    expected = pl.read_csv(path.with_name("flows.csv"), infer_schema_length=None)
    with open_content(path) as stream:
        result = Result(stream, name=str(path))
    ours = {}
    for flow in result.flows:
        ours[flow["local_ip"], flow["local_port"], flow["remote_ip"], flow["remote_port"], flow["start_time"]] = flow
    for row in expected.iter_rows(named=True):
        start = at(round(row["start"] * 1e6))
        flow = ours[row["local_ip"], row["local_port"], row["remote_ip"], row["remote_port"], start]
        assert (flow["direction_id"] == Direction.INBOUND) == (row["direction"] == "in")
        assert (flow["wire_bytes_out"], flow["wire_bytes_in"]) == (row["tx_ip"], row["rx_ip"])
        assert flow["bytes_out"] - row["tx_payload"] in range(row["retrans_bytes"] + 1)
        # The lab counts what fills a gap as retransmitted; the reader counts it.
        assert flow["bytes_in"] - row["rx_payload"] in range(row["retrans_bytes"] + 1)


FUZZ_PACKETS = [
    *connection((PHONE, 4000), (WEB, 443), [client_hello("shop.example.com"), b"y" * 50], [b"z" * 700]),
    *connection((WEB, 9000), (PHONE, 1080), [b"a" * 40], [b"b" * 90]),
    udp(DNS, 53, PHONE, 5353, dns_answer("shop.example.com", WEB)),
]
FUZZ_FRAMES = [*map(ethernet, FUZZ_PACKETS), b"\xff" * 6 + bytes(6) + b"\x08\x06" + bytes(28)]
FUZZ_SEEDS: list[tuple[str, bytes]] = [
    ("lab.pcap", classic(timed(FUZZ_FRAMES))),
    ("lab.pcapng", section() + interface() + b"".join(enhanced(T0 + i, frame) for i, frame in enumerate(FUZZ_FRAMES))),
    (
        "phone.pcapng",
        section()
        + interface(101)
        + uid_map(10234, "org.example.app", "Example")
        + b"".join(enhanced(T0 + i, packet, 0) for i, packet in enumerate(FUZZ_PACKETS)),
    ),
]


@pytest.mark.parametrize(("name", "content"), FUZZ_SEEDS)
def test_hostile_variants_are_survived_and_accounted_for(
    tmp_path: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The full table of open flows is 250 MB of pages that nothing touches here, and would be counted as used.
    monkeypatch.setitem(discovery._FILE_READERS, "pcap", Pcap(open_flows=1_000))
    rng = random.Random(31)  # noqa: S311 - seeded, so that it repeats
    for _ in range(200):
        assert_survives(tmp_path, name, mutate(content, rng))
