"""Socket tables: who owns a connection, who listens, and that a polled socket is one connection."""

import random

import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import batch
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.sources.socket_tables import parse_row

NETSTAT = """== dumpstate: 2026-03-03 10:00:00
------ SYSTEM PROPERTIES (getprop) ------
[persist.sys.timezone]: [Europe/Berlin]
[ro.serialno]: [R58M123]
------ NETSTAT (netstat -npWae) ------
Active Internet connections (established and servers)
Proto Recv-Q Send-Q Local Address  Foreign Address  State  User  Inode  PID/Program Name
tcp        0      1 192.168.8.183:55191   51.116.253.169:443   SYN_SENT    1010351    1136844     -
tcp6       0      0 [::]:8899              [::]:0               LISTEN      10282       12345       -
tcp        0      0 192.168.8.183:8899      192.168.8.40:50123    ESTABLISHED 10282      22222       12345/com.example
tcp        0      0 192.168.8.183:51234     216.58.214.67:443    ESTABLISHED 10283      22223       12346/com.other
tcp        0      0 192.168.8.183:51235     216.58.214.67:443    TIME_WAIT   0          0           -
tcp        0      0 127.0.0.1:5037     127.0.0.1:40000    ESTABLISHED 2000      1           -
udp        0      0 0.0.0.0:5353     0.0.0.0:*               10100      33           -
raw6       0      0 [::]:58     [::]:*      7      0     44     -
------ 0.1s was the duration of 'NETSTAT' ------
"""
SS = """1772528400.5
Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port
tcp    LISTEN   0      50     *:1080   *:*   uid:10150 ino:1 sk:1 <->
tcp    ESTAB    0      0      10.0.0.5:1080   203.0.113.9:40001   uid:10150 ino:2 sk:2 <->
\t cubic rto:204 bytes_acked:5000 bytes_received:700 segs_out:8 lastsnd:10
udp    ESTAB    0      0      [2001:db8::5]:40100   [2001:db8::9]:443   uid:10151 ino:3 sk:3
1772528405.5
Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port
tcp    LISTEN   0      50     *:1080   *:*   uid:10150 ino:1 sk:1 <->
tcp    ESTAB    0      0      10.0.0.5:1080   203.0.113.9:40001   uid:10150 ino:2 sk:2 <->
\t cubic rto:204 bytes_acked:9000 bytes_received:800 segs_out:9 lastsnd:10
1772528700.5
tcp    ESTAB    0      0      10.0.0.5:1080   203.0.113.9:40001   uid:10150 ino:9 sk:2 <->
"""
PROC = """1772528400
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:22C3 00000000:0000 0A 00000000:00000000 00:00000000 00000000 10150        0 20001 1 0 100 0 0 10 0
   1: 0500000A:22C3 097100CB:9C41 01 00000000:00000000 00:00000000 00000000 10150        0 20002 1 0 20 4 30 10 -1
"""
FUZZ_SEEDS = [("bugreport.txt", NETSTAT.encode()), ("ss.txt", SS.encode()), ("tcp.txt", PROC.encode())]


def read(tmp_path, content, name="sockets.txt"):
    (tmp_path / name).write_text(content)
    batches, quarantine, tally, unknown = read_path(tmp_path / name)
    assert not unknown
    assert_accounted(quarantine, tally)
    rows = {"flows": [], "signals": [], "inventory": []}
    for part in batches:
        rows[part.table] += part.rows.to_pylist()
    return rows, quarantine, tally


def test_a_bug_reports_netstat_says_owner_direction_and_listeners(tmp_path):
    rows, quarantine, tally = read(tmp_path, NETSTAT)
    assert not quarantine.total
    flows = {row["local_port"]: row for row in rows["flows"]}
    accepted, dialled, tried = flows[8899], flows[51234], flows[55191]
    assert (accepted["android_uid"], accepted["direction_id"], accepted["direction_observability"]) == (10282, 1, 2)
    assert (dialled["direction_id"], dialled["established"]) == (2, True)
    assert (tried["android_uid"], tried["established"]) == (1010351, False)
    assert {row["start_observability"] for row in rows["flows"]} == {2}
    assert {row["device_uid"] for row in rows["flows"]} == {"R58M123"}
    assert accepted["start_time"].isoformat() == "2026-03-03T09:00:00+00:00"
    told = {(row["kind"], row["local_port"], row["android_uid"], row["detail"]) for row in rows["signals"]}
    assert told == {
        (SignalKind.LISTENER, 8899, 10282, "tcp"),
        (SignalKind.LISTENER, 5353, 10100, "udp"),
        (SignalKind.RAW_SOCKET, None, 0, "raw"),
    }
    assert tally.unused["a closed socket without an owner"] == 1
    assert tally.unused["a socket between programs of the phone"] == 1


def test_a_polled_socket_is_one_connection_until_it_pauses(tmp_path):
    rows, _, tally = read(tmp_path, SS)
    tcp = [row for row in rows["flows"] if row["protocol_num"] == 6]
    spans = [(row["start_time"].timestamp(), row["end_time"] and row["end_time"].timestamp()) for row in tcp]
    assert sorted(spans) == [(1772528400.5, 1772528405.5), (1772528700.5, None)]
    first = min(tcp, key=lambda row: row["start_time"])
    assert (first["direction_id"], first["bytes_out"], first["bytes_in"]) == (1, 9000, 800)
    assert tally.unused == {"seen again in a later table": 2}
    (udp,) = (row for row in rows["flows"] if row["protocol_num"] == 17)
    assert (udp["remote_ip"], udp["remote_port"], udp["direction_id"]) == ("2001:db8::9", 443, 2)
    (capture,) = (row for row in rows["signals"] if row["kind"] == SignalKind.CAPTURE)
    assert capture["detail"] == "LISTENER RAW_SOCKET"


def test_the_kernels_own_table_is_read(tmp_path):
    rows, _, _ = read(tmp_path, PROC)
    (flow,) = rows["flows"]
    assert (flow["local_ip"], flow["local_port"], flow["remote_ip"], flow["remote_port"]) == (
        "10.0.0.5",
        8899,
        "203.0.113.9",
        40001,
    )
    assert flow["direction_id"] == 1


def test_a_table_without_a_time_is_put_aside_and_says_so(tmp_path):
    rows, quarantine, _ = read(tmp_path, PROC.partition("\n")[2])
    assert not rows["flows"]
    assert {record.reason for record in quarantine.records} == {"a socket table without a time before it"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tcp 0 0 1.2.3.4:80 5.6.7.8:99999 ESTABLISHED 0 0 -", None),
        ("tcp 0 0 1.2.3.4:80 5.6.7.8 ESTABLISHED 0 0 -", None),
        ("tcp 0 0 1.2.3.x:80 5.6.7.8:9 ESTABLISHED 0 0 -", None),
        ("tcp 0 0 1.2.3.4:80 5.6.7.8:9 ESTABLISHED u10_a351 5 -", 1010351),
        ("tcp 0 0 ::ffff:1.2.3.4:80 5.6.7.8:9 ESTABLISHED", -1),
        ("ESTAB 0 0 1.2.3.4:80 5.6.7.8:9", 0),
    ],
)
def test_owners_and_damage_of_single_lines(line, expected):
    row = parse_row(line)
    assert (row and row.uid) == expected


def test_what_is_written_is_read_back(tmp_path):
    begin = 1_772_528_400_000_000
    told = {"device_uid": "phone-7", "android_uid": 10150, "source": "x", "clock": "device"}
    flows = told | {
        "flow_id": [1, 2, 3], "protocol_num": [6, 6, 17], "direction_id": [1, 2, 2], "direction_observability": 1,
        "start_time": [begin, begin + 7_000_000, begin + 1_000_000], "bytes_observability": 0, "position": [1, 2, 3],
        "end_time": [begin + 30_000_000, begin + 9_000_000, begin + 21_000_000], "local_ip": "10.0.0.5",
        "local_port": [8899, 40_001, 40_002], "remote_ip": ["203.0.113.9", "203.0.113.10", "2001:db8::9"],
        "remote_port": [50_000, 443, 443],
    }  # fmt: skip
    (path,) = export([batch("flows", flows, length=3)], ExportFormat.SOCKET_POLLS, tmp_path)
    assert path.read_text().startswith("# synthetic")
    rows, quarantine, _ = read(tmp_path, path.read_text(), path.name)
    assert not quarantine.total
    found = {row["local_port"]: row for row in rows["flows"]}
    # The connection between two polls was never seen.
    assert sorted(found) == [8899, 40_002]
    assert (found[8899]["direction_id"], found[8899]["android_uid"]) == (1, 10150)
    assert (found[40_002]["direction_id"], found[40_002]["remote_ip"]) == (2, "2001:db8::9")
    assert found[8899]["start_time"].timestamp() == begin / 1e6


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(100):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
