"""A fleet's stream on Spark: the findings of files, each row judged once, whatever stops it in between."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'relaywatch[spark]'")

import spark_fleets

from relaywatch.fleet.session import files_of, read
from relaywatch.fleet.streaming import Stream, conclude_stream, end, start
from relaywatch.model.errors import RelaywatchError
from relaywatch.simulation.plan import Plan

PATIENCE_S = 90.0
SMALL = Plan(devices=6, flows=6_000, days=1, seed=8, relays=0.03, volumes=0.5, signals=0.5)


def arrive(tables, folder, name, part, parts):
    """One of some files that hold the tables' rows; it appears when it is whole."""
    for table in ("flows", "volumes"):
        rows = tables[table].slice(part * len(tables[table]) // parts, len(tables[table]) // parts + 1)
        end_of = (part + 1) * len(tables[table]) // parts - part * len(tables[table]) // parts
        into = folder / table
        into.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows.slice(0, end_of)).write_parquet(into / f".{name}")
        (into / f".{name}").rename(into / f"{name}.parquet")


def go_on(spark, folder, stream):
    """Take in what is there."""
    frames = (files_of(spark, str(folder / table), table) for table in ("flows", "volumes"))
    start(spark, *frames, spark_fleets.PLAN, stream, once=True).awaitTermination()


def concluded(spark, stream, folder):
    context = (read(spark, [str(folder / f"{table}.parquet")]) for table in ("signals", "inventory"))
    return conclude_stream(spark, stream, spark_fleets.PLAN, *context)


def wait_for(path: Path, process):
    until = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert process.poll() is None, process.stderr.read().decode()[-2_000:]
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.1)


def test_a_stream_whose_driver_is_killed_gives_the_findings_of_a_hunt_of_files(spark, tmp_path):
    whole = spark_fleets.written(tables := spark_fleets.simulated(SMALL), tmp_path / "whole")
    stream, come = Stream(str(tmp_path / "out"), shards=3), tmp_path / "come"
    arrive(tables, come, "a", 0, 2)
    inputs = [f"--{table}={come / table}" for table in ("flows", "volumes")]
    command = [sys.executable, "-m", "relaywatch", "spark", "stream", f"--out={stream.out}", "--shards=3", *inputs]
    conf = ["--master=local[2]", "--conf=spark.sql.shuffle.partitions=1"]
    with subprocess.Popen([*command, *conf], stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            wait_for(tmp_path / "out" / "candidates" / "batch=0" / "_SUCCESS", process)
            arrive(tables, come, "b", 1, 2)
            wait_for(tmp_path / "out" / "checkpoint" / "offsets" / "1", process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    end(spark, stream)
    go_on(spark, come, stream)
    here, there = spark_fleets.local(whole), concluded(spark, stream, whole)
    assert there.findings == here.findings
    assert there.findings
    assert there.account.rows == {table: len(tables[table]) for table in ("flows", "volumes")}
    assert there.account.late == 0

    # What comes of a day that was judged is late: counted and kept, and changes nothing.
    arrive(tables, come, "again", 0, 2)
    go_on(spark, come, stream)
    after = concluded(spark, stream, whole)
    assert after.findings == here.findings
    assert after.account.late == len(tables["flows"]) // 2 + len(tables["volumes"]) // 2


def test_a_stream_is_not_gone_on_with_by_another_plan(spark, tmp_path):
    Stream(str(tmp_path), shards=2).settle(spark)
    with pytest.raises(RelaywatchError, match="2 shards"):
        Stream(str(tmp_path), shards=3).settle(spark)


def test_concluding_where_no_stream_was_says_so(run, spark, tmp_path):
    status, _, said = run("spark", "conclude", "--out", tmp_path)
    assert status == 2
    assert "no stream has judged anything" in said
