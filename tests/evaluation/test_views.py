"""What poorer telemetry promises: each kind lacks what it is named after, and what cannot prove a relay calls none."""

from collections import Counter
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled import EXAMPLES, app

from relaywatch.evaluation.views import APP, SIZES, VIEWS, View, coarse, evaluate_views, view_row
from relaywatch.model.finding import Topology, Verdict
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

ACCEPTED, TUNNEL = "T1048", "T1866"
BENIGN = ("T1126", "T1312")


def example(name, **other):
    return app(name, folder=EXAMPLES / name, **other)


APPS = [
    example(ACCEPTED),
    example(TUNNEL, topology="tunnel", family="jobagent"),
    *(example(name, label="benign", topology="", family=name) for name in BENIGN),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    unit_batches = (
        batch for unit in discover([EXAMPLES / ACCEPTED]).units for batch in unit.read(Reading(Quarantine()))
    )
    return {path.stem: pq.read_table(path) for path in export(unit_batches, ExportFormat.PARQUET, folder)}


@pytest.fixture(scope="module")
def rows():
    return {row.telemetry: row for row in evaluate_views(APPS)}


def seen(name, tables):
    (view,) = (view for view in VIEWS if view.name == name)
    return view.seen(tables)


def absent(table, columns):
    return all(table[name].null_count == len(table) for name in columns)


def test_connect_events_know_neither_sizes_nor_ends_nor_who_dialled_in(tables):
    kept = seen("connect events only", tables)
    assert set(kept) == {"flows"}
    flows = kept["flows"]
    assert set(flows["direction_id"].to_pylist()) == {Direction.OUTBOUND}
    assert 0 < len(flows) < len(tables["flows"])
    assert absent(flows, (*SIZES, "end_time"))
    assert not absent(flows, ["android_package"])


@pytest.mark.parametrize("name", ["no app identity", "totals, no app identity"])
def test_without_app_identity_no_table_names_the_app(tables, name):
    kept = seen(name, tables)
    assert all(absent(table, APP) for table in kept.values())
    assert "inventory" not in kept


def test_no_view_changes_what_it_was_given(tables):
    before = dict(tables)
    for view in VIEWS:
        for name, table in view.seen(tables).items():
            assert table.schema.equals(tables[name].schema)
    assert tables == before


def test_coarse_volumes_add_up_to_the_same_bytes(tables):
    fine, rough = (pl.DataFrame(pl.from_arrow(table)) for table in (tables["volumes"], coarse(tables["volumes"])))
    assert rough.height < fine.height
    assert rough["duration_us"].unique().to_list() == [10_000_000]
    one = ["source", "flow_id"]
    sums = [frame.group_by(one).agg(pl.col("bytes_out", "bytes_in").sum()).sort(one) for frame in (fine, rough)]
    assert sums[0].equals(sums[1])
    assert rough.group_by("source", "flow_id", "start_time").len()["len"].max() == 1


def test_a_lab_of_totals_has_every_view_too(tables):
    totals = {name: table for name, table in tables.items() if name != "volumes"}
    for view in VIEWS:
        kept = view.seen(totals)
        assert isinstance(kept["flows"], pa.Table)
        assert "volumes" not in kept


def test_what_all_fields_show_less_telemetry_claims_less(rows):
    assert rows["all fields"].relays == Counter({"relay": 2})
    assert rows["all fields"].recall.value == 1.0
    for row in rows.values():
        assert row.relays["relay"] <= rows["all fields"].relays["relay"]
        assert row.benign["relay"] == row.benign["suspected_relay"] == 0
        assert row.relays.total() == row.benign.total() == 2


def test_what_cannot_prove_a_relay_calls_none(rows):
    assert not any(row.relays["relay"] for row in rows.values() if not row.proves)
    assert rows["no app identity"].relays["suspected_relay"] == 2


def test_a_suspicion_counts_as_recall_and_its_topology_is_compared():
    def finding(name, verdict, topology):
        return SimpleNamespace(device=SimpleNamespace(uid=name), verdict=verdict, topology=topology)

    found = {
        ACCEPTED: finding(ACCEPTED, Verdict.SUSPECTED_RELAY, Topology.TUNNEL),
        TUNNEL: finding(TUNNEL, Verdict.INSUFFICIENT_TELEMETRY, Topology.ACCEPTED),
    }
    row = view_row(View("some", dict, proves=False), APPS, found)
    assert (row.recall.value, row.other_topology, row.proves) == (0.5, 1, False)
    assert row.relays == Counter({"suspected_relay": 1, "insufficient_telemetry": 1})
    assert row.benign == Counter({"none": 2})
