"""What merging promises: both programs' traffic is in one app from one begin on, and nothing of it is lost."""

import polars as pl
import pytest
from labelled import EXAMPLES, app

from relaywatch.evaluation.merging import pairs_of, write_merged
from relaywatch.evaluation.verdicts import found_in
from relaywatch.model.finding import Verdict


def example(name, **other):
    return app(name, folder=EXAMPLES / name, **other)


RELAYS = [example("T1048"), example("T1604"), example("T1165", scenario="trojan-podcast")]
BENIGN = [example(name, label="benign") for name in ("T1051", "T1606", "T1312")]


def names(apps, most=300):
    return {merged.name for merged in pairs_of(apps, most)}


def test_relays_meet_every_benign_program_and_benign_ones_each_other():
    crossed = {f"{relay}-{name}" for relay in ("T1048", "T1604") for name in ("T1051", "T1606", "T1312")}
    assert names([*RELAYS, *BENIGN]) == crossed | {"T1051-T1606", "T1051-T1312", "T1606-T1312"}


def test_labs_are_not_mixed():
    elsewhere = [example("T1048"), example("T1051", label="benign", lab="other")]
    assert names(elsewhere) == set()


def test_a_sample_of_each_kind_is_drawn_the_same_each_time():
    drawn = pairs_of([*RELAYS, *BENIGN], most=2)
    assert [merged.first.relays for merged in drawn] == [True, True, False, False]
    assert names([*RELAYS, *BENIGN], 2) == {merged.name for merged in drawn}


@pytest.fixture
def merged(tmp_path):
    (one, *_) = pairs_of([RELAYS[0], BENIGN[0]])
    write_merged(one, tmp_path)
    return one, tmp_path / one.name


def test_no_flow_and_no_byte_is_lost_or_named_twice(merged):
    one, folder = merged
    flows = pl.read_csv(folder / "flows.csv", infer_schema_length=None)
    volumes = pl.read_parquet(folder / "bins.parquet")
    parts = [
        (pl.read_csv(own.folder / "flows.csv", infer_schema_length=None), pl.read_parquet(own.folder / "bins.parquet"))
        for own in (one.first, one.second)
    ]
    assert flows.height == flows["flow_id"].n_unique() == sum(table.height for table, _ in parts)
    for column in ("tx_payload", "rx_payload"):
        assert flows[column].sum() == sum(table[column].sum() for table, _ in parts)
    assert volumes["rx_bytes"].sum() == sum(table["rx_bytes"].sum() for _, table in parts)
    assert set(volumes["flow_id"]) <= set(flows["flow_id"])


def test_both_begin_together_and_seconds_stay_with_their_flows(merged):
    one, folder = merged
    flows = pl.read_csv(folder / "flows.csv", infer_schema_length=None)
    volumes = pl.read_parquet(folder / "bins.parquet").join(flows.select("flow_id", "start", "end"), on="flow_id")
    outside = volumes.filter(
        (pl.col("sec") < pl.col("start").floor() - 1.0) | (pl.col("sec") > pl.col("end").ceil() + 1.0)
    )
    assert outside.height == 0
    second = pl.read_csv(one.second.folder / "flows.csv", infer_schema_length=None)
    assert set(second["start"].to_list()) <= set(flows["start"].to_list())
    own = flows.filter(~pl.col("start").is_in(second["start"].to_list()))["start"].to_numpy()
    assert own.min() == pytest.approx(second["start"].to_numpy().min(), abs=120.0)


def test_a_relay_is_found_inside_the_other_program(merged):
    one, folder = merged
    assert found_in([folder])[one.name].verdict is Verdict.RELAY
