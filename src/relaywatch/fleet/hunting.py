"""A hunt of a fleet: executors sieve, Spark fetches the rows of what they found, the driver judges these as a file."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from relaywatch.engines.intake import Intake, without_allowed
from relaywatch.engines.local import AskInstalls, Hunt, findings_of, judge
from relaywatch.engines.view import View
from relaywatch.fleet import columns
from relaywatch.fleet.installs import installs_of
from relaywatch.fleet.sieve import RESULT_SQL, AppDay, Told, sieve
from relaywatch.fleet.whole_rows import from_bytes
from relaywatch.model.destination_list import DestinationList
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import Batch, TableName
from relaywatch.outputs.kept import KeptFindings
from relaywatch.sources.canonical import CanonicalParquet, fitted

KEYS: Final = ("day", "device", "package", "uid")
_KEYS: Final = pa.schema([("day", pa.int32()), ("device", pa.int64()), ("package", pa.int64()), ("uid", pa.int32())])
_FLOW: Final = pa.schema([("device", pa.int64()), ("origin", pa.int64()), ("flow_id", pa.int64())])


@dataclass(frozen=True, slots=True)
class Account:
    """What a hunt of a fleet read and judged.

    judged: app-days by day since epoch; rows: of flows and volumes; unfit: rows that do not fit the schema, left out;
    duplicates, unused: as in a hunt of files; silent, counted: app-days that could not be judged, having no byte
    counts, or no connection seen; late: rows that came when their day was over.
    """

    judged: Mapping[int, int]
    rows: Mapping[str, int]
    unfit: int
    duplicates: int
    unused: int
    silent: int
    counted: int
    late: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FleetResult:
    """Findings, gravest and most certain first, and what was read."""

    findings: KeptFindings
    account: Account


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet's telemetry: canonical tables as Spark DataFrames, of one kind of source and under one name a device.

    formats: name of the format by source, where it is known.
    """

    flows: DataFrame
    volumes: DataFrame | None = None
    signals: DataFrame | None = None
    inventory: DataFrame | None = None
    formats: Mapping[str, str] = field(default_factory=dict)

    def canonical(self, allowed: DestinationList) -> Fleet:
        """Flows and volumes in the canonical schema, without flows dialled to allowed destinations.

        Raises RelaywatchError where a required column is missing.
        """
        flows = columns.canonical(self.flows, "flows")
        if allowed:
            flows = flows.mapInArrow(_not_allowed(allowed), flows.schema)
        volumes = None if self.volumes is None else columns.canonical(self.volumes, "volumes")
        return replace(self, flows=flows, volumes=volumes)


def hunt(spark: SparkSession, fleet: Fleet, plan: Hunt, partitions: int | None = None) -> FleetResult:
    """Judge every app's day of a fleet: the findings of a hunt of the same rows as files.

    partitions: tasks that judge; None leaves it to adaptive execution. Raises RelaywatchError where a table lacks a
    required column.
    """
    started = time.monotonic()
    sound = fleet.canonical(plan.settings.allowed_destinations)
    words = columns.packed(sound.flows, sound.volumes)
    place = (sql.col("device"), sql.col("uid_day").bitwiseAND(0xFFFF_FFFF))
    parted = words.repartition(*place) if partitions is None else words.repartition(partitions, *place)
    told = parted.mapInArrow(sieve(plan.settings, plan.tables), RESULT_SQL).toArrow()
    found = told_in(told)
    found.rows = rows_of(spark, sound, found.cases)
    context, names = context_of(spark, sound.signals, sound.inventory, found.devices())
    ask = partial(installs_of, spark, sound.flows, names=names)
    findings = conclude([*found.rows, *context], found.judged, plan, sound.formats, ask)
    return FleetResult(findings, account_of(found, started))


@dataclass(slots=True)
class Found:
    """What sieves told: cases by their keys or with their rows, apps judged by day, counts of the others."""

    cases: set[AppDay] = field(default_factory=set)
    rows: list[Batch] = field(default_factory=list)
    judged: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def devices(self) -> set[str]:
        """Names of the devices whose rows are here."""
        return {name for batch in self.rows for name in batch.rows["device_uid"].unique().to_pylist()}


_ROWS_OF: Final[Mapping[str, TableName]] = {Told.CASE_FLOWS: "flows", Told.CASE_VOLUMES: "volumes"}


def told_in(told: pa.Table) -> Found:
    """What rows of sieve.RESULT tell."""
    found = Found()
    columns_of = (told[name].to_pylist() for name in told.column_names)
    for what, day, device, package, uid, number, content in zip(*columns_of, strict=True):
        if what == Told.CASE:
            found.cases.add(AppDay(day, device, package, uid))
        elif what in _ROWS_OF:
            found.rows += _batches(_ROWS_OF[what], from_bytes(content))
        elif what == Told.JUDGED:
            found.judged[day] += number
        else:
            found.counts[what] += number
    return found


def account_of(found: Found, started: float) -> Account:
    """The account of what sieves told. started: monotonic clock, s, at which the hunt began."""
    counts = found.counts
    return Account(
        judged=dict(sorted(found.judged.items())),
        rows={str(name): counts[name] for name in (Told.FLOWS, Told.VOLUMES)},
        unfit=counts[Told.UNFIT],
        duplicates=counts[Told.DUPLICATES],
        unused=counts[Told.UNUSED],
        silent=counts[Told.SILENT],
        counted=counts[Told.COUNTED],
        late=counts[Told.LATE_FLOWS] + counts[Told.LATE_VOLUMES],
        seconds=time.monotonic() - started,
    )


def rows_of(spark: SparkSession, fleet: Fleet, cases: set[AppDay]) -> list[Batch]:
    """The flows of the cases and these flows' volumes."""
    if not cases:
        return []
    keys = sql.broadcast(spark.createDataFrame(pa.Table.from_pylist([case._asdict() for case in cases], _KEYS)))
    named = {"day": columns.flow_day(), "device": columns.device(), "package": columns.package(), "uid": columns.uid()}
    flows = fleet.flows.where("fits").withColumns(named).join(keys, on=list(KEYS), how="left_semi")
    kept = flows.select(*TABLES["flows"].names, "device", columns.source().alias("origin")).toArrow()
    batches = _batches("flows", kept)
    if fleet.volumes is not None:
        held = fleet.volumes.where("fits").withColumns({"device": columns.device(), "origin": columns.source()})
        of = spark.createDataFrame(kept.select(_FLOW.names))
        batches += _batches("volumes", held.join(of, on=_FLOW.names, how="left_semi").toArrow())
    return batches


def context_of(
    spark: SparkSession, signals: DataFrame | None, inventory: DataFrame | None, devices: set[str]
) -> tuple[list[Batch], dict[int, str]]:
    """Signals and inventory of the devices, and the devices' names by their numbers."""
    if not devices:
        return [], {}
    named = spark.createDataFrame(pa.table({"device_uid": pa.array(sorted(devices), pa.string())}))
    batches: list[Batch] = []
    tables: tuple[tuple[TableName, DataFrame | None], ...] = (
        ("signals", signals),
        ("inventory", inventory),
    )
    for table, frame in tables:
        if frame is not None:
            rows = columns.canonical(frame, table)
            batches += _batches(table, rows.join(sql.broadcast(named), on="device_uid", how="left_semi").toArrow())
    numbers = named.select(columns.device(), "device_uid").collect()
    return batches, dict(map(tuple, numbers))


def _batches(table: TableName, rows: pa.Table) -> list[Batch]:
    """Rows in the canonical schema, as the readers of files give them."""
    own = rows.select(TABLES[table].names).combine_chunks().to_batches()
    return [fitted(table, part, 1, Path(table), Quarantine()) for part in own]


def conclude(
    rows: Sequence[Batch], judged: Mapping[int, int], plan: Hunt, formats: Mapping[str, str], ask: AskInstalls
) -> KeptFindings:
    """The findings of the rows of cases. judged: apps judged on each day in all; ask: for the fleet's installs."""
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        view = View(Intake(Path(folder), DestinationList.parse(())), Quarantine())
        for batch in rows:
            view.intake.add(batch)
        view.intake.seal()
        names = view.intake.registry.source_names()
        view.formats = {name: formats.get(name, CanonicalParquet.name) for name in names}
        found = judge(view.intake, plan)
        found.apps = Counter(judged)
        return findings_of(found, view, plan, ask)


def _not_allowed(allowed: DestinationList) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: flows without those dialled to allowed destinations."""

    def kept(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            texts = ("remote_hostname", "remote_ip")
            asked = {name: batch[name].dictionary_encode() for name in texts}
            asked |= {"direction_id": batch["direction_id"], "row": pa.array(range(batch.num_rows))}
            rows = without_allowed(pa.RecordBatch.from_pydict(asked), allowed)
            yield batch.take(rows["row"])

    return kept
