from __future__ import annotations

import gzip
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import mutations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit_reads import read_bytes

from relaywatch.model.tables import batch
from relaywatch.outputs.telemetry.dhcp_leases import write_dhcp_leases
from relaywatch.sources.address_leases import DnsmasqLeases, KeaLeases, WindowsDhcp
from relaywatch.sources.address_sessions import AssignmentsCsv, RadiusDetail
from relaywatch.sources.dhcpd_leases import DhcpdLeases
from relaywatch.sources.inventory_csv import InventoryCsv
from relaywatch.sources.reading import Head

MAC1, MAC2 = "02:00:5e:00:53:01", "02:00:5e:00:53:02"
IP = "192.0.2.7"
T0 = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def lease(ip: str, starts: int, ends: int | None, mac: str, *, state: str = "active", host: str = "Phone-7") -> str:
    def said(second: int) -> str:
        return (T0 + timedelta(seconds=second)).strftime("%w %Y/%m/%d %H:%M:%S")

    end = "never" if ends is None else said(ends)
    return (
        f"lease {ip} {{\n  starts {said(starts)};\n  ends {end};\n  cltt {said(starts)};\n  binding state {state};\n"
        f'  next binding state free;\n  hardware ethernet {mac};\n  uid "\\001\\002";\n  client-hostname "{host}";\n'
        "  on expiry {\n    set x = 1;\n  }\n}\n"
    )


DHCPD = (
    "# The format of this file is documented in the dhcpd.leases(5) manual page.\n"
    'server-duid "\\000\\001";\n\nfailover peer "p" state {\n  my state normal at 2 2023/11/14 22:13:20;\n}\n'
)
KEA = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n"
WINDOWS = (
    "\t\tMicrosoft DHCP Service Activity Log\n\nEvent ID  Meaning\n00\tThe log was started.\n\n"
    "ID,Date,Time,Description,IP Address,Host Name,MAC Address,User Name, TransactionID, QResult,Probationtime\r\n"
    "00,11/14/23,00:00:01,Started,,,,,0,6,,\r\n"
    f"10,11/14/23,22:13:20,Assign,{IP},Phone-7.example.com,02005E005301,,1,0,,\r\n"
    f"11,11/14/23,22:43:20,Renew,{IP},Phone-7.example.com,02005E005301,,1,0,,\r\n"
    f"12,11/14/23,23:13:20,Release,{IP},Phone-7.example.com,02005E005301,,1,0,,\r\n"
    f"10,11/14/23,23:20:00,Assign,{IP},tab,02005E005302,,1,0,,\r\n"
)


def radius(status: str, at: int, *, session: int | None = None, ip: str = IP, event: bool = True) -> str:
    when = T0 + timedelta(seconds=at)
    lines = [
        when.strftime("%a %b %d %H:%M:%S %Y"),
        f"\tAcct-Status-Type = {status}",
        '\tUser-Name = "ana"',
        f"\tFramed-IP-Address = {ip}",
        f'\tCalling-Station-Id = "{MAC1.upper().replace(":", "-")}"',
        f'\tEvent-Timestamp = "{when.strftime("%b %d %Y %H:%M:%S")} UTC"' if event else "\tAcct-Delay-Time = 5",
        f"\tTimestamp = {int(when.timestamp()) + (5 if not event else 1)}",
    ]
    lines += [f"\tAcct-Session-Time = {session}"] if session is not None else []
    return "\n".join(lines) + "\n\n"


KEA_ROWS = KEA + f"{IP},{MAC1},01,3600,{1_700_003_600},1,0,0,phone-7,0,\n"
FUZZ_SEEDS = [
    ("dhcpd.leases", (DHCPD + lease(IP, 0, 600, MAC1) + lease(IP, 900, None, MAC2)).encode()),
    ("kea-leases4.csv", (KEA_ROWS + f"192.0.2.8,{MAC2},,3600,1700003600,1,0,0,,2,\n").encode()),
    ("dnsmasq.leases", f"1700003600 {MAC1} {IP} phone-7 01:{MAC1}\n0 {MAC2} 192.0.2.8 * *\n".encode()),
    ("DhcpSrvLog-Tue.log", WINDOWS.encode()),
    ("detail", (radius("Start", 0) + radius("Interim-Update", 60, session=60) + radius("Stop", 90)).encode()),
    ("vpn.csv", f"start,end,ip,user\n2023-11-14T22:13:20Z,,{IP},ana\n2023-11-14T23:13:20Z,,{IP},bo\n".encode()),
]
READERS = (DhcpdLeases(), KeaLeases(), DnsmasqLeases(), WindowsDhcp(), RadiusDetail(), AssignmentsCsv())


def at(second: int) -> datetime:
    return T0 + timedelta(seconds=second)


def read(reader, content: str):
    rows, quarantine = read_bytes(reader, content.encode())
    assert quarantine.total == 0, quarantine.records
    assert set(rows) <= {"inventory"}
    return rows["inventory"]


def intervals(rows):
    """(device, address, from, to) of each address row, in order of begin."""
    found = [
        (row["device_uid"], row["identifier"], row["valid_from"], row["valid_to"])
        for row in rows
        if row["identifier_kind"] == "ip"
    ]
    return sorted(found, key=lambda entry: (entry[2] or T0, entry[1]))


def names(rows):
    return {(row["identifier_kind"], row["identifier"]) for row in rows if row["identifier_kind"] != "ip"}


@pytest.mark.parametrize(("reader", "seed"), list(zip(READERS, FUZZ_SEEDS, strict=True)))
def test_each_format_is_known_by_its_content_and_by_no_other_reader(reader, seed):
    head = Head(path=None, content=seed[1])
    first = next(known for known in (*READERS, InventoryCsv()) if known.fits(head))
    assert first is reader
    assert [known for known in READERS if known.fits(head)] == [reader]


def test_a_renewed_lease_of_dhcpd_is_one_interval_and_a_released_one_ends():
    content = DHCPD + lease(IP, 0, 600, MAC1) + lease(IP, 300, 900, MAC1) + lease(IP, 300, 700, MAC1, state="free")
    rows = read(DhcpdLeases(), content)
    assert intervals(rows) == [(f"mac:{MAC1}", IP, at(0), at(700))]
    assert names(rows) == {("mac", MAC1), ("hostname", "phone-7")}


def test_an_address_given_to_another_device_is_no_longer_the_firsts():
    rows = read(DhcpdLeases(), lease(IP, 0, 600, MAC1) + lease(IP, 300, None, MAC2))
    assert intervals(rows) == [(f"mac:{MAC1}", IP, at(0), at(300)), (f"mac:{MAC2}", IP, at(300), None)]


def test_a_gap_between_two_leases_of_one_device_stays():
    rows = read(DhcpdLeases(), lease(IP, 0, 600, MAC1) + lease(IP, 900, 1500, MAC1))
    assert [(begin, end) for *_, begin, end in intervals(rows)] == [(at(0), at(600)), (at(900), at(1500))]


def test_dhcpds_local_time_format_and_ipv6_leases_are_read():
    content = (
        'ia-na "\\001\\000\\000\\000\\000\\003\\000\\001\\002\\000^\\000S\\001" {\n  cltt 2 2023/11/14 22:13:20;\n'
        "  iaaddr 2001:db8::7 {\n    binding state active;\n    preferred-life 375;\n"
        "    ends epoch 1700000600; # Tue Nov 14 23:23:20 2023\n  }\n}\n"
    )
    (found,) = intervals(read(DhcpdLeases(), content))
    assert found == (f"mac:{MAC1}", "2001:db8::7", at(0), at(600))


def test_kea_lifetimes_become_intervals_and_deletions_end_nothing_by_guess():
    more = (
        f"{IP},{MAC1},01,3600,1700005400,1,0,0,phone-7,0,\n{IP},{MAC1},01,0,1700001800,1,0,0,phone-7,0,\n"
        f"192.0.2.8,,,3600,1700003600,1,0,0,,1,\n192.0.2.9,{MAC2},,4294967295,5994967295,1,0,0,a&#x2cb,0,\n"
    )
    rows = read(KeaLeases(), KEA_ROWS + more)
    assert intervals(rows) == [
        (f"mac:{MAC1}", IP, at(0), at(5400)),
        (f"mac:{MAC2}", "192.0.2.9", at(0), None),
    ]
    assert ("hostname", "a,b") in names(rows)


def test_dnsmasq_tells_only_the_end():
    rows = read(DnsmasqLeases(), FUZZ_SEEDS[2][1].decode() + "duid 00:01\n")
    assert {(device, end) for device, _, begin, end in intervals(rows) if begin is None} == {
        (f"mac:{MAC1}", at(3600)),
        (f"mac:{MAC2}", None),
    }


def test_windows_events_become_intervals_in_a_zone_that_is_not_told():
    rows = read(WindowsDhcp(), WINDOWS)
    assert intervals(rows) == [(f"mac:{MAC1}", IP, at(0), at(3600)), (f"mac:{MAC2}", IP, at(4000), None)]
    assert {row["clock_skew_bound_s"] for row in rows} == {14 * 3600}
    assert ("hostname", "phone-7.example.com") in names(rows)


def test_a_radius_session_is_one_interval_with_its_user():
    rows = read(RadiusDetail(), radius("Start", 0) + radius("Alive", 60, session=60) + radius("Stop", 90, session=90))
    assert intervals(rows) == [(f"mac:{MAC1}", IP, at(0), at(90))]
    assert {row["user_name"] for row in rows if row["identifier_kind"] == "ip"} == {"ana"}


def test_a_radius_session_whose_start_was_not_seen_began_as_long_ago_as_it_lasted():
    rows = read(RadiusDetail(), radius("Stop", 90, session=60, event=False))
    assert intervals(rows) == [(f"mac:{MAC1}", IP, at(30), at(90))]


def test_vpn_assignments_end_when_the_address_is_given_again():
    content = (
        "Login Time;Assigned IP;User;Logout Time\n"
        f"2023-11-14T22:13:20Z;{IP};ana;\n2023-11-14T22:14:20Z;{IP};bo;2023-11-14T22:15:20Z\n"
    )
    rows = read(AssignmentsCsv(), content)
    assert intervals(rows) == [("user:ana", IP, at(0), at(60)), ("user:bo", IP, at(60), at(120))]


def test_a_given_device_id_names_the_device_of_an_assignment():
    rows = read(AssignmentsCsv(), f"start,ip,device id,mac\n1700000000,{IP},phone-7,{MAC1}\n")
    assert intervals(rows) == [("phone-7", IP, at(0), None)]
    assert names(rows) == {("mac", MAC1)}


@pytest.mark.parametrize(
    ("name", "content", "damaged"),
    [
        ("dhcpd.leases", lease(IP, 0, 600, MAC1) + lease("here", 0, 6, MAC2) + "lease 192.0.2.9 {\n  starts 2 x;\n", 2),
        ("kea.csv", KEA_ROWS + f"{IP},{MAC1},01,many,1700003600,1,0,0,phone-7,0,\n{IP}\n", 2),
        ("dnsmasq.leases", f"1700003600 {MAC1} {IP} phone-7 *\n1700003600 {MAC1} here phone-7 *\n1 2\n", 2),
        ("windows.log", WINDOWS + f"10,31/31/23,22:13:20,Assign,{IP},x,02005E005301,,1\nnonsense\n", 2),
        ("detail", radius("Start", 0) + radius("Start", 5, ip="here") + "nonsense\n", 2),
        ("vpn.csv", f"start,ip,user\n1700000000,{IP},ana\nsoon,{IP},ana\n1700000000,{IP},\n", 2),
    ],
)
def test_damage_costs_only_itself_and_is_counted(tmp_path, name, content, damaged):
    (tmp_path / name).write_text(content)
    rows, quarantine, tally, unknown = mutations.read_path(tmp_path)
    assert not unknown
    assert quarantine.total == damaged, quarantine.records
    assert rows
    mutations.assert_accounted(quarantine, tally)


@pytest.mark.parametrize("number", range(len(FUZZ_SEEDS)))
def test_what_came_before_the_damage_of_a_compressed_file_is_kept(tmp_path, number):
    name, content = FUZZ_SEEDS[number]
    noise = random.Random(5).randbytes(200_000).hex().encode()  # noqa: S311 - so that the damage is far behind
    stored = gzip.compress(content + b"\n" + noise)
    (tmp_path / f"{name}.gz").write_bytes(stored[: len(stored) // 2])
    rows, quarantine, tally, unknown = mutations.read_path(tmp_path)
    assert not unknown
    assert sum(part.rows.num_rows for part in rows) >= 2
    mutations.assert_accounted(quarantine, tally)


LEASES = st.lists(
    st.tuples(
        st.integers(0, 200),  # address
        st.integers(1, 9),  # device
        st.integers(0, 10**6),  # begin
        st.none() | st.integers(1, 10**6),  # length
        st.booleans(),  # IPv6
    ),
    max_size=20,
    unique_by=lambda entry: (entry[0], entry[4]),
)


@settings(max_examples=60, deadline=None)
@given(LEASES)
def test_leases_that_are_written_are_read_back(tmp_path_factory, leases):
    rows = []
    for number, device, begin, length, sixth in leases:
        mac = f"02:00:5e:00:53:{device:02x}"
        address = f"2001:db8::1:{number:x}" if sixth else f"192.0.2.{number}"
        end = None if length is None else at(begin + length)
        rows.append((f"mac:{mac}", "ip", address, at(begin), end))
        rows.append((f"mac:{mac}", "mac", mac, None, None))
    columns = ("device_uid", "identifier_kind", "identifier", "valid_from", "valid_to")
    table = {name: list(column) for name, column in zip(columns, zip(*rows, strict=True), strict=False)} if rows else {}
    fixed = {"source": "x", "position": 1, "clock": "sensor"}
    parts = [batch("inventory", {**table, **fixed}, length=len(rows))] if rows else []
    back = []
    for path in write_dhcp_leases(parts, tmp_path_factory.mktemp("written")):
        assert path.name.startswith("synthetic-")
        back += read(KeaLeases(), path.read_text())
    assert intervals(back) == sorted(
        ((device, name, begin, end) for device, kind, name, begin, end in rows if kind == "ip"),
        key=lambda entry: (entry[2], entry[1]),
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100), st.integers(0, 50), st.integers(1, 3)), max_size=30),
)
def test_an_address_is_one_devices_at_a_time(grants):
    """Whatever the order of grants by time: intervals of one address do not overlap."""
    grants = sorted(grants, key=lambda grant: grant[1])
    content = "".join(
        lease(IP, begin, begin + length, f"02:00:5e:00:53:{device:02x}") for _, begin, length, device in grants
    )
    rows, quarantine = read_bytes(DhcpdLeases(), content.encode())
    assert quarantine.total == 0
    found = intervals(rows["inventory"])
    assert all(before[3] <= after[2] for before, after in pairwise(found))


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(11)  # noqa: S311 - a repeatable test
    for name, content in FUZZ_SEEDS:
        for number in range(100):
            mutations.assert_survives(tmp_path / str(number), name, mutations.mutate(content, rng))
