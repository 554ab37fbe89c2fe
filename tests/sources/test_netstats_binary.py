"""Android's binary netstats files: the volumes of whole uids as dumpsys netstats gives them, and nothing hostile."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import assert_accounted, assert_survives, mutate, read_path

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources import netstats_binary
from relaywatch.sources.netstats_binary import NetstatsBinary
from relaywatch.sources.reading import Reading

NAME = "uid.1653062400000-1653494400000"
START, LENGTH = 1_653_062_400_000, 7_200_000
BUCKETS = [(START, 100_000, 100, 50_000, 100), (START + LENGTH, 1_000, 10, 500, 5)]
GETPROP = "[ro.serialno]: [R58M123]\n[persist.sys.timezone]: [Europe/Berlin]\n"


def optional(text):
    return b"\0" if text is None else b"\1" + struct.pack(">H", len(text)) + text


def identities(version=7, name=b"Home", count=1):
    one = (b"\0" * 4 if version < 2 else b"") + struct.pack(">ii", 1, -1) + optional(b"310260")
    one += (optional(name) if version >= 3 else b"") + b"\1" * sum(version >= since for since in (2, 4, 5))
    one += b"\0" * (4 * (version >= 6) + 4 * (version >= 7) + 8 * (version >= 8))
    return struct.pack(">ii", version, count) + one * count


def var_long(value):
    value &= 2**64 - 1
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def array(values):
    return struct.pack(">i", len(values)) + b"".join(map(var_long, values))


def history(buckets, version=3, length=LENGTH):
    starts, received, received_packets, sent, sent_packets = zip(*buckets, strict=True) if buckets else ((),) * 5
    if version == 1:
        fixed = (struct.pack(f">i{len(c)}q", len(c), *c) for c in (starts, received, sent))
        return struct.pack(">iq", version, length) + b"".join(fixed)
    columns = [starts, received, received_packets, sent, sent_packets, [0] * len(starts)]
    if version >= 3:
        columns.insert(1, [length] * len(starts))
    return struct.pack(">iq", version, length) + b"".join(map(array, columns))


def key(uid, buckets, kind=0, tag=0, **form):
    return struct.pack(">iii", uid, kind, tag) + history(buckets, **form)


def collection(*keys, version=16, identity=None):
    return (
        struct.pack(">4sii", b"ANET", version, 1)
        + (identity or identities())
        + struct.pack(">i", len(keys))
        + b"".join(keys)
    )


FILE = collection(key(10_147, BUCKETS), key(10_147, BUCKETS[:1], kind=1), key(-5, BUCKETS[1:]), key(-4, BUCKETS[:1]))
TAGS = collection(key(10_147, BUCKETS, tag=0x1A), key(10_147, BUCKETS, tag=-1))
INTERFACES = collection(key(-1, BUCKETS, kind=-1))
FUZZ_SEEDS = [
    (NAME, FILE),
    ("uid_tag.1-2", TAGS),
    ("xt.1-2", INTERFACES),
    ("phone/netstats/uid.1-2", collection(key(1, BUCKETS, version=1), key(2, BUCKETS * 9, version=2))),
]


def read(path, device=""):
    batches, quarantine, tally, unknown = read_path(path, device)
    assert not unknown
    assert_accounted(quarantine, tally)
    return [row for part in batches if part.table == "volumes" for row in part.rows.to_pylist()], quarantine, tally


def written(tmp_path, content, name=NAME):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def brief(rows):
    return [(row["android_uid"], row["android_set"], row["bytes_in"], row["bytes_out"]) for row in rows]


def test_each_uid_has_its_bytes_in_the_background_and_in_front(tmp_path):
    rows, quarantine, tally = read(written(tmp_path, FILE), device="A1")
    assert not quarantine.total
    assert brief(rows) == [
        (10_147, "background", 96_000, 46_000),
        (10_147, "background", 600, 300),
        (10_147, "foreground", 96_000, 46_000),
        (-5, "background", 600, 300),
        (-4, "background", 96_000, 46_000),
    ]
    first, second, *_ = rows
    assert (first["start_time"].timestamp(), first["duration_us"]) == (START / 1000, LENGTH * 1000)
    assert second["start_time"].timestamp() == (START + LENGTH) / 1000
    assert (first["device_uid"], first["packets_in"], first["packets_out"], first["flow_id"]) == ("A1", 100, 100, None)
    assert [row["position"] for row in rows] == [1, 2, 3, 4, 5]
    assert tally.records == 5


def test_vpn_traffic_stays_apart(tmp_path):
    rows, _, _ = read(
        written(tmp_path, collection(key(10_147, BUCKETS[:1], kind=1001), key(1, BUCKETS[:1], kind=1002)))
    )
    assert [row["android_set"] for row in rows] == ["vpn_in", "vpn_out"]


@pytest.mark.parametrize("version", range(1, 9))
def test_every_version_of_network_identities_is_passed_over(tmp_path, version):
    content = collection(key(10_147, BUCKETS), identity=identities(version, count=2))
    rows, quarantine, _ = read(written(tmp_path, content))
    assert not quarantine.total
    assert len(rows) == 2


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_of_a_history_is_read(tmp_path, version):
    content = collection(key(7, BUCKETS, version=version), key(8, BUCKETS[:1]))
    rows, quarantine, _ = read(written(tmp_path, content))
    assert not quarantine.total
    assert [row["android_uid"] for row in rows] == [7, 7, 8]
    assert rows[0]["bytes_in"] == (100_000 if version == 1 else 96_000)


def test_tags_and_interfaces_are_left_and_say_why(tmp_path):
    for number, (content, reason) in enumerate(
        [(TAGS, "a tagged part of a uid's traffic"), (INTERFACES, "traffic of an interface, not of a uid")]
    ):
        rows, quarantine, tally = read(written(tmp_path / str(number), content))
        assert (rows, quarantine.total) == ([], 0)
        assert tally.unused == {reason: len(BUCKETS) * (2 - number)}


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("phone-3/data/misc/apexdata/com.android.tethering/netstats", "phone-3"),
        ("phone-3/data/system/netstats", "phone-3"),
        ("phone-3", "phone-3"),
    ],
)
def test_the_device_is_the_folder_that_the_phones_files_were_pulled_to(tmp_path, path, device):
    rows, _, _ = read(written(tmp_path, FILE, f"{path}/{NAME}"))
    assert {row["device_uid"] for row in rows} == {device}


def test_in_a_dump_the_files_are_of_the_dumps_phone(tmp_path):
    for name in ("uid.1-2", "xt.1-2", "uid.2-"):
        written(tmp_path, INTERFACES if name[0] == "x" else FILE, f"phone/netstats/{name}")
    written(tmp_path, GETPROP.encode(), "phone/getprop.txt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("getprop.txt", GETPROP)
        archive.writestr(f"FS/data/misc/apexdata/com.android.tethering/netstats/{NAME}", FILE)
    for place, count in ((tmp_path / "phone", 10), (written(tmp_path, buffer.getvalue(), "zip/dump.zip"), 5)):
        rows, quarantine, _ = read(place)
        assert not quarantine.total
        assert len(rows) == count
        assert {row["device_uid"] for row in rows} == {"R58M123"}


def test_a_cut_file_gives_the_whole_histories_before_the_cut(tmp_path):
    whole = len(collection(key(10_147, BUCKETS)))
    for cut in range(8, len(FILE)):
        rows, quarantine, _ = read(written(tmp_path / str(cut), FILE[:cut]))
        assert quarantine.total == 1
        assert "too early" in quarantine.records[0].reason or "cannot be" in quarantine.records[0].reason
        assert (len(rows) >= 2) == (cut >= whole)


DAMAGED = collection(
    key(1, [(START, -1, 1, 1, 1)]),
    key(2, [(START, 2**62, 1, 1, 1)]),
    key(3, [(START, 1, 2**62, 1, 1)]),
    key(4, [(2**62, 1, 1, 1, 1)]),
    key(5, [(-START, 1, 1, 1, 1)]),
    key(6, BUCKETS, length=0),
    key(7, BUCKETS, kind=9),
    key(-(2**31), BUCKETS),
    key(8, BUCKETS, length=2**60),
    key(9, BUCKETS),
)


def test_buckets_that_cannot_be_are_put_aside_and_those_around_them_count(tmp_path):
    rows, quarantine, _ = read(written(tmp_path, DAMAGED))
    assert {row["android_uid"] for row in rows} == {9}
    assert quarantine.total == 13
    assert quarantine.records[0].position == "bucket 1"


def test_columns_of_unequal_length_cost_their_history_only(tmp_path):
    odd = struct.pack(">iii", 5, 0, 0) + struct.pack(">iq", 2, LENGTH) + array([START, START]) + array([1]) * 5
    rows, quarantine, _ = read(written(tmp_path, collection(odd, key(9, BUCKETS))))
    assert {row["android_uid"] for row in rows} == {9}
    (record,) = quarantine.records
    assert "unequal length" in record.reason


def test_text_that_is_no_utf8_costs_no_bucket(tmp_path):
    rows, quarantine, _ = read(written(tmp_path, collection(key(9, BUCKETS), identity=identities(name=b"\xff\xfe"))))
    assert len(rows) == 2
    (record,) = quarantine.records
    assert (record.position, "no UTF-8" in record.reason) == ("byte 12", True)
    java = identities(name=b"a\xc0\x80b \xed\xa0\xbd\xed\xb8\x80")
    assert read(written(tmp_path / "java", collection(key(9, BUCKETS), identity=java)))[1].total == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (collection(key(9, BUCKETS), version=17), "version 17"),
        (collection(key(9, BUCKETS), identity=identities(9)), "version 9"),
        (collection(key(9, BUCKETS, version=4)), "version 4"),
        (struct.pack(">4sii", b"ANET", 16, 2**31 - 1), "cannot be"),
        (struct.pack(">4sii", b"ANET", 16, -1), "cannot be"),
        (collection(key(9, [(START, 0, 0, 0, 0)] * 100_001)), "a count of 100001"),
        (collection(struct.pack(">iiiiqi", 1, 0, 0, 3, LENGTH, 1) + b"\xff" * 60), "more than 64 bits"),
    ],
)
def test_what_cannot_be_followed_is_told_with_its_place(tmp_path, content, reason):
    rows, quarantine, _ = read(written(tmp_path, content))
    assert rows == []
    (record,) = quarantine.records
    assert reason in record.reason
    assert record.position.startswith("byte ")


def test_a_file_larger_than_any_phones_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(netstats_binary, "MOST_BYTES", len(FILE) - 1)
    rows, quarantine, _ = read(written(tmp_path, FILE))
    assert (rows, quarantine.total) == ([], 1)


def test_many_buckets_come_in_batches_with_positions_that_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(netstats_binary, "BUCKETS_AT_ONCE", 3)
    content = collection(*(key(10_000 + n, BUCKETS) for n in range(10)))
    batches, _, tally, _ = read_path(written(tmp_path, content))
    assert len(batches) > 3
    positions = [row["position"] for part in batches for row in part.rows.to_pylist()]
    assert positions == list(range(1, 21))
    assert tally.with_rows == 20


COUNT = st.integers(0, 10**15)
BUCKET = st.tuples(st.integers(0, 253_402_300_799_000), COUNT, st.integers(0, 10**12), COUNT, st.integers(0, 10**12))


@given(
    st.lists(st.tuples(st.integers(-5, 2**31 - 1), st.lists(BUCKET, max_size=5)), max_size=5), st.sampled_from([2, 3])
)
def test_what_is_written_is_what_is_read(uids, version):
    uids = [(uid, buckets) for uid, buckets in uids if uid != -1]
    content = collection(*(key(uid, buckets, version=version) for uid, buckets in uids))
    reading = Reading(Quarantine(), "A1")
    found = NetstatsBinary().read(Path("uid.1-2"), io.BytesIO(content), reading)
    rows = [row for part in found for row in part.rows.select(["android_uid", "packets_in", "bytes_out"]).to_pylist()]
    assert [tuple(row.values()) for row in rows] == [
        (uid, packets_in, max(sent - 40 * packets_out, 0))
        for uid, buckets in uids
        for _, _, packets_in, sent, packets_out in buckets
    ]
    assert not reading.quarantine.total


@given(st.binary(max_size=300))
def test_any_bytes_are_read_to_the_end(content):
    reading = Reading(Quarantine(), "A1")
    try:
        for _ in NetstatsBinary().read(Path("uid.1-2"), io.BytesIO(b"ANET\0\0\0\x10" + content), reading):
            pass
    except SourceError:
        pass
    assert_accounted(reading.quarantine, reading.tally)


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(5)  # noqa: S311  mutations, no secret
    for number in range(100):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
