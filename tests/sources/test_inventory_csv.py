from __future__ import annotations

import gzip
import random
from datetime import UTC, datetime

import mutations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit_reads import read_bytes

from relaywatch.model.tables import batch
from relaywatch.outputs.telemetry.inventory_csv import write_inventory_csv
from relaywatch.sources.columns import canonical_address
from relaywatch.sources.inventory_csv import InventoryCsv
from relaywatch.sources.reading import Head

DIGEST = "ab" * 32
FULL = (
    "\ufeffDevice ID;Serial Number;IMEI;Wi-Fi MAC;Host Name;User;Department;Package;App Name;"
    "UID;Installer;Cert-SHA256\r\n"
    "phone-7;R5CN7;356938035643809;02-00-5E-00-53-01;Phone-7;ana;field;com.example.share;Share;1010123;"
    f"com.android.vending;{DIGEST.upper()}\r\n"
    "phone-7;R5CN7;356938035643809;02-00-5E-00-53-01;Phone-7;ana;field;com.example.chat;Chat;10124;;\r\n"
).encode()
LEAN = b"serial\tip\nS1\t192.0.2.7\nS2\t2001:DB8::7\n"
FUZZ_SEEDS = [("phones.csv", FULL), ("lean.csv", LEAN), ("quoted.csv", b'device,user\n"a ""b"", c","x\ny"\nd,e\n')]


def read(content: bytes):
    rows, quarantine = read_bytes(InventoryCsv(), content)
    assert quarantine.total == 0, quarantine.records
    return rows["inventory"]


def fits(header: str) -> bool:
    return InventoryCsv.fits(Head(path=None, content=header.encode() + b"\n"))


def names(rows):
    return {(row["device_uid"], row["identifier_kind"], row["identifier"]) for row in rows if row["identifier"]}


def test_a_list_of_apps_gives_each_app_and_the_devices_names_once():
    rows = read(FULL)
    assert names(rows) == {
        ("phone-7", "serial", "R5CN7"),
        ("phone-7", "imei", "356938035643809"),
        ("phone-7", "mac", "02:00:5e:00:53:01"),
        ("phone-7", "hostname", "phone-7"),
    }
    assert len(rows) == 6
    share, chat = [row for row in rows if row["android_package"]]
    assert (share["android_package"], share["app_label"], share["android_uid"], share["user_id"]) == (
        "com.example.share",
        "Share",
        1_010_123,
        10,
    )
    assert (share["user_name"], share["device_group"], share["signing_digest"]) == ("ana", "field", DIGEST)
    assert (chat["installer"], chat["signing_digest"], chat["position"]) == (None, None, 3)


def test_without_a_device_column_the_serial_is_the_device():
    assert names(read(LEAN)) == {
        ("S1", "serial", "S1"),
        ("S1", "ip", "192.0.2.7"),
        ("S2", "serial", "S2"),
        ("S2", "ip", "2001:db8::7"),
    }


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("device,user", True),
        ("DEVICE_ID;Mac Address", True),
        ("serial-number\tgroup", True),
        ("hostname,ip address", True),
        ("device", False),
        ("user,group", False),
        ("device,colour", False),
        ("IPProto,SrcIP,SrcPort,DstIp,DstPort,UID,App,PackageName", False),
        ("address,hwaddr,client_id,valid_lifetime,expire,subnet_id,hostname,state", False),
        ("device,user,src_ip,dst_ip,bytes", False),
        ("device,uid,set,bucket_start_s,rx_bytes,tx_bytes", False),
        ("time,device,uid,event", False),
        ('{"device": "x", "user": "y"}', False),
    ],
)
def test_only_lists_of_devices_are_claimed(header, known):
    assert fits(header) is known


def test_values_that_say_nothing_are_no_names_and_masked_ones_are_left_out():
    rows = read(b"device,serial,imei,mac,user\nd1,unknown,0,02:00:00:00:00:00,N/A\n")
    assert names(rows) == set()
    assert [row["device_uid"] for row in rows] == ["d1"]


def test_an_address_holds_for_the_time_the_line_says():
    (row,) = read(b"device,ip,valid from,valid to\nd1,192.0.2.7,2023-11-14T22:13:20Z,2023-11-15 08:00\n")
    assert row["valid_from"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert row["valid_to"] == datetime(2023, 11, 15, 8, tzinfo=UTC)
    assert row["clock_skew_bound_s"] == 14 * 3600


def test_damaged_lines_are_put_aside_and_counted(tmp_path):
    content = b"device,ip,uid\nd1,192.0.2.7,10001\nd2,here,\nd3,,many\n,192.0.2.8,\nd4\n"
    (tmp_path / "list.csv").write_bytes(content)
    rows, quarantine, tally, unknown = mutations.read_path(tmp_path)
    assert not unknown
    assert [q.position for q in quarantine.records] == ["line 3", "line 4", "line 5", "line 6"]
    assert (tally.records, tally.with_rows) == (5, 1)
    mutations.assert_accounted(quarantine, tally)
    assert sum(part.rows.num_rows for part in rows) == 2


def test_a_stray_quote_costs_its_own_line_only():
    content = b'device,user\nd1,"ana\nd2,bo\nd3,di\n'
    rows, quarantine = read_bytes(InventoryCsv(), content)
    assert [q.position for q in quarantine.records] == ["line 2"]
    assert [(row["device_uid"], row["user_name"]) for row in rows["inventory"]] == [("d2", "bo"), ("d3", "di")]


def test_a_quoted_field_may_hold_delimiters_quotes_and_line_ends():
    rows = read(b'device,user,detail\nd1,"cy ""x"", y","two\r\nlines"\nd2,di,\n')
    assert [(row["device_uid"], row["user_name"], row["position"]) for row in rows] == [
        ("d1", 'cy "x", y', 2),
        ("d2", "di", 4),
    ]


def test_what_came_before_the_damage_of_a_compressed_file_is_kept(tmp_path):
    noise = random.Random(5).randbytes(200_000).hex().encode()  # noqa: S311 - so that the damage is far behind
    stored = gzip.compress(FULL + noise)
    (tmp_path / "phones.csv.gz").write_bytes(stored[: len(stored) // 2])
    rows, quarantine, tally, _ = mutations.read_path(tmp_path)
    assert sum(part.rows.num_rows for part in rows) == 6
    mutations.assert_accounted(quarantine, tally)


TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=("L", "N")), min_size=3, max_size=12)
VALUES = st.fixed_dictionaries(
    {
        "device_uid": TEXT,
        "android_package": st.none() | TEXT,
        "user_name": st.none() | TEXT,
        "app_label": st.none() | TEXT,
        "installer": st.none() | TEXT,
        "detail": st.none() | TEXT.map(lambda text: f'{text}, "{text}"; x'),
        "android_uid": st.none() | st.integers(0, 2**31 - 1),
        "signing_digest": st.none() | st.just(DIGEST),
    }
)
NAMES = st.one_of(
    st.tuples(st.just("ip"), st.ip_addresses().map(str).map(canonical_address)),
    st.tuples(st.just("imei"), st.integers(10**14, 10**15 - 1).map(str)),
    st.tuples(st.just("mac"), st.integers(1, 255).map(lambda n: f"02:00:5e:00:53:{n:02x}")),
    st.tuples(st.just("serial"), TEXT),
    st.tuples(st.just("mdm_id"), TEXT.map("intune:{}".format)),
)
KEPT = [
    "device_uid", "android_package", "user_name", "app_label", "installer", "detail", "android_uid", "signing_digest",
    "identifier_kind", "identifier", "valid_from", "valid_to",
]  # fmt: skip
NOTHING = {"0", "-", "na", "nan", "none", "null", "n/a", "unknown", "undefined", "unavailable"}


def sane(value: object) -> bool:
    return value is None or (str(value).lower() not in NOTHING and bool(set(str(value)) - set("0-")))


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=8), st.lists(st.tuples(TEXT, NAMES), max_size=8, unique=True))
def test_what_is_written_is_read_back(tmp_path_factory, apps, given_names):
    apps = [row for row in apps if all(sane(v) for v in row.values()) and any(list(row.values())[1:])]
    given_names = [(d, (k, n)) for d, (k, n) in given_names if sane(d) and sane(n) and n != "::"]
    rows = apps + [{"device_uid": d, "identifier_kind": k, "identifier": n} for d, (k, n) in given_names]
    columns = {name: [row.get(name) for row in rows] for name in KEPT if any(row.get(name) for row in rows)}
    fixed = {"source": "x", "position": 1, "clock": "sensor"}
    folder = tmp_path_factory.mktemp("written")
    written = write_inventory_csv([batch("inventory", {**columns, **fixed}, length=len(rows))] if rows else [], folder)
    back = read(written[0].read_bytes())
    assert [[row[name] for name in KEPT] for row in back] == [[row.get(name) for name in KEPT] for row in rows]


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(10)  # noqa: S311 - a repeatable test
    for name, content in FUZZ_SEEDS:
        for number in range(100):
            mutations.assert_survives(tmp_path / str(number), name, mutations.mutate(content, rng))
