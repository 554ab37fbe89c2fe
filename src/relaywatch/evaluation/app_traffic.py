"""One app's traffic twice: as tables for baselines, and as the columns that the kernels see."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from relaywatch.detection.columns import FlowColumns, Ints, VolumeColumns
from relaywatch.detection.settings import Settings
from relaywatch.detection.tunnelling import volumes_of
from relaywatch.engines.arrangement import Arranged, arrange
from relaywatch.engines.intake import Intake
from relaywatch.engines.shards import SHARDS
from relaywatch.evaluation.labels import LabelledApp
from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

VOLUMES: Final = {
    "flow_id": pl.Int64,
    "second": pl.Int64,
    "bytes_out": pl.Float64,
    "bytes_in": pl.Float64,
    "packets_out": pl.Int64,
    "packets_in": pl.Int64,
}


class AppTraffic(NamedTuple):
    """Tables of one app: flows and volumes, as evaluation.baselines.baseline.Traffic says."""

    flows: pl.DataFrame
    volumes: pl.DataFrame


def read_traffic(app: LabelledApp) -> AppTraffic:
    """The app's flows and seconds of its lab files; no seconds where the trace has totals only.

    Raises SourceError where a file cannot be read as a lab's.
    """
    return AppTraffic(_table(app.folder / "flows.csv", _flows), _table(app.folder / "bins.parquet", _volumes))


def _table(path: Path, read: Callable[[Path], pl.DataFrame]) -> pl.DataFrame:
    try:
        return read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(path, f"cannot be read as a lab's table ({error}).") from error


def _flows(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema_length=None).select(
        pl.col("flow_id").cast(pl.Int64),
        pl.col("start").cast(pl.Float64),
        pl.col("end").cast(pl.Float64),
        protocol=pl.col("proto"),
        inbound=pl.col("direction") == "in",
        local_port=pl.col("local_port").cast(pl.Int64),
        remote=pl.col("remote_ip"),
        remote_port=pl.col("remote_port").cast(pl.Int64),
        hostname=pl.col("hostname").cast(pl.String),
        bytes_out=pl.col("tx_payload").cast(pl.Float64),
        bytes_in=pl.col("rx_payload").cast(pl.Float64),
        packets_out=pl.col("tx_pkts").cast(pl.Int64),
        packets_in=pl.col("rx_pkts").cast(pl.Int64),
        established=pl.col("established").cast(pl.Boolean),
    )


def _volumes(path: Path) -> pl.DataFrame:
    if not path.is_file():
        return pl.DataFrame(schema=VOLUMES)
    return pl.read_parquet(path).select(
        pl.col("flow_id").cast(pl.Int64),
        second=pl.col("sec").cast(pl.Int64),
        bytes_out=pl.col("tx_bytes").cast(pl.Float64),
        bytes_in=pl.col("rx_bytes").cast(pl.Float64),
        packets_out=pl.col("tx_pkts").cast(pl.Int64),
        packets_in=pl.col("rx_pkts").cast(pl.Int64),
    )


@dataclass(frozen=True, slots=True)
class AppColumns:
    """One app as a hunt's kernels see it: one group of flows and volumes, and the flow_id of each row."""

    app: LabelledApp
    flows: FlowColumns
    volumes: VolumeColumns
    flow_ids: Ints

    @property
    def without_volumes(self) -> AppColumns:
        """The same flows, totals only."""
        none = VolumeColumns(np.zeros(2, np.int64), np.empty(0, np.int64), *np.empty((3, 0)))
        return AppColumns(self.app, self.flows, none, self.flow_ids)

    @property
    def client_legs(self) -> Ints:
        """Rows of the flows that the label calls client legs."""
        roles = [self.app.roles.get(flow, "") for flow in self.flow_ids.tolist()]
        return np.flatnonzero(np.isin(roles, ["relay_in", "relay_tunnel"]))


def read_columns(apps: Sequence[LabelledApp]) -> Iterator[AppColumns]:
    """The columns of each app that has flows, through the readers and the arrangement of a hunt, in no order."""
    by_name = {app.name: app for app in apps}
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        intake = Intake(Path(folder), Settings().allowed_destinations)
        for unit in discover([app.folder for app in apps]).units:
            for batch in unit.read(Reading(Quarantine())):
                intake.add(batch)
        intake.seal()
        ranks = intake.registry.source_ranks()
        for shard in range(SHARDS):
            records = intake.flows.read(shard)
            if not len(records):
                continue
            arranged = arrange(records, intake.volumes.read(shard), ranks)
            keys = intake.registry.app_keys(arranged.apps)
            for number, code in enumerate(arranged.apps.tolist()):
                yield _columns(by_name[keys[code].device], arranged, number)


def _columns(app: LabelledApp, arranged: Arranged, number: int) -> AppColumns:
    low, high = arranged.flows.offsets[number : number + 2].tolist()
    own = {name: getattr(arranged.flows, name)[low:high] for name in FlowColumns._fields[1:]}
    volumes = volumes_of(arranged.flows, arranged.volumes, number)
    lines = pl.read_csv(app.folder / "flows.csv", columns=["flow_id"])["flow_id"].to_numpy()
    return AppColumns(
        app,
        FlowColumns(offsets=np.array([0, high - low], np.int64), **own),
        volumes._replace(offsets=np.array([0, len(volumes.flow)], np.int64)),
        # A lab record's position is its line, and line 1 names the columns.
        lines[arranged.records["position"][low:high] - 2].astype(np.int64),
    )
