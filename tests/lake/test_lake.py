"""What engines and other programs are promised of a lake: they read the rows they ask for, and no more."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_rows import (
    DAY_S,
    Quiet,
    as_read,
    compacted,
    flow,
    in_lake,
    inventory,
    signal,
    take,
    tuples,
    volume,
    write,
)

from relaywatch.lake import files
from relaywatch.lake.lake import Lake
from relaywatch.lake.layout import SHARDS, shard_of
from relaywatch.model.errors import LakeError
from relaywatch.model.schemas import INVENTORY, SIGNALS, TABLES

TWINS = [name for name in (f"phone-{k}" for k in range(2_000)) if shard_of(name) == shard_of("phone-1")]
"""Devices of one shard."""
DAY = date(2026, 1, 1)


@pytest.fixture
def lake(tmp_path):
    """Two imports over two days, of devices in one shard and one in another."""
    for number in (0, 1):
        folder = tmp_path / f"part{number}"
        devices = [*TWINS[:5], "phone-2"]
        rows = [
            flow(
                device,
                start=k * 40_000 + number,
                end=k * 40_000 + number + 5,
                position=k + 1,
                source=f"{number}.pcap",
                bytes_out=k,
            )
            for device in devices
            for k in range(4)
        ]
        write(folder / "f.parquet", "flows", rows)
        write(
            folder / "v.parquet",
            "volumes",
            [volume(device, k * 40_000, position=number) for device in devices for k in range(4)],
        )
        write(
            folder / "s.parquet",
            "signals",
            [signal(device, k * 40_000, position=number) for device in devices for k in range(4)],
        )
        write(folder / "i.parquet", "inventory", [inventory(device) for device in [*devices, f"phone-x{number}"]])
        take(tmp_path / "lake", folder)
    return tmp_path / "lake"


def test_partitions_are_those_with_rows(lake):
    read = Lake.open(lake)
    shards = sorted({shard_of("phone-1"), shard_of("phone-2")})
    assert read.days() == [DAY, date(2026, 1, 2)]
    assert read.partitions("flows") == [(day, shard) for day in read.days() for shard in shards]
    assert read.shards("signals") == shards
    assert read.sources() == {
        "0.pcap": "canonical-parquet",
        "1.pcap": "canonical-parquet",
        "a.pcap": "canonical-parquet",
    }


def test_columns_come_as_asked_with_the_schemas_types(lake):
    (first, *_) = Lake.open(lake).read("flows", DAY, shard_of("phone-1"), ["bytes_out", "device_uid"])
    assert first.schema.equals(pa.schema([TABLES["flows"].field(name) for name in ("bytes_out", "device_uid")]))
    (whole, *_) = Lake.open(lake).read("flows", DAY, shard_of("phone-1"))
    assert whole.schema.equals(TABLES["flows"])


def test_only_the_devices_asked_for_come(lake):
    read = Lake.open(lake)
    wanted = {TWINS[1], TWINS[4], "phone-2"}
    rows = [row for part in read.partitions("flows") for row in tuples(read.read("flows", *part, devices=wanted))]
    assert {row[0] for row in rows} == wanted
    assert len(rows) == 3 * 4 * 2
    (batch, *_) = read.read("flows", DAY, shard_of("phone-1"), ["bytes_out"], {TWINS[1]})
    assert batch.schema.names == ["bytes_out"]
    shard = shard_of("phone-1")
    assert {row[0] for row in tuples(read.signals(shard, {TWINS[0]}))} == {TWINS[0]}
    assert list(read.read("flows", DAY, shard, devices=set())) == []


def test_row_groups_of_other_devices_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROW_GROUP", 10)
    rows = [flow(device, start=k, position=k + 1) for device in TWINS[:10] for k in range(10)]
    take(tmp_path / "lake", write(tmp_path / "f.parquet", "flows", rows))
    read, groups = Lake.open(tmp_path / "lake"), []
    whole = pq.ParquetFile.read_row_group

    def counted(self, number, **more):
        groups.append(number)
        return whole(self, number, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    wanted = sorted(TWINS[:10])[3]
    assert sum(batch.num_rows for batch in read.read("flows", DAY, shard_of(wanted), devices={wanted})) == 10
    assert groups == [3]


def test_several_imports_are_one_run_after_compaction(lake):
    read, shard = Lake.open(lake), shard_of("phone-1")
    rows = tuples(read.read("flows", DAY, shard, ["device_uid", "start_time"]))
    assert not read.is_one_run("flows", DAY, shard)
    assert rows != sorted(rows)
    after = compacted(lake)
    assert after.is_one_run("flows", DAY, shard)
    assert tuples(after.read("flows", DAY, shard, ["device_uid", "start_time"])) == sorted(rows)


def test_days_are_no_part_of_signals_and_inventory(lake):
    with pytest.raises(ValueError, match="not cut by day"):
        Lake.open(lake).read("signals", DAY, 1)
    assert next(Lake.open(lake).signals(shard_of("phone-1"))).schema.equals(SIGNALS)
    assert Lake.open(lake).inventory().schema.equals(INVENTORY)


def test_compaction_drops_exact_repeats_and_says_how_many(lake, run):
    before = in_lake(Lake.open(lake))
    status, out, _ = run("lake", "compact", "--lake", lake, "--json")
    told = json.loads(out)
    after = in_lake(Lake.open(lake))
    assert status == 0
    assert {table: set(rows) for table, rows in after.items()} == {table: set(rows) for table, rows in before.items()}
    assert all(count == 1 for rows in after.values() for count in rows.values())
    dropped = sum(rows.total() for rows in before.values()) - sum(rows.total() for rows in after.values())
    assert told["repeats_dropped"] == dropped == 6  # inventory that both imports hold
    assert told["files_after"] < told["files_before"]
    status, out, _ = run("lake", "compact", "--lake", lake)
    assert "0 partitions merged" in out


def test_show_counts_what_there_is(lake, run):
    status, out, _ = run("lake", "show", "--lake", lake, "--json")
    told = json.loads(out)
    assert status == 0
    assert told["days"] == ["2026-01-01", "2026-01-02"]
    assert told["devices"] == 6 + 2  # two that only the inventory names
    assert told["tables"]["flows"]["rows"] == 48
    assert told["tables"]["flows"]["to_compact"] == told["tables"]["flows"]["files"] == 8
    assert told["tables"]["flows"]["bytes"] == sum(p.stat().st_size for p in (lake / "flows").rglob("*.parquet"))
    status, out, _ = run("lake", "show", "--lake", lake)
    assert "2 days with traffic, 8 devices" in out
    assert "relaywatch lake compact merges" in out
    compacted(lake)
    _, out, _ = run("lake", "show", "--lake", lake)
    assert "compact merges" not in out


def test_ordinary_readers_take_the_lakes_files(lake, run):
    assert as_read(lake / "flows")["flows"] == in_lake(Lake.open(lake))["flows"]
    status, _, err = run("hunt", lake / "flows", "--json")
    assert status == 0, err


def test_duckdb_queries_a_lake(lake):
    flows = f"read_parquet('{lake}/flows/**/*.parquet', hive_partitioning = true)"
    ask = duckdb.connect().sql
    assert ask(f"SELECT count(*) FROM {flows}").fetchall() == [(48,)]  # noqa: S608
    one = f"SELECT count(*), sum(bytes_out) FROM {flows} WHERE device_uid = 'phone-2' AND shard = {shard_of('phone-2')}"  # noqa: S608
    assert ask(one).fetchall() == [(8, 12)]
    day = f"SELECT count(*), count(DISTINCT shard) FROM {flows} WHERE day = DATE '2026-01-02'"  # noqa: S608
    assert ask(day).fetchall() == [(12, 2)]
    plan = ask(f"EXPLAIN ANALYZE {day}").fetchall()[0][1]
    assert "Total Files Read: 4" in plan  # of 8
    assert ask(f"SELECT * FROM {flows} LIMIT 0").columns == [*TABLES["flows"].names, "day", "shard"]  # noqa: S608


def test_polars_queries_a_lake(lake):
    flows = pl.scan_parquet(lake / "flows", hive_partitioning=True)
    assert flows.select(pl.len()).collect().item() == 48
    one = flows.filter(pl.col("device_uid") == "phone-2", pl.col("shard") == shard_of("phone-2"))
    assert one.select(pl.len(), pl.col("bytes_out").sum()).collect().row(0) == (8, 12)
    assert flows.filter(pl.col("day") == DAY).select(pl.len()).collect().item() == 36
    assert set(flows.collect_schema().names()) == {*TABLES["flows"].names, "day", "shard"}
    (lake / "flows" / "day=2026-01-02" / f"shard={shard_of('phone-2'):02d}").rename(lake / "gone")
    assert flows.filter(pl.col("day") == DAY).select(pl.len()).collect().item() == 36  # the other day is not opened


def test_an_open_lake_is_not_changed_by_an_import(lake, tmp_path):
    read = Lake.open(lake)
    before = in_lake(read)
    take(lake, write(tmp_path / "more.parquet", "flows", [flow(position=77, start=DAY_S * 9)]))
    assert in_lake(read) == before
    assert len(Lake.open(lake).days()) == 3


def test_a_file_that_is_gone_or_damaged_is_told(lake, run):
    path = next((lake / "flows").rglob("*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(LakeError, match="cannot be read"):
        in_lake(Lake.open(lake))
    status, _, err = run("lake", "compact", "--lake", lake)
    assert (status, "cannot be read" in err) == (2, True)
    path.unlink()
    with pytest.raises(LakeError, match="missing, though the lake lists it"):
        in_lake(Lake.open(lake))
    path.write_bytes(content)
    assert in_lake(Lake.open(lake))["flows"].total() == 48


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("lake.json", {"version": 2, "shards": SHARDS}, "a lake of layout 2"),
        ("lake.json", {"version": 1, "shards": 32}, "changed by hand"),
        ("lake.json", [], "no JSON object"),
        ("sources.json", {}, "damaged"),
        ("sources.json", {"change": 1, "sources": {}, "imported": [], "files": [{"path": "../x"}]}, "damaged"),
        (
            "sources.json",
            {
                "change": 1,
                "sources": {},
                "imported": [],
                "files": [{"path": "../00000001-0000.parquet", "rows": 1, "size_bytes": 1, "repeats": 0}],
            },
            "no file of a lake is called so",
        ),
    ],
)
def test_a_lake_of_another_layout_or_damaged_is_refused(lake, run, name, content, told):
    (lake / name).write_text(json.dumps(content))
    for command in (["show"], ["compact"]):
        status, _, err = run("lake", *command, "--lake", lake)
        assert (status, told in err) == (2, True), err
    assert list((lake / "flows").rglob("*.parquet"))


def test_a_lost_list_of_files_is_no_empty_lake(lake, tmp_path):
    (lake / "sources.json").unlink()
    with pytest.raises(LakeError, match=r"it has no sources\.json"):
        take(lake, write(tmp_path / "more.parquet", "flows", [flow(position=77)]))
    assert list((lake / "flows").rglob("*.parquet"))


def test_a_folder_that_is_no_lake_is_told(tmp_path, run):
    for path in (tmp_path, tmp_path / "nothing", write(tmp_path / "f.parquet", "flows", [flow()])):
        for command in ("show", "compact"):
            status, _, err = run("lake", command, "--lake", path)
            assert (status, "no lake" in err) == (2, True)
    with pytest.raises(LakeError):
        Lake.open(tmp_path)


def test_import_says_what_it_did_as_json(tmp_path, run):
    path = write(tmp_path / "f.parquet", "flows", [flow(), flow(position=2)])
    _, out, _ = run("lake", "import", path, "--lake", tmp_path / "lake", "--json")
    assert json.loads(out) == {
        "imported": [{"path": str(path), "format": "canonical-parquet", "rows": {"flows": 2}, "quarantined": 0}],
        "known": [],
        "files_written": 1,
        "quarantined": 0,
    }


def test_compaction_tells_its_progress(lake):
    from relaywatch.lake.compacting import compact

    watcher = Quiet()
    compact(lake, watcher)
    assert watcher.told["written"] == watcher.told["to write"] > 0


@pytest.fixture
def examples(lake):
    """The examples of docs/lake.md, over this lake."""
    page = (Path(__file__).parents[2] / "docs" / "lake.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(sql|python)\n(.*?)```", page, re.DOTALL)
    return [(kind, text.replace("LAKE", str(lake)).replace("phone-0000007", "phone-2")) for kind, text in blocks]


def test_the_queries_of_the_documentation_work(examples):
    (sql,) = [text for kind, text in examples if kind == "sql"]
    assert duckdb.connect().sql(sql).fetchall() == [("org.example.app", 6, 6)]
    by_polars, by_lake = [text for kind, text in examples if kind == "python"]
    told: dict[str, object] = {}
    exec(by_polars, told)  # noqa: S102
    assert told["one"].height == 8
    exec(by_lake, told)  # noqa: S102
    assert told["rows"].schema.names == ["device_uid", "bytes_out"]


def test_a_day_that_is_none_or_not_in_the_lake_is_told(lake, run):
    status, out, err = run("lake", "hunt", "--lake", lake, "--day", "2026-13-01")
    assert (status, out) == (2, "")
    assert err == "relaywatch: --day 2026-13-01: no such day. Give it as YYYY-MM-DD, as 2026-03-03.\n"
    _, _, err = run("lake", "hunt", "--lake", lake, "--day", "2026-01-01", "--day", "2026-01-09")
    assert err.startswith(
        "relaywatch: --day 2026-01-09: the lake has no traffic of this day. See relaywatch lake show.\n"
    )
    status, _, err = run("lake", "hunt", "--lake", lake, "--day", "2026-01-09")
    assert (status, "holds no telemetry of these days" in err) == (2, True)
