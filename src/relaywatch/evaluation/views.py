"""What a hunt says of labelled apps through poorer telemetry: fields and tables that other sensors do not have."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relaywatch.evaluation.labels import LabelledApp
from relaywatch.evaluation.verdicts import ALARMS, Findings, found_in, verdict_of
from relaywatch.model.estimates import Estimate, proportion
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction
from relaywatch.outputs.telemetry import ExportFormat, export
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

COARSE: Final = "10s"
APP: Final = ("android_package", "android_uid")
SIZES: Final = ("bytes_out", "bytes_in", "wire_bytes_out", "wire_bytes_in", "packets_out", "packets_in")
Tables = Mapping[str, pa.Table]
"""Canonical tables by name."""


class View(NamedTuple):
    """One kind of telemetry. seen: its tables; proves: whether they can show a relay, or raise a suspicion at most."""

    name: str
    seen: Callable[[Tables], Tables]
    proves: bool = True


@dataclass(frozen=True, slots=True)
class ViewRow:
    """One kind of telemetry: verdicts on relays and on benign apps.

    recall: relays that are called relay or suspected relay; other_topology: those of them that are called of another
    topology than their label's.
    """

    telemetry: str
    proves: bool
    recall: Estimate
    other_topology: int
    relays: Counter[str]
    benign: Counter[str]


def evaluate_views(apps: Sequence[LabelledApp]) -> list[ViewRow]:
    """A row of each of VIEWS: the apps' telemetry is written as that kind of sensor would have it, and hunted."""
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        reading = Reading(Quarantine())
        units = discover([app.folder for app in apps]).units
        paths = export((batch for unit in units for batch in unit.read(reading)), ExportFormat.PARQUET, Path(folder))
        tables = {path.stem: pq.read_table(path) for path in paths}
        return [view_row(view, apps, _hunted(view.seen(tables), Path(folder) / str(k))) for k, view in enumerate(VIEWS)]


def view_row(view: View, apps: Sequence[LabelledApp], findings: Findings) -> ViewRow:
    """The row of a view, of what was found through it."""
    relays = [app for app in apps if app.relays]
    called = [findings[app.name] for app in relays if verdict_of(findings, app) in ALARMS]
    expected = {app.name: app.topology for app in relays}
    return ViewRow(
        view.name,
        view.proves,
        proportion(len(called), len(relays)),
        sum(finding.topology != expected[finding.device.uid] for finding in called),
        Counter(verdict_of(findings, app) for app in relays),
        Counter(verdict_of(findings, app) for app in apps if not app.relays),
    )


def _hunted(tables: Tables, folder: Path) -> Findings:
    folder.mkdir()
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return found_in([folder])


def without(table: pa.Table, *columns: str) -> pa.Table:
    """The table with nulls in these columns."""
    for name in columns:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.nulls(len(table), table.schema.field(name).type))
    return table


def coarse(volumes: pa.Table) -> pa.Table:
    """Volumes of shorter intervals as volumes of COARSE."""
    frame = pl.DataFrame(pl.from_arrow(volumes)).with_columns(pl.col("start_time").dt.truncate(COARSE))
    one = ["device_uid", "source", "flow_id", "start_time"]
    summed = ["bytes_out", "bytes_in", "packets_out", "packets_in"]
    length = pl.duration(seconds=int(COARSE.removesuffix("s"))).dt.total_microseconds()
    rows = frame.group_by(one, maintain_order=True).agg(pl.col(summed).sum(), pl.exclude(*one, *summed).first())
    return rows.with_columns(duration_us=length).select(frame.columns).to_arrow().cast(volumes.schema)


def _totals(tables: Tables) -> Tables:
    return {name: table for name, table in tables.items() if name != "volumes"}


def _of_nobody(tables: Tables) -> Tables:
    return {name: without(tables[name], *APP) for name in ("flows", "volumes") if name in tables}


def _connects(tables: Tables) -> Tables:
    """Connections that the device opened: who, where to and when, as Android's network logs have them."""
    flows = tables["flows"]
    dialled = flows.filter(pc.equal(flows["direction_id"], int(Direction.OUTBOUND)))
    return {"flows": without(dialled, *SIZES, "end_time", "established")}


VIEWS: Final = (
    View("all fields", lambda tables: tables),
    View(
        "volumes of 10 s",
        lambda tables: {**tables, "volumes": coarse(tables["volumes"])} if "volumes" in tables else tables,
    ),
    View("totals only", _totals),
    View("no host names", lambda tables: {**tables, "flows": without(tables["flows"], "remote_hostname")}),
    View("no app identity", _of_nobody, proves=False),
    View("totals, no app identity", lambda tables: _of_nobody(_totals(tables)), proves=False),
    View("connect events only", _connects, proves=False),
)
"""Kinds of telemetry, richest first."""
