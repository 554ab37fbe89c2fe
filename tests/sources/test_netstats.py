"""netstats: bytes of a whole uid by bucket; tethering stays apart, tagged parts are not counted again."""

import gzip
import random

import pytest
from mutations import assert_accounted, assert_survives, mutate, read_path

HEADER = "device,uid,set,net_type,roaming,metered,bucket_start_s,bucket_s,rx_bytes,rx_pkts,tx_bytes,tx_pkts\n"
CSV = HEADER + "A1,10147,0,wifi,0,0,1653062400,7200,100000,100,50000,100\nA1,-5,1,wifi,0,0,1653069600,7200,9,0,8,0\n"
TEXT = """DUMP OF SERVICE netstats:
Active interfaces:
  iface=wlan0
Dev stats:
  ident=[{type=1}] uid=-1 set=ALL tag=0x0
    NetworkStatsHistory: bucketDuration=3600
      st=1790661600 rb=9000 rp=10 tb=900 tp=5 op=0
UID stats:
  Pending bytes: 0
  ident=[{type=1, ratType=COMBINED, wifiNetworkKey="Home"open, metered=false}] uid=10147 set=DEFAULT tag=0x0
    NetworkStatsHistory: bucketDuration=7200
      st=1790661600 rb=100000 rp=100 tb=50000 tp=100 op=0
      st=1790668800 rb=1000 rp=10 tb=500 tp=5 op=0
  ident=[{type=1}] uid=10147 set=FOREGROUND tag=0x0
    NetworkStatsHistory: bucketDuration=7200
      st=1790661600 rb=1000 rp=10 tb=500 tp=5 op=0
  ident=[{type=1}] uid=-5 set=DEFAULT tag=0x0
    NetworkStatsHistory: bucketDuration=7200
      st=1790661600 rb=1000 rp=10 tb=500 tp=5 op=0
  ident=[{type=1}] uid=10147 set=DEFAULT tag=0x1a
    NetworkStatsHistory: bucketDuration=7200
      st=1790661600 rb=10 rp=1 tb=5 tp=1 op=0
UID tag stats:
"""
OLD = """DUMP OF SERVICE netstats:
Uid stats:
  ident=[[type=WIFI]] uid=10060 set=DEFAULT tag=0x0
    NetworkStatsHistory: bucketDuration=7200000
      bucketStart=1406167200000 activeTime=7200000 rxBytes=4000 rxPackets=10 txBytes=2000 txPackets=10 operations=0
"""
FUZZ_SEEDS = [("buckets.csv", CSV.encode()), ("netstats.txt", TEXT.encode()), ("old.txt", OLD.encode())]


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    batches, quarantine, tally, unknown = read_path(path)
    assert not unknown
    assert_accounted(quarantine, tally)
    return [row for part in batches if part.table == "volumes" for row in part.rows.to_pylist()], quarantine, tally


@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())])
def test_buckets_are_volumes_of_a_whole_uid(tmp_path, pack):
    rows, _, _ = read(tmp_path, "buckets.csv", pack(CSV))
    app, tethering = rows
    assert (app["device_uid"], app["android_uid"], app["android_set"], app["flow_id"]) == (
        "A1",
        10147,
        "background",
        None,
    )
    assert (app["bytes_in"], app["bytes_out"], app["duration_us"]) == (96_000, 46_000, 7_200_000_000)
    assert app["start_time"].timestamp() == 1653062400
    assert (tethering["android_uid"], tethering["android_set"]) == (-5, "foreground")


@pytest.mark.parametrize(
    "bad",
    [
        "A1,x,0,wifi,0,0,1,7200,1,1,1,1",
        "A1,1,7,wifi,0,0,1,7200,1,1,1,1",
        "A1,1,0,wifi,0,0,1,0,1,1,1,1",
        "A1,1,0",
        "A1,1,0,w,0,0,1,7200,-1,1,1,1",
    ],
)
def test_a_damaged_bucket_is_put_aside(tmp_path, bad):
    rows, quarantine, _ = read(tmp_path, "buckets.csv", CSV + bad + "\n" + CSV.splitlines()[1] + "\n")
    assert len(rows) == 3
    assert [record.position for record in quarantine.records] == ["line 4"]


def test_dumpsys_gives_each_uid_in_the_background_and_in_front(tmp_path):
    rows, quarantine, tally = read(tmp_path, "netstats.txt", TEXT)
    assert not quarantine.total
    told = [(row["android_uid"], row["android_set"], row["bytes_in"], row["bytes_out"]) for row in rows]
    assert told == [
        (10147, "background", 96_000, 46_000),
        (10147, "background", 600, 300),
        (10147, "foreground", 600, 300),
        (-5, "background", 600, 300),
    ]
    assert {row["duration_us"] for row in rows} == {7_200_000_000}
    assert tally.unused["a tagged part of a uid's traffic"] == 1
    assert tally.unused["traffic of an interface, not of a uid"] == 1


def test_the_old_form_is_in_milliseconds(tmp_path):
    (row,), _, _ = read(tmp_path, "old.txt", OLD)
    assert (row["start_time"].timestamp(), row["duration_us"]) == (1406167200, 7_200_000_000)
    assert (row["bytes_in"], row["bytes_out"]) == (3600, 1600)


def test_hostile_variants_are_read_to_the_end(tmp_path):
    rng = random.Random(1)  # noqa: S311  mutations, no secret
    for number in range(100):
        for name, content in FUZZ_SEEDS:
            assert_survives(tmp_path / str(number), name, mutate(content, rng))
