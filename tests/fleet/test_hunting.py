"""A fleet on Spark gives the findings of a hunt of the same rows as files, whichever way they come."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'relaywatch[spark]'")

import spark_fleets

from relaywatch.detection.settings import load
from relaywatch.fleet.hunting import hunt
from relaywatch.fleet.lakes import hunt_lake
from relaywatch.fleet.session import fleet_at
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import Direction

TRACES = Path(__file__).parents[2] / "examples" / "traces"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return spark_fleets.written(spark_fleets.simulated(), tmp_path_factory.mktemp("fleet"))


def agree(spark, folder, plan=spark_fleets.PLAN):
    """The fleet's result, which must be that of files."""
    here, there = spark_fleets.local(folder, plan), hunt(spark, fleet_at(spark, [str(folder)]), plan)
    assert there.findings == here.findings
    assert there.account.duplicates == here.summary.duplicate_flows
    return there


def test_measured_traces_give_the_findings_of_a_hunt_of_files(spark, tmp_path):
    found = agree(spark, spark_fleets.written(spark_fleets.read(TRACES), tmp_path))
    assert found.findings


def test_a_fleet_with_faults_and_a_hot_device_gives_the_findings_of_a_hunt_of_files(spark, simulated):
    found = agree(spark, simulated)
    assert len(found.findings) > 5
    assert any(finding.evidence for finding in found.findings)


def test_a_lake_gives_the_findings_of_a_hunt_of_files(spark, simulated, tmp_path, run):
    lake = tmp_path / "lake"
    assert run("lake", "import", simulated, "--lake", lake)[0] == 0
    found, here = hunt_lake(spark, lake, spark_fleets.PLAN), spark_fleets.local(simulated)
    assert found.findings == here.findings
    assert found.account.duplicates == here.summary.duplicate_flows


def test_sessions_that_no_app_is_known_for_are_judged_with_their_device(spark, simulated, tmp_path):
    def unlaid(flows):
        accepted = pl.col("direction_id") == int(Direction.INBOUND)
        names = ("android_package", "android_uid")
        return flows.with_columns(pl.when(~accepted).then(pl.col(name)).alias(name) for name in names)

    tables = spark_fleets.changed(spark_fleets.read(simulated), unlaid)
    found = agree(spark, spark_fleets.written(tables, tmp_path))
    assert any(finding.app.package is None for finding in found.findings)


def test_allowed_destinations_are_left_out_as_in_files(spark, simulated):
    before = spark_fleets.local(simulated).findings
    names = sorted({leg.name for finding in before for leg in finding.destinations if leg.name.endswith(".example")})
    settings = load(None, [f"AllowedDestinationList={','.join(names)}"])
    assert agree(spark, simulated, replace(spark_fleets.PLAN, settings=settings)).findings != before


def test_rows_that_do_not_fit_are_counted_and_left_out(spark, simulated, tmp_path):
    tables = spark_fleets.read(simulated)
    flows = pl.DataFrame(tables["flows"]).with_columns(
        pl.when(pl.int_range(pl.len()) % 1_000 == 0).then(-5).otherwise(pl.col("bytes_out")).alias("bytes_out")
    )
    folder = spark_fleets.written({**tables, "flows": flows.to_arrow()}, tmp_path)
    found = agree(spark, folder)
    assert found.account.unfit == spark_fleets.local(folder).summary.quarantine.total > 0


def test_a_table_without_a_required_column_is_refused_by_name(spark, simulated, tmp_path):
    pl.read_parquet(simulated / "flows.parquet").drop("position").write_parquet(tmp_path / "flows.parquet")
    with pytest.raises(RelaywatchError, match="no canonical table"):
        fleet_at(spark, [str(tmp_path)])
    fleet = replace(fleet_at(spark, [str(simulated)]), flows=spark.read.parquet(str(tmp_path / "flows.parquet")))
    with pytest.raises(RelaywatchError, match="position"):
        hunt(spark, fleet, spark_fleets.PLAN)


def test_the_command_writes_what_a_hunt_of_files_writes(spark, simulated, run):
    here, there = run("hunt", simulated, "--json"), run("spark", "hunt", simulated, "--json")
    assert there[:2] == here[:2]
    assert there[0] == 1


def test_a_hunt_needs_paths_or_a_lake(run):
    status, _, said = run("spark", "hunt")
    assert status == 2
    assert "--lake" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["hunt", "{0}/none.parquet"],
        ["hunt", "--lake", "{0}/none"],
        ["stream", "--out", "{0}", "--flows", "{0}/none"],
        ["conclude", "--out", "{0}/none"],
        ["conclude", "--out", "{0}", "--signals", "{0}/none.parquet"],
    ],
)
def test_what_is_not_there_is_told_before_spark_starts(run, tmp_path, monkeypatch, arguments):
    monkeypatch.setattr("relaywatch.cli.fleet._session", lambda *_: pytest.fail("Spark starts"))
    status, _, said = run("spark", *(argument.format(tmp_path) for argument in arguments))
    assert status == 2
    assert f"relaywatch: {tmp_path}/none" in said
    assert said.count("\n") == 1
