"""What reading labelled traffic promises: baselines and kernels see the same flows, with the label's names for them."""

import shutil

import numpy as np
import polars as pl
import pytest
from labelled import EXAMPLES, app

from relaywatch.evaluation.app_traffic import read_columns, read_traffic
from relaywatch.model.errors import SourceError

LISTENER = EXAMPLES / "T1048"
ROLES = {0: "relay_in", 1: "relay_in"}


def listener(folder=LISTENER, **other):
    return app(folder.name, folder=folder, **other)


@pytest.fixture
def trace(tmp_path):
    return shutil.copytree(LISTENER, tmp_path / "T1048")


def columns(*apps):
    return {own.app.name: own for own in read_columns(apps)}


def test_tables_are_the_device_side_of_the_trace():
    flows, volumes = read_traffic(listener())
    first = flows.row(0, named=True)
    assert flows.height == 87
    assert (first["flow_id"], first["inbound"], first["local_port"], first["remote"]) == (
        0,
        True,
        31245,
        "198.19.81.92",
    )
    assert (first["bytes_out"], first["bytes_in"], first["packets_out"], first["packets_in"]) == (3981, 1521, 46, 45)
    assert first["established"] is True
    assert set(volumes["flow_id"]) <= set(flows["flow_id"])
    sums = volumes.group_by("flow_id").agg(pl.col("bytes_in").sum()).filter(pl.col("flow_id") == 0)
    assert sums["bytes_in"].to_list() == [1521]


def test_a_row_of_the_kernels_is_the_flow_that_its_number_names():
    (own,) = read_columns([listener()])
    flows, volumes = read_traffic(own.app)
    by_id = {row["flow_id"]: row for row in flows.iter_rows(named=True)}
    assert sorted(own.flow_ids.tolist()) == sorted(by_id)
    zero = by_id[int(own.flow_ids[0])]["start"] - own.flows.start[0]
    for row, flow in enumerate(own.flow_ids.tolist()):
        assert zero + own.flows.start[row] == pytest.approx(by_id[flow]["start"], abs=1e-5)
        assert own.flows.bytes_out[row] == by_id[flow]["bytes_out"]
        assert own.flows.inbound[row] == by_id[flow]["inbound"]
    seen = np.bincount(own.volumes.flow, own.volumes.bytes_in, flows.height)
    told = {
        row["flow_id"]: row["bytes_in"]
        for row in volumes.group_by("flow_id").agg(pl.col("bytes_in").sum()).iter_rows(named=True)
    }
    assert seen.tolist() == [told.get(flow, 0) for flow in own.flow_ids.tolist()]


def test_client_legs_are_the_labels():
    (own,) = read_columns([listener(roles=ROLES)])
    assert sorted(own.flow_ids[own.client_legs].tolist()) == [0, 1]


def test_apps_are_apart_and_each_under_its_label():
    found = columns(listener(), listener(EXAMPLES / "T1126", label="benign"))
    assert {name: len(own.flow_ids) for name, own in found.items()} == {"T1048": 87, "T1126": 1}
    assert not found["T1126"].app.relays


def test_without_volumes_the_flows_stay():
    (own,) = read_columns([listener()])
    poorer = own.without_volumes
    assert len(poorer.volumes.flow) == 0
    assert poorer.volumes.offsets.tolist() == [0, 0]
    assert poorer.flows is own.flows


def test_a_trace_of_totals_has_no_seconds(trace):
    (trace / "bins.parquet").unlink()
    flows, volumes = read_traffic(listener(trace))
    assert (flows.height, volumes.height) == (87, 0)
    (own,) = read_columns([listener(trace)])
    assert len(own.volumes.flow) == 0


def test_a_trace_whose_flows_are_only_a_head_is_left_out(trace):
    head = (trace / "flows.csv").read_text().splitlines()[0]
    (trace / "flows.csv").write_text(head + "\n")
    assert columns(listener(trace)) == {}
    assert read_traffic(listener(trace)).flows.height == 0


@pytest.mark.parametrize("damage", ["gone", "empty", "other columns"])
def test_a_trace_that_cannot_be_read_is_named(trace, damage):
    flows = trace / "flows.csv"
    if damage == "gone":
        flows.unlink()
    else:
        flows.write_text("" if damage == "empty" else "a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"flows\.csv.*cannot be read"):
        read_traffic(listener(trace))
