from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import assert_accounted, assert_survives, mutate, read_path
from unit_reads import read_bytes, read_paths, shared

from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.sources import json_records
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading
from relaywatch.sources.zeek import ZeekConn
from relaywatch.sources.zeek_tunnel import ZeekSocks

PHONE, SERVER, PEER = "192.168.7.20", "198.51.100.7", "203.0.113.9"
RECORD = {
    "ts": "1700000000.250000",
    "uid": "CaaaaaaaaaaaaaaaA1",
    "id.orig_h": PHONE,
    "id.orig_p": "40000",
    "id.resp_h": SERVER,
    "id.resp_p": "443",
    "proto": "tcp",
    "service": "ssl",
    "duration": "2.500000",
    "orig_bytes": "700",
    "resp_bytes": "9000",
    "conn_state": "SF",
    "local_orig": "-",
    "missed_bytes": "0",
    "history": "ShADadFf",
    "orig_pkts": "12",
    "orig_ip_bytes": "1300",
    "resp_pkts": "14",
    "resp_ip_bytes": "9700",
}
FIELDS = list(RECORD)


def header(path: str, fields: list[str]) -> str:
    lines = ["#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", f"#path\t{path}"]
    return "\n".join(
        [*lines, "#open\t2023-11-14-00-00-00", "\t".join(["#fields", *fields]), "\t".join(["#types", *fields]), ""]
    )


def log(*records: dict[str, str], path: str = "conn", fields: list[str] = FIELDS) -> bytes:
    body = "".join("\t".join(record.get(name, "-") for name in fields) + "\n" for record in records)
    return (header(path, fields) + body + "#close\t2023-11-14-01-00-00\n").encode()


def conn(**changed: str) -> dict[str, str]:
    return RECORD | {
        name.replace("orig_h", "id.orig_h").replace("resp_h", "id.resp_h"): value for name, value in changed.items()
    }


def as_json(record: dict[str, str]) -> str:
    """The record as Zeek's JSON writer has it: numbers and booleans as such, unset fields left out."""
    numbers = {"ts", "duration", "missed_bytes"} | {n for n in FIELDS if n.endswith(("_p", "_bytes", "_pkts"))}
    values = {n: v for n, v in record.items() if v != "-"}
    return json.dumps(
        {
            n: v == "T" if n == "local_orig" else float(v) if n in ("ts", "duration") else int(v) if n in numbers else v
            for n, v in values.items()
        }
    )


def flows(*records, device=""):
    rows, quarantine = read_bytes(ZeekConn(), log(*records), device=device)
    assert quarantine.total == 0
    return rows["flows"]


def test_an_outbound_connection_is_a_flow_of_the_local_address():
    (flow,) = flows(RECORD)
    assert flow["device_uid"] == flow["local_ip"] == PHONE
    assert (flow["remote_ip"], flow["remote_port"], flow["local_port"], flow["protocol_num"]) == (SERVER, 443, 40000, 6)
    assert flow["start_time"] == datetime(2023, 11, 14, 22, 13, 20, 250000, UTC)
    assert flow["end_time"] == datetime(2023, 11, 14, 22, 13, 22, 750000, UTC)
    assert (flow["bytes_out"], flow["bytes_in"], flow["wire_bytes_out"], flow["wire_bytes_in"]) == (
        700,
        9000,
        1300,
        9700,
    )
    assert (flow["packets_out"], flow["packets_in"]) == (12, 14)
    assert (flow["direction_id"], flow["direction_observability"]) == (Direction.OUTBOUND, Observability.OBSERVED)
    assert (flow["bytes_observability"], flow["established"], flow["clock"]) == (Observability.OBSERVED, True, "sensor")
    assert (flow["android_package"], flow["android_uid"]) == (None, None)
    assert flow["position"] == 9


def test_a_connection_to_the_phone_is_inbound_and_its_bytes_are_the_phones():
    (flow,) = flows(conn(orig_h=PEER, resp_h=PHONE))
    assert (flow["device_uid"], flow["direction_id"], flow["local_port"], flow["remote_ip"]) == (
        PHONE,
        Direction.INBOUND,
        443,
        PEER,
    )
    assert (flow["bytes_out"], flow["bytes_in"], flow["wire_bytes_out"], flow["packets_in"]) == (9000, 700, 9700, 12)


def test_both_ends_local_are_two_views_of_one_connection():
    first, second = flows(conn(resp_h="192.168.7.30"))
    assert {first["device_uid"], second["device_uid"]} == {PHONE, "192.168.7.30"}
    assert first["direction_id"] != second["direction_id"]
    assert (first["bytes_out"], first["bytes_in"]) == (second["bytes_in"], second["bytes_out"])
    assert first["flow_id"] != second["flow_id"]


def test_a_named_device_is_one_end_only_so_that_it_never_relays_to_itself():
    gateway = "192.168.7.1"
    found = flows(RECORD, conn(orig_h=gateway, resp_h=PHONE), conn(resp_h=gateway), device="phone-7")
    assert [flow["local_ip"] for flow in found] == [PHONE] * 3
    assert [flow["direction_id"] for flow in found] == [Direction.OUTBOUND, Direction.INBOUND, Direction.OUTBOUND]
    assert {flow["device_uid"] for flow in found} == {"phone-7"}


@pytest.mark.parametrize("address", ["10.1.2.3", "172.31.0.1", "100.64.0.9", "fd00::7", "fe80::1"])
def test_private_and_carrier_nat_addresses_are_local(address):
    (flow,) = flows(conn(orig_h=PEER if "." in address else "2001:db8::9", resp_h=address))
    assert (flow["device_uid"], flow["direction_id"]) == (address, Direction.INBOUND)


def test_benchmark_addresses_are_not_local_and_the_originator_stands_in():
    (flow,) = flows(conn(orig_h="198.18.0.5", resp_h="198.19.0.5"))
    assert (flow["device_uid"], flow["direction_id"]) == ("198.18.0.5", Direction.OUTBOUND)


def test_the_sensors_own_network_list_counts():
    (flow,) = flows(conn(orig_h=PEER, resp_h=SERVER, local_orig="T"))
    assert flow["device_uid"] == PEER


@pytest.mark.parametrize(
    ("history", "known"), [("ShADadFf", True), ("hADad", True), ("^hADad", False), ("Dd", False), ("-", False)]
)
def test_direction_is_observed_only_where_the_opening_was_seen_unflipped(history, known):
    (flow,) = flows(conn(history=history))
    assert flow["direction_observability"] == (Observability.OBSERVED if known else Observability.INFERRED)


@pytest.mark.parametrize(
    ("state", "accepted"), [("S1", True), ("RSTR", True), ("S0", False), ("REJ", False), ("OTH", None)]
)
def test_conn_state_says_whether_it_was_accepted(state, accepted):
    assert flows(conn(conn_state=state))[0]["established"] is accepted


def test_unset_bytes_stay_unknown_and_gaps_are_inferred():
    unset, gap = flows(conn(orig_bytes="-", resp_bytes="-", duration="-"), conn(missed_bytes="20"))
    assert (unset["bytes_out"], unset["end_time"], unset["bytes_observability"]) == (
        None,
        None,
        Observability.NOT_OBSERVABLE,
    )
    assert gap["bytes_observability"] == Observability.INFERRED


def test_json_gives_the_same_rows_as_tsv():
    records = [RECORD, conn(orig_h=PEER, resp_h=PHONE, service="-"), conn(orig_h=PEER, local_orig="T")]
    rows, quarantine = read_bytes(ZeekConn(), "\n".join(map(as_json, records)).encode())
    assert quarantine.total == 0
    shift = {"position", "flow_id"}
    assert [{k: v for k, v in r.items() if k not in shift} for r in rows["flows"]] == [
        {k: v for k, v in r.items() if k not in shift} for r in flows(*records)
    ]


def test_json_times_may_be_iso_8601():
    record = json.loads(as_json(RECORD)) | {"ts": "2023-11-14T22:13:20.250000Z"}
    rows, _ = read_bytes(ZeekConn(), json.dumps(record).encode())
    assert rows["flows"][0]["start_time"] == datetime(2023, 11, 14, 22, 13, 20, 250000, UTC)


def test_columns_may_change_where_logs_were_joined():
    fewer = [name for name in FIELDS if name != "service"]
    rows, quarantine = read_bytes(ZeekConn(), log(RECORD) + log(RECORD, fields=fewer))
    assert quarantine.total == 0
    assert [flow["app_protocol"] for flow in rows["flows"]] == ["ssl", None]
    assert [flow["bytes_in"] for flow in rows["flows"]] == [9000, 9000]


def test_names_come_from_tls_first_then_from_the_last_earlier_answer(tmp_path):
    other = conn(uid="Cbbb", ts="1700000100.000000")
    (tmp_path / "conn.log.gz").write_bytes(gzip.compress(log(RECORD, other, conn(uid="Cccc", ts="1600000000.000000"))))
    (tmp_path / "ssl.log").write_bytes(
        log(
            {"ts": "1", "uid": RECORD["uid"], "server_name": "Shop.Example.com"},
            path="ssl",
            fields=["ts", "uid", "server_name"],
        )
    )
    answers = [
        {"ts": f"{1700000000 + at}.000000", "id.orig_h": who, "query": name, "answers": f"alias.example.net,{SERVER}"}
        for at, who, name in [
            (10, PHONE, "early.example.org"),
            (50, PHONE, "late.example.org"),
            (90, PEER, "others.example.org"),
            (200, PHONE, "after.example.org"),
        ]
    ]
    (tmp_path / "dns.log").write_bytes(log(*answers, path="dns", fields=["ts", "id.orig_h", "query", "answers"]))
    rows, quarantine = read_paths(tmp_path)
    assert quarantine.total == 0
    assert [(flow["remote_hostname"], flow["hostname_observability"]) for flow in rows["flows"]] == [
        ("shop.example.com", Observability.OBSERVED),
        ("late.example.org", Observability.INFERRED),
        (None, Observability.NOT_OBSERVABLE),
    ]


SOCKS = [
    "ts",
    "uid",
    "id.orig_h",
    "id.orig_p",
    "id.resp_h",
    "id.resp_p",
    "version",
    "status",
    "request.host",
    "request.name",
    "request_p",
]
REQUEST = dict(
    zip(
        SOCKS,
        ["1700000001.000000", "Cx", PEER, "5000", PHONE, "1080", "5", "succeeded", "-", "www.example.org", "443"],
        strict=True,
    )
)


def test_a_socks_request_that_the_phone_answers_is_a_signal(tmp_path):
    (tmp_path / "conn.log").write_bytes(log(RECORD))
    (tmp_path / "socks.log").write_bytes(log(REQUEST, path="socks", fields=SOCKS))
    rows, _ = read_paths(tmp_path)
    (signal,) = [row for row in rows["signals"] if row["kind"] == SignalKind.SOCKS_REQUEST]
    assert (signal["device_uid"], signal["local_port"], signal["position"]) == (PHONE, 1080, 9)
    assert signal["detail"] == "SOCKS5 www.example.org:443 succeeded"


def test_a_phone_that_only_uses_a_proxy_is_not_the_proxy():
    outward = REQUEST | {"id.orig_h": PHONE, "id.resp_h": SERVER}
    rows, _ = read_bytes(ZeekSocks(), log(outward, path="socks", fields=SOCKS), device="phone-7")
    assert rows["signals"][0]["device_uid"] == SERVER


def test_each_device_gets_the_span_that_was_watched():
    rows, _ = read_bytes(ZeekConn(), log(RECORD, conn(ts="1700000100.000000")))
    (capture,) = rows["signals"]
    assert (capture["kind"], capture["detail"], capture["device_uid"]) == (SignalKind.CAPTURE, "", PHONE)
    assert (capture["start_time"].timestamp(), capture["end_time"].timestamp()) == (1700000000.25, 1700000102.5)


@pytest.mark.parametrize(
    ("path", "fields", "values"),
    [
        ("dns", ["ts", "id.orig_h", "query", "answers"], ["1700000000.5", PHONE, "a.example", SERVER]),
        ("ssl", ["ts", "uid", "server_name"], ["1700000000.5", "Cx", "a.example"]),
    ],
)
def test_a_log_that_only_names_says_so_and_is_no_damage(tmp_path, path, fields, values):
    (tmp_path / f"{path}.log").write_bytes(log(dict(zip(fields, values, strict=True)), path=path, fields=fields))
    rows, quarantine, tally, unread = read_path(tmp_path)
    assert (rows, quarantine.total, unread) == ([], 0, [])
    assert (tally.records, dict(tally.unused)) == (1, {"names the flows of a conn.log": 1})


def test_a_damaged_sibling_costs_only_names(tmp_path):
    (tmp_path / "conn.log").write_bytes(log(RECORD))
    whole = gzip.compress(log(path="ssl", fields=["ts", "uid", "server_name"]) + bytes(100))
    (tmp_path / "ssl.log.gz").write_bytes(whole[:-4])
    rows, quarantine = read_paths(tmp_path)
    assert len(rows["flows"]) == 1
    assert any("ends too early" in record.reason for record in quarantine.records)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (conn(ts="XXXXXXXXXX.XXXXXX"), "time"),
        (conn(ts="nan"), "time"),
        (conn(orig_h="phone"), "id.orig_h"),
        (conn(proto="smoke"), "protocol"),
        (conn(orig_bytes="-7"), "negative"),
        (conn(resp_bytes="lots"), "resp_bytes: 'lots'"),
        (conn(duration="1e300"), "duration"),
        (conn(service="a\tb"), "20 fields"),
    ],
)
def test_a_damaged_line_is_put_aside_and_the_others_count(record, reason):
    rows, quarantine = read_bytes(ZeekConn(), log(RECORD, record, RECORD))
    assert [flow["position"] for flow in rows["flows"]] == [9, 11]
    (aside,) = quarantine.records
    assert aside.position == "line 10"
    assert reason in aside.reason


GOOD = "\t".join(RECORD.values())
DAMAGED = st.tuples(
    st.integers(0, len(GOOD) - 1), st.sampled_from(["\t", "-", "\x00", "9", "\u00e9", "\r", '"', ",", "\\"])
).map(lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + 1 :])


@given(lines=st.lists(st.just(GOOD) | DAMAGED | st.text(max_size=40).map(lambda s: s.replace("\n", "")), max_size=8))
@settings(max_examples=150, deadline=None)
def test_every_line_is_a_flow_or_in_quarantine(lines):
    content = (header("conn", FIELDS) + "".join(line + "\n" for line in lines)).encode()
    rows, quarantine = read_bytes(ZeekConn(), content, device="phone")
    records = [line for line in lines if line.removesuffix("\r") and not line.startswith(("#", "{"))]
    if not any(line.startswith(("#", "{")) for line in lines):
        assert len(rows["flows"]) + quarantine.total == len(records)


JSON = as_json(RECORD)


@given(
    lines=st.lists(
        st.just(JSON)
        | st.integers(0, len(JSON) - 1).map(lambda n: JSON[:n] + "[" + JSON[n + 1 :])
        | st.sampled_from(["{}", '{"ts":', "{" * 3000, '{"ts": [1]}', '{"a": "\\ud800"}']),
        max_size=6,
    )
)
@settings(max_examples=100, deadline=None)
def test_every_json_line_is_a_flow_or_in_quarantine(lines):
    rows, quarantine = read_bytes(ZeekConn(), "".join(line + "\n" for line in lines).encode(), device="phone")
    assert len(rows["flows"]) + quarantine.total == len(lines)


def records_in(content: bytes) -> int:
    """Lines that are neither empty nor a header's."""
    return sum(1 for line in content.split(b"\n") if line.removesuffix(b"\r") and not line.startswith(b"#"))


@given(content=st.binary(max_size=500).filter(lambda content: b"{" not in content))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_survived(content):
    for before, after, good in (
        (b"", b"", 0),
        (header("conn", FIELDS).encode(), b"\n" + log(RECORD), 1),
    ):
        rows, quarantine = read_bytes(ZeekConn(), before + content + after)
        assert len(rows["flows"]) == good
        assert quarantine.total == records_in(content)
    rows, quarantine = read_bytes(ZeekSocks(), header("socks", SOCKS).encode() + content)
    assert len(rows["signals"]) + quarantine.total == records_in(content)


@given(content=st.binary(max_size=500))
@settings(max_examples=100, deadline=None)
def test_any_bytes_where_json_is_expected_are_told(content):
    told = sum(1 for line in content.split(b"\n") if line.strip() and not line.startswith(b"#"))
    start = (as_json(RECORD) + "\n").encode()
    rows, quarantine = read_bytes(ZeekConn(), start + content.replace(b"#", b"x"))
    assert len(rows["flows"]) == 1
    assert quarantine.total >= told


def test_real_logs_are_read_whole():
    folder = shared("samples", "zeek")
    tsv, _ = read_paths(folder / "zat_conn.log")
    lines = (folder / "zat_conn.log").read_bytes().split(b"\n")
    assert len({row["position"] for row in tsv["flows"]}) == sum(
        1 for line in lines if line and not line.startswith(b"#")
    )
    assert any(row["remote_hostname"] for row in tsv["flows"])
    assert {unit.reader_name for unit in discover([folder / "zat_json_conn.log"]).units} == {"zeek-conn"}


HTTP = [
    "ts",
    "uid",
    "id.orig_h",
    "id.orig_p",
    "id.resp_h",
    "id.resp_p",
    "trans_depth",
    "method",
    "host",
    "uri",
    "status_code",
]


def request(**changed: str) -> dict[str, str]:
    values = ["1700000001.000000", "Cx", PEER, "5000", PHONE, "8080", "1", "GET", "-", "-", "200"]
    return dict(zip(HTTP, values, strict=True)) | changed


def test_a_connect_request_that_the_phone_answers_is_a_signal(tmp_path):
    connect = request(method="CONNECT", host="www.example.org", uri="www.example.org:443")
    (tmp_path / "http.log").write_bytes(log(connect, request(host="a.example"), path="http", fields=HTTP))
    rows, _ = read_paths(tmp_path)
    (signal,) = rows["signals"]
    assert (signal["kind"], signal["observability"]) == (SignalKind.HTTP_CONNECT, Observability.OBSERVED)
    assert (signal["device_uid"], signal["local_port"], signal["position"]) == (PHONE, 8080, 9)
    assert signal["detail"] == "CONNECT www.example.org:443 200"
    _, quarantine, tally, _ = read_path(tmp_path)
    assert_accounted(quarantine, tally)
    assert dict(tally.unused) == {"names the flows of a conn.log": 1}


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"host": "Shop.Example.com:80", "uri": "/"}, "shop.example.com"),
        ({"host": SERVER, "uri": "/"}, None),
        ({"host": "other.example", "uri": "http://other.example/x"}, None),
        ({"host": "other.example", "uri": "other.example:443", "method": "CONNECT"}, None),
        ({"host": "a b", "uri": "/"}, None),
    ],
)
def test_plain_http_names_its_flow_by_the_host_that_was_asked_for(tmp_path, changed, name):
    mine = request(uid=RECORD["uid"]) | {"id.orig_h": PHONE, "id.resp_h": SERVER} | changed
    (tmp_path / "http.log").write_bytes(log(mine, path="http", fields=HTTP))
    (tmp_path / "conn.log").write_bytes(log(RECORD))
    for path in (tmp_path, tmp_path / "conn.log"):
        (flow,) = read_paths(path)[0]["flows"]
        assert flow["remote_hostname"] == name
        assert flow["hostname_observability"] == (Observability.OBSERVED if name else Observability.NOT_OBSERVABLE)


def test_what_is_asked_for_through_a_proxy_does_not_name_the_proxy(tmp_path):
    connect = request(uid=RECORD["uid"], method="CONNECT", uri="bank.example:443") | {"id.orig_h": PHONE}
    (tmp_path / "http.log").write_bytes(log(connect | {"id.resp_h": SERVER}, path="http", fields=HTTP))
    hello = {"ts": "1", "uid": RECORD["uid"], "server_name": "bank.example"}
    (tmp_path / "ssl.log").write_bytes(log(hello, path="ssl", fields=list(hello)))
    (tmp_path / "conn.log").write_bytes(log(RECORD))
    assert read_paths(tmp_path)[0]["flows"][0]["remote_hostname"] is None


TUNNEL = ["ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "tunnel_type", "action"]


def tunnel(kind: str, action: str = "Tunnel::DISCOVER") -> dict[str, str]:
    values = ["1700000001.000000", "-", PEER, "0", PHONE, "1080", kind, action]
    return dict(zip(TUNNEL, values, strict=True))


def test_a_proxy_that_was_found_on_the_phone_is_an_inferred_request(tmp_path):
    records = [tunnel("Tunnel::SOCKS"), tunnel("Tunnel::HTTP"), tunnel("Tunnel::SOCKS", "Tunnel::CLOSE")]
    records.append(tunnel("Tunnel::TEREDO"))
    (tmp_path / "tunnel.log").write_bytes(log(*records, path="tunnel", fields=TUNNEL))
    rows, quarantine, tally, _ = read_path(tmp_path)
    signals = [row for part in rows for row in part.rows.to_pylist()]
    assert [(row["kind"], row["observability"], row["device_uid"], row["local_port"]) for row in signals] == [
        (SignalKind.SOCKS_REQUEST, Observability.INFERRED, PHONE, 1080),
        (SignalKind.HTTP_CONNECT, Observability.INFERRED, PHONE, 1080),
    ]
    assert dict(tally.unused) == {"says when a tunnel ended": 1, "a tunnel that is no proxy": 1}
    assert_accounted(quarantine, tally)


DHCP = ["ts", "uids", "client_addr", "server_addr", "mac", "host_name", "assigned_addr", "lease_time", "msg_types"]
MAC = "02:00:5e:10:00:07"


def lease(**changed: str) -> dict[str, str]:
    values = ["1700000001.000000", "Cx", "-", "192.168.7.1", MAC.upper(), "Pixel-7", PHONE, "3600.0"]
    return dict(zip(DHCP, [*values, "DISCOVER,OFFER,REQUEST,ACK"], strict=True)) | changed


def test_a_lease_is_the_phones_address_for_its_time(tmp_path):
    later = lease(ts="1700003601.000000")
    (tmp_path / "dhcp.log").write_bytes(log(lease(), later, path="dhcp", fields=DHCP))
    rows, quarantine = read_paths(tmp_path)
    assert quarantine.total == 0
    said = [(row["identifier_kind"], row["identifier"], row["position"]) for row in rows["inventory"]]
    assert said == [("ip", PHONE, 9), ("mac", MAC, 9), ("hostname", "pixel-7", 9), ("ip", PHONE, 10)]
    assert {row["device_uid"] for row in rows["inventory"]} == {f"mac:{MAC}"}
    assert {row["android_package"] for row in rows["inventory"]} == {None}
    first = rows["inventory"][0]
    assert (first["valid_from"].timestamp(), first["valid_to"].timestamp()) == (1700000001, 1700003601)
    assert rows["inventory"][1]["valid_to"] is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (lease(msg_types="REQUEST,NAK"), "says nothing new of its device"),
        (lease(assigned_addr="-"), "says nothing new of its device"),
        (lease(mac="-"), "names no hardware address"),
        (lease(mac="phone"), None),
        (lease(assigned_addr="10.0.0"), None),
        (lease(lease_time="-5"), None),
        (lease(ts="XXXXXXXXXX.XXXXXX"), None),
    ],
)
def test_an_exchange_that_grants_no_lease_is_left_and_a_damaged_one_is_put_aside(tmp_path, record, reason):
    (tmp_path / "dhcp.log").write_bytes(log(lease(), record, path="dhcp", fields=DHCP))
    rows, quarantine, tally, _ = read_path(tmp_path)
    assert sum(part.rows.num_rows for part in rows) == 3
    assert dict(tally.unused) == ({reason: 1} if reason else {})
    assert [entry.position for entry in quarantine.records] == ([] if reason else ["line 10"])
    assert_accounted(quarantine, tally)


def test_json_of_each_sibling_gives_the_same_rows_as_tsv(tmp_path):
    answers = {"ts": "1700000000.0", "id.orig_h": PHONE, "query": "late.example.org", "answers": f"alias,{SERVER}"}
    cases = {
        "dhcp": (lease(), DHCP, {"msg_types": lease()["msg_types"].split(","), "lease_time": 3600, "uids": ["Cx"]}),
        "http": (
            request(method="CONNECT", uri="a:443"),
            HTTP,
            {"trans_depth": 1, "id.resp_p": 8080, "status_code": 200},
        ),
        "tunnel": (tunnel("Tunnel::SOCKS"), TUNNEL, {"id.resp_p": 1080}),
        "socks": (REQUEST, SOCKS, {"version": 5, "request_p": 443, "id.resp_p": 1080}),
        "dns": (answers, list(answers), {"answers": ["alias", SERVER]}),
        "conn": (RECORD, FIELDS, json.loads(as_json(RECORD))),
    }
    for kind, (record, fields, typed) in cases.items():
        (tmp_path / "tsv").mkdir(exist_ok=True)
        (tmp_path / "json").mkdir(exist_ok=True)
        (tmp_path / "tsv" / f"{kind}.log").write_bytes(log(record, path=kind, fields=fields))
        set_ones = {name: value for name, value in record.items() if value != "-"}
        line = json.dumps(set_ones | {"ts": float(record["ts"])} | typed)
        (tmp_path / "json" / f"{kind}.log").write_text(line + "\n")
    shift = {"position", "flow_id", "source"}
    (tsv, tsv_aside), (as_lines, json_aside) = read_paths(tmp_path / "tsv"), read_paths(tmp_path / "json")
    assert (tsv_aside.total, json_aside.total) == (0, 0)
    assert {table: len(rows) for table, rows in tsv.items()} == {"signals": 4, "inventory": 3, "flows": 1}
    for table in tsv:
        assert [{k: v for k, v in row.items() if k not in shift} for row in as_lines[table]] == [
            {k: v for k, v in row.items() if k not in shift} for row in tsv[table]
        ]


FUZZ_SEEDS: list[tuple[str, bytes]] = [
    ("conn.log", log(RECORD, conn(orig_h=PEER, resp_h=PHONE), conn(resp_h="192.168.7.30"), conn(service="-"))),
    ("conn.json", "".join(as_json(record) + "\n" for record in (RECORD, conn(orig_h=PEER), RECORD)).encode()),
    ("socks.log", log(REQUEST, REQUEST | {"id.orig_h": PHONE}, path="socks", fields=SOCKS)),
    ("http.log", log(request(method="CONNECT", uri="a:443"), request(host="b.example"), path="http", fields=HTTP)),
    ("tunnel.log", log(tunnel("Tunnel::SOCKS"), tunnel("Tunnel::GRE"), path="tunnel", fields=TUNNEL)),
    ("dhcp.log", log(lease(), lease(msg_types="REQUEST,NAK"), lease(mac="-"), path="dhcp", fields=DHCP)),
    (
        "dns.log",
        log(
            {"ts": "1700000000.0", "id.orig_h": PHONE, "query": "a.example", "answers": f"alias,{SERVER}"},
            path="dns",
            fields=["ts", "id.orig_h", "query", "answers"],
        ),
    ),
]


@pytest.mark.parametrize(("name", "content"), FUZZ_SEEDS)
def test_hostile_variants_are_survived_and_accounted_for(tmp_path, name, content):
    rng = random.Random(23)  # noqa: S311 - seeded, so that it repeats
    for _ in range(200):
        assert_survives(tmp_path, name, mutate(content, rng))


@pytest.mark.parametrize(("name", "content"), FUZZ_SEEDS[2:])
def test_hostile_siblings_of_a_conn_log_are_survived_and_accounted_for(tmp_path, name, content):
    rng = random.Random(29)  # noqa: S311 - seeded, so that it repeats
    (tmp_path / "conn.log").write_bytes(log(RECORD))
    for _ in range(20):
        assert_survives(tmp_path, name, mutate(content, rng))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_whole_blocks_of_json_give_what_single_lines_give(seed):
    seeded = random.Random(seed)  # noqa: S311 - seeded, so that it repeats
    content = FUZZ_SEEDS[1][1] + mutate(FUZZ_SEEDS[1][1] * 3, seeded).rstrip(b"\n") + b"\n" + FUZZ_SEEDS[1][1]
    fast, aside = read_bytes(ZeekConn(), content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "_regular", lambda _block: 0)
        patch.setattr(json_records, "FEWEST_AT_ONCE", 1 << 30)
        slow, slow_aside = read_bytes(ZeekConn(), content)
    assert fast == slow
    assert sorted(map(str, aside.records)) == sorted(map(str, slow_aside.records))


def test_a_header_before_every_other_record_costs_nothing_and_changes_nothing():
    records = [conn(uid=f"C{n}", ts=f"{1_700_000_000 + n}.5") for n in range(20)]
    again = b"".join(log(*pair) for pair in zip(records[::2], records[1::2], strict=True))
    rows, quarantine = read_bytes(ZeekConn(), again)
    once, _ = read_bytes(ZeekConn(), log(*records))
    lines = [number for number, line in enumerate(again.splitlines(), 1) if not line.startswith(b"#")]
    assert not quarantine.total
    assert [row["position"] for row in rows["flows"]] == lines
    same = [{k: v for k, v in row.items() if k not in ("position", "flow_id")} for row in rows["flows"]]
    assert same == [{k: v for k, v in row.items() if k not in ("position", "flow_id")} for row in once["flows"]]


def test_headers_with_other_columns_between_records_each_go_for_what_follows():
    swapped = [*FIELDS[:-1][::-1], FIELDS[-1]]
    first, second, third = (conn(uid=f"C{n}", ts=f"{1_700_000_000 + n}.5") for n in range(3))
    content = log(first) + log(second, fields=swapped) + as_json(third).encode() + b"\n"
    rows, quarantine = read_bytes(ZeekConn(), content)
    assert not quarantine.total
    assert [row["start_time"].timestamp() for row in rows["flows"]] == [
        1_700_000_000.5,
        1_700_000_001.5,
        1_700_000_002.5,
    ]


def test_names_beyond_what_memory_holds_are_left_out_but_counted(tmp_path, monkeypatch):
    for module in ("zeek", "zeek_http"):
        monkeypatch.setattr(f"relaywatch.sources.{module}.NAMES_KEPT", 2)
    fields = ["ts", "uid", "server_name"]
    hellos = [{"ts": "1", "uid": f"C{n}", "server_name": f"n{n}.example"} for n in range(5)]
    (tmp_path / "ssl.log").write_bytes(log(*hellos, path="ssl", fields=fields))
    (tmp_path / "conn.log").write_bytes(log(*(conn(uid=f"C{n}") for n in range(5))))
    reading = Reading(Quarantine())
    rows = [part for unit in discover([tmp_path]).units for part in unit.read(reading)]
    (flows,) = [part.rows.to_pylist() for part in rows if part.table == "flows"]
    assert [flow["remote_hostname"] for flow in flows] == ["n0.example", "n1.example", None, None, None]
    assert_accounted(reading.quarantine, reading.tally)


def test_the_baselines_of_zeeks_own_tests_have_masked_times_and_say_so():
    folder = shared("samples", "zeek")
    for path in folder.glob("*baseline*.log"):
        rows, quarantine, tally, unread = read_path(path)
        assert (rows, unread) == ([], [])
        assert [entry.position for entry in quarantine.records] == ["line 10"]
        assert "time" in quarantine.records[0].reason
        assert_accounted(quarantine, tally)
    for path in folder.glob("zat_*.log"):
        _, quarantine, tally, unread = read_path(path)
        assert (quarantine.total, unread) == (0, [])
        assert_accounted(quarantine, tally)
        assert tally.records
