"""What a user is promised of an import: every row that was read, once, in its partition, in order; or nothing."""

from __future__ import annotations

import errno
import itertools
import os
import signal as signals
import subprocess
import sys
import zlib
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lake_rows import (
    DAY_S,
    LEADING,
    Quiet,
    as_read,
    compacted,
    flow,
    in_lake,
    in_order,
    inventory,
    place,
    signal,
    take,
    tuples,
    volume,
    write,
)

from relaywatch.lake import compacting, importing, spill, store
from relaywatch.lake.compacting import compact
from relaywatch.lake.importing import import_telemetry
from relaywatch.lake.lake import Lake
from relaywatch.lake.layout import Partition, shard_of
from relaywatch.model.errors import LakeError, SourceError

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = st.sampled_from(["a", "z", "é", "Ä", "\U0001f600", "￿", "phone", "phone-1", ""])
SECONDS = st.integers(0, 3 * DAY_S).map(lambda s: s - s % 7_200)
FLOWS = st.builds(
    flow,
    device=TEXTS,
    start=SECONDS,
    end=st.none() | SECONDS,
    android_package=st.none() | TEXTS,
    android_uid=st.none() | st.sampled_from([-(2**31), 0, 10_100, 2**31 - 1]),
    flow_id=st.sampled_from([-(2**63), 2**63 - 1, 1]),
    source=st.sampled_from(["a", "b"]),
    position=st.integers(1, 2),
    bytes_out=st.none() | st.integers(0, 1),
    established=st.none() | st.booleans(),
    clock_skew_bound_s=st.none() | st.sampled_from([0.5, -1.0, 0.0, -0.0]),
)
VOLUMES = st.builds(
    volume,
    device=TEXTS,
    start=SECONDS,
    flow_id=st.none() | st.sampled_from([-(2**63), 2**63 - 1, 1]),
    android_set=st.none() | TEXTS,
)
PROPERTY = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def parts(root: Path) -> list[str]:
    return sorted({path.parent.relative_to(root).as_posix() for path in root.rglob("*.parquet")})


def some(tmp_path: Path, name: str, seed: int, rows: int = 40) -> Path:
    """A folder with a file of each table."""
    folder = tmp_path / name
    devices = [f"phone-{number % 7}" for number in range(rows)]
    given_flows = [
        flow(device, start=(seed * 977 + k * 7_919) % (2 * DAY_S), position=k + 1, source=f"{name}.pcap")
        for k, device in enumerate(devices)
    ]
    write(folder / "flows.parquet", "flows", given_flows)
    write(
        folder / "volumes.parquet",
        "volumes",
        [volume(device, k * 5_000, position=k + seed * 100) for k, device in enumerate(devices)],
    )
    write(
        folder / "signals.parquet",
        "signals",
        [signal(device, k, position=k + seed * 100) for k, device in enumerate(devices)],
    )
    write(
        folder / "inventory.parquet",
        "inventory",
        [inventory(device, position=k + seed * 100) for k, device in enumerate(devices)],
    )
    return folder


def test_the_lake_holds_every_row_that_the_readers_give(tmp_path):
    take(tmp_path / "lake", EXAMPLES)
    lake, read = Lake.open(tmp_path / "lake"), as_read(EXAMPLES)
    assert in_lake(lake) == read
    assert all(rows.total() for rows in read.values())
    by_source = {row[-4] for table in ("flows", "volumes", "signals") for row in read[table]}
    assert by_source <= set(lake.sources())
    assert {"lab-trace", "pcap"} & set(lake.sources().values())


@PROPERTY
@given(flows=st.lists(FLOWS, min_size=1, max_size=30), volumes=st.lists(VOLUMES, max_size=30))
def test_each_file_is_sorted_and_in_its_partition(tmp_path_factory, flows, volumes):
    folder = tmp_path_factory.mktemp("rows")
    written = [write(folder / "f.parquet", "flows", flows)]
    written += [write(folder / "v.parquet", "volumes", volumes)] if volumes else []
    take(folder / "lake", *written)
    lake = Lake.open(folder / "lake")
    assert in_lake(lake) == as_read(*written)
    for table in ("flows", "volumes"):
        for day, shard in lake.partitions(table):
            assert lake.is_one_run(table, day, shard)
            rows = tuples(lake.read(table, day, shard))
            assert rows == sorted(rows, key=lambda row: place(table, row))
            assert lake.rows(table, day, shard) == len(rows)
            assert {zlib.crc32(row[0].encode()) % 64 for row in rows} == {shard}


def test_a_flow_lies_on_the_day_of_its_end_and_a_volume_on_that_of_its_start(tmp_path):
    late = DAY_S - 1
    rows = [
        flow(start=late, end=DAY_S, position=1),
        flow(start=late, end=None, position=2),
        flow(start=DAY_S, end=late, position=3),  # ends before it starts: the end is not believed
    ]
    take(
        tmp_path / "lake",
        write(tmp_path / "f.parquet", "flows", rows),
        write(tmp_path / "v.parquet", "volumes", [volume(start=late)]),
    )
    lake = Lake.open(tmp_path / "lake")
    found = {
        (day, row[-3]) for day, shard in lake.partitions("flows") for row in tuples(lake.read("flows", day, shard))
    }
    assert found == {(date(2026, 1, 2), 1), (date(2026, 1, 1), 2), (date(2026, 1, 2), 3)}
    assert lake.partitions("volumes") == [(date(2026, 1, 1), shard_of("phone-1"))]
    assert lake.days() == [date(2026, 1, 1), date(2026, 1, 2)]


def test_shards_never_change_for_lakes_that_exist():
    assert [shard_of(name) for name in ("phone-1", "phone-2", "Телефон", "")] == [16, 42, 27, 0]


def test_folders_carry_hive_keys_and_files_say_how_they_are_sorted(tmp_path):
    take(tmp_path / "lake", some(tmp_path, "one", 1))
    for folder in parts(tmp_path / "lake"):
        assert Partition.holding(f"{folder}/00000001-0000.parquet").folder == folder
    assert "inventory" in parts(tmp_path / "lake")
    path = next((tmp_path / "lake" / "flows").rglob("*.parquet"))
    assert path.relative_to(tmp_path / "lake").parts[1].startswith("day=2026-01-0")
    group = pq.read_metadata(path).row_group(0)
    names = [group.column(number).path_in_schema for number in range(group.num_columns)]
    assert [names[column.column_index] for column in group.sorting_columns] == list(LEADING["flows"])
    assert group.column(0).statistics.has_min_max and group.column(0).has_column_index


def test_the_same_content_is_taken_once(tmp_path, run):
    one = some(tmp_path, "one", 1)
    take(tmp_path / "lake", one)
    before = in_order(Lake.open(tmp_path / "lake"))
    copy = tmp_path / "copy.parquet"
    copy.write_bytes((one / "flows.parquet").read_bytes())
    status, out, _ = run("lake", "import", one, copy, "--lake", tmp_path / "lake")
    assert (status, "5 source files in the lake already" in out) == (0, True)
    assert in_order(Lake.open(tmp_path / "lake")) == before


def test_two_copies_in_one_import_are_taken_once(tmp_path):
    one = write(tmp_path / "a.parquet", "flows", [flow()])
    other = write(tmp_path / "b.parquet", "flows", [flow()])
    account = take(tmp_path / "lake", one, other)
    assert (len(account.imported), account.known) == (1, [other])


@PROPERTY
@given(
    rows=st.lists(FLOWS, min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    later=st.integers(0, 5),
    kept=st.integers(1, 9),
)
def test_any_split_into_files_and_imports_gives_the_same_lake(tmp_path_factory, rows, cuts, later, kept):
    folder = tmp_path_factory.mktemp("split")
    take(folder / "whole", write(folder / "whole.parquet", "flows", rows))
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    pieces = [rows[a:b] for a, b in itertools.pairwise(bounds) if a < b]
    files = [write(folder / f"{k}.parquet", "flows", piece) for k, piece in enumerate(pieces)]
    for group in (files[later:], files[:later]):
        if group:
            take(folder / "parts", *group)
    whole = in_order(compacted(folder / "whole"))
    with pytest.MonkeyPatch.context() as patch:  # few rows held, so that merging goes step by step
        patch.setattr(compacting, "MERGED_ROWS", kept)
        patch.setattr(compacting, "FEWEST_ROWS", kept % 3 + 1)
        patch.setattr(compacting, "MOST_FILES", 2)
        assert in_order(compacted(folder / "parts")) == whole
    for key, held in whole.items():
        if held:
            assert held == sorted(set(held), key=lambda row: place(key.split()[0], row))


def test_a_shard_beyond_memory_becomes_several_runs_that_compaction_joins(tmp_path, monkeypatch):
    rows = [flow("phone-1", start=k * 997 % DAY_S, position=k + 1) for k in range(100)]
    path = write(tmp_path / "f.parquet", "flows", rows)
    take(tmp_path / "whole", path)
    monkeypatch.setattr(spill, "CHUNK_ROWS", 10)
    monkeypatch.setattr(spill, "RUN_ROWS", 30)
    monkeypatch.setattr("relaywatch.sources.canonical.ROWS", 10)
    account = take(tmp_path / "lake", path)
    assert account.files == 4
    assert in_order(compacted(tmp_path / "lake")) == in_order(Lake.open(tmp_path / "whole"))


def test_many_rows_come_in_row_groups_that_hold_only_their_own_names(tmp_path, monkeypatch):
    monkeypatch.setattr("relaywatch.lake.files.ROW_GROUP", 10)
    rows = [flow("phone-1", start=k, position=k + 1, remote_hostname=f"h{k}.example") for k in range(35)]
    take(tmp_path / "lake", write(tmp_path / "f.parquet", "flows", rows))
    (path,) = (tmp_path / "lake" / "flows").rglob("*.parquet")
    with pq.ParquetFile(path, read_dictionary=["remote_hostname"]) as file:
        assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [10, 10, 10, 5]
        for k in range(file.num_row_groups):
            assert len(file.read_row_group(k)["remote_hostname"].chunk(0).dictionary) <= 10


def test_damaged_records_are_put_aside_and_the_others_kept(tmp_path, run):
    good = write(tmp_path / "good.parquet", "flows", [flow()])
    bad = write(tmp_path / "bad.parquet", "flows", [flow(position=1), flow(position=2, bytes_out=-5)])
    status, out, err = run("lake", "import", good, bad, "--lake", tmp_path / "lake")
    assert status == 3
    assert "2 flows" in out
    assert "row 2" in err
    assert Lake.open(tmp_path / "lake").quarantined == 1


def test_a_torn_file_gives_what_precedes_the_damage(tmp_path, run):
    path = write(tmp_path / "f.parquet", "flows", [flow(position=k + 1) for k in range(50)])
    path.write_bytes(path.read_bytes()[:-300])
    status, _, err = run("lake", "import", path, "--lake", tmp_path / "lake")
    assert (status, "damaged Parquet" in err) == (3, True)


class Killed(BaseException):
    """The process is gone: nothing below it may tidy up."""


STAGES = {
    "while reading": (spill.Spill, "add"),
    "before sorting": (importing._Load, "write"),
    "while writing": (importing.SortedFile, "add"),
    "before moving files": (store.Store, "publish"),
    "between moving files": (store.Path, "replace"),
    "before listing": (store, "_write"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_import_that_is_killed_leaves_the_lake_as_it_was_and_can_be_run_again(tmp_path, monkeypatch, stage, after):
    lake, first, second = tmp_path / "lake", some(tmp_path, "one", 1), some(tmp_path, "two", 2)
    take(lake, first)
    before = in_order(Lake.open(lake))
    with monkeypatch.context() as patch:
        _killed_at(patch, *STAGES[stage], after)
        try:
            take(lake, second)
            killed = False
        except Killed:
            killed = True
    if killed:
        assert in_order(Lake.open(lake)) == before
    assert killed or after  # each stage is met at least once
    take(lake, first, second)
    take(tmp_path / "whole", first, second)
    assert in_lake(Lake.open(lake)) == in_lake(Lake.open(tmp_path / "whole"))
    listed = {file.path for file in store.read_manifest(lake).files}
    assert {path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")} == listed
    assert not (lake / ".staging").exists()


def _killed_at(patch, owner, name, after):
    """Let a function be called `after` times, and then the process end."""
    whole, calls = getattr(owner, name), itertools.count()

    def call(*arguments, **more):
        if next(calls) >= after:
            raise Killed
        return whole(*arguments, **more)

    patch.setattr(owner, name, call)
    patch.setattr(store.shutil, "rmtree", lambda *_, **__: None)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_compaction_that_is_killed_loses_nothing(tmp_path, monkeypatch, after):
    lake = tmp_path / "lake"
    for k in (1, 2):
        take(lake, some(tmp_path, f"part{k}", k))
    rows = in_lake(Lake.open(lake))
    for owner, name in ((store, "_write"), (store.Path, "replace"), (store.Path, "unlink")):
        with monkeypatch.context() as patch:
            _killed_at(patch, owner, name, after)
            try:
                compact(lake, Quiet())
            except Killed:
                assert in_lake(Lake.open(lake)) == rows
    assert in_lake(compacted(lake)) == rows
    take(lake, write(tmp_path / "more.parquet", "flows", [flow(position=999)]))
    listed = {file.path for file in store.read_manifest(lake).files}
    assert {path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")} == listed


def test_kill_9_in_the_midst_of_publishing(tmp_path):
    lake, one = tmp_path / "lake", some(tmp_path, "one", 1)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from relaywatch.cli import main; from relaywatch.lake import store\n"
        "write = store._write\n"
        "def killed(path, document):\n"
        "    if document.get('imported'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(path, document)\n"
        "store._write = killed\n"
        f"sys.argv = ['relaywatch', 'lake', 'import', {str(one)!r}, '--lake', {str(lake)!r}]\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=120, env=os.environ)
    assert ended.returncode == -signals.SIGKILL
    assert in_lake(Lake.open(lake))["flows"].total() == 0
    assert list((lake / "flows").rglob("*.parquet"))
    take(lake, one)
    assert in_lake(Lake.open(lake)) == as_read(one)


def test_large_imports_are_published_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "LOAD_ROWS", 1)
    first, second = some(tmp_path, "one", 1), some(tmp_path, "two", 2)
    with monkeypatch.context() as patch:
        _killed_at(patch, importing, "_digest", 5)
        with pytest.raises(Killed):
            take(tmp_path / "lake", first, second)
    assert len(store.read_manifest(tmp_path / "lake").imported) == 5
    account = take(tmp_path / "lake", first, second)
    assert (len(account.known), len(account.imported)) == (5, 3)
    assert in_lake(Lake.open(tmp_path / "lake")) == as_read(first, second)


@pytest.mark.parametrize("make", [take, lambda lake, _: compact(lake, Quiet())])
def test_a_full_disk_is_told_and_changes_nothing(tmp_path, monkeypatch, make):
    lake = tmp_path / "lake"
    take(lake, some(tmp_path, "one", 1))
    take(lake, some(tmp_path, "two", 2))
    rows = in_order(Lake.open(lake))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("relaywatch.lake.files.SortedFile.add", full)
        with pytest.raises(LakeError, match="No space left on device"):
            make(lake, some(tmp_path, "three", 3))
    assert in_order(Lake.open(lake)) == rows


def test_only_one_process_changes_a_lake(tmp_path):
    lake, one = tmp_path / "lake", some(tmp_path, "one", 1)
    with store.changing(lake, create=True), pytest.raises(LakeError, match="another import or compaction"):
        take(lake, one)
    take(lake, one)


@pytest.mark.parametrize("entry", ["notes.txt", "flows/day=2026-01-01/shard=01/mine.parquet"])
def test_a_folder_that_is_no_lake_is_left_alone(tmp_path, run, entry):
    path = tmp_path / "folder" / entry
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    status, _, err = run(
        "lake", "import", write(tmp_path / "f.parquet", "flows", [flow()]), "--lake", tmp_path / "folder"
    )
    assert (status, "neither a lake nor empty" in err, path.read_text()) == (2, True, "mine")


def test_files_of_others_within_a_lake_stay(tmp_path):
    lake = tmp_path / "lake"
    take(lake, some(tmp_path, "one", 1))
    mine = lake / "flows" / "mine.parquet"
    mine.write_text("mine")
    compacted(lake)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_text("x"), "a lake is a folder"),
        (lambda path: (path.parent / "lake").symlink_to("/proc/self/nothing"), "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_a_lake_is_refused(tmp_path, make, told):
    make(tmp_path / "lake")
    with pytest.raises(LakeError, match=told):
        take(tmp_path / "lake", write(tmp_path / "f.parquet", "flows", [flow()]))


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(store, "_write", refused)
    with pytest.raises(LakeError, match="Read-only file system"):
        take(tmp_path / "lake", write(tmp_path / "f.parquet", "flows", [flow()]))


def test_the_lake_itself_is_no_source(tmp_path):
    lake = tmp_path / "lake"
    take(lake, some(tmp_path, "one", 1))
    with pytest.raises(LakeError, match="in the lake itself"):
        import_telemetry([lake / "flows"], lake, "", Quiet())


def test_nothing_to_read_makes_no_lake(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError):
        take(tmp_path / "lake", tmp_path / "empty")
    assert not (tmp_path / "lake").exists()


def test_progress_adds_up(tmp_path):
    one, watcher = some(tmp_path, "one", 1), Quiet()
    import_telemetry([one], tmp_path / "lake", "", watcher)
    assert watcher.told["written"] == watcher.told["to write"] > 0
    assert watcher.told["read"] >= watcher.told["to read"] == sum(p.stat().st_size for p in one.iterdir())
    again = Quiet()
    import_telemetry([one], tmp_path / "lake", "", again)  # all known, and so passed over
    assert again.told["read"] == again.told["to read"] == watcher.told["to read"]


def test_the_word_for_the_device_reaches_formats_without_one(tmp_path):
    capture = next(path for path in sorted(EXAMPLES.rglob("*.pcap*")) if path.is_file())
    take(tmp_path / "lake", capture, device="phone-9")
    assert set().union(*Lake.open(tmp_path / "lake").devices()) == {"phone-9"}
