"""Flows that a sensor saw outside a translator (NAT), under the inside address that the translator's log names.

From there on they are as those of a sensor inside: whoever had the address is the device, and the port is its own.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.engines import shards
from relaywatch.engines.names import Names
from relaywatch.engines.records import FLOW, VOLUME, Records, Registry
from relaywatch.engines.shards import ShardedTable
from relaywatch.engines.tables import Tables
from relaywatch.identity.translations import NOBODY, behind
from relaywatch.model.schemas import SignalKind

MOST_TRANSLATIONS: Final = 5_000_000
"""Translations that are remembered of addresses that sensors saw; later ones are not used."""
_PROTOCOLS: Final = {"tcp": 6, "udp": 17}


def translate(tables: Tables, registry: Registry, names: Names) -> int:
    """Bring sensors' flows, with their volumes, under inside addresses and ports; how many flows.

    The translations themselves are dropped from the signals: they say nothing more.
    """
    logged = _logged(tables.signals)
    if logged.is_empty():
        return 0
    moves = _Moves(_book(logged, registry, names), registry)
    tables.rewrite(moves.change)
    return moves.count


def _logged(signals: ShardedTable) -> pl.DataFrame:
    """The translations among the signals."""
    parts, count = [], 0
    for shard in range(shards.SHARDS):
        records = signals.read(shard)
        found = records[records["kind"] == SignalKind.TRANSLATION]
        if count < MOST_TRANSLATIONS and len(found):
            parts.append(pl.DataFrame({n: found[n] for n in ("device", "local_port", "start", "end", "detail")}))
            count += len(found)
    return pl.concat(parts) if parts else pl.DataFrame()


def _book(logged: pl.DataFrame, registry: Registry, names: Names) -> pl.DataFrame:
    """device, port, outside, begin and end of the translations to addresses that are the device of some record."""
    texts = names.texts(logged["detail"].unique().to_numpy())
    told = pl.DataFrame({"detail": list(texts), "text": list(texts.values())}, {"detail": pl.UInt64, "text": pl.String})
    parts = told["text"].str.splitn(" ", 3).struct.unnest()
    met = pl.DataFrame(
        {"address": list(registry.devices), "code": list(registry.devices.values())},
        {"address": pl.String, "code": pl.Int64},
    )
    outside = told.select(
        "detail",
        parts["field_0"].replace_strict(_PROTOCOLS, default=None, return_dtype=pl.Int64).alias("protocol"),
        parts["field_1"].alias("address"),
        parts["field_2"].cast(pl.UInt16, strict=False).cast(pl.Int64).alias("outside_port"),
    ).join(met, on="address")
    return (
        logged.join(outside.drop_nulls(), on="detail")
        .select(
            "device",
            pl.col("local_port").alias("port"),
            _outside(pl.col("code"), pl.col("protocol"), pl.col("outside_port")).alias("outside"),
            pl.col("start").alias("begin"),
            pl.when(pl.col("end") >= 0).then("end").alias("end"),
        )
        .sort(pl.all())
    )


def _outside(device: Any, protocol: Any, port: Any) -> Any:  # noqa: ANN401 - columns of Polars, or of NumPy
    """One number for an outside end."""
    return device * (1 << 24) + protocol * (1 << 16) + port


class _Moves:
    """Changes records, flows before volumes."""

    def __init__(self, book: pl.DataFrame, registry: Registry) -> None:
        self._book, self._registry = book, registry
        self._outside = np.unique(book["outside"].to_numpy() >> 24).astype(np.uint32)
        self._moved: list[pl.DataFrame] = []
        self.count = 0

    def change(self, records: Records) -> Records:
        """The records of a shard as they should be."""
        if records.dtype == FLOW:
            return self._flows(records)
        if records.dtype == VOLUME:
            return self._volumes(records)
        others: Records = records[records["kind"] != SignalKind.TRANSLATION]
        return others

    def _flows(self, records: Records) -> Records:
        rows = np.flatnonzero(np.isin(records["device"], self._outside))
        ends = (records[name][rows].astype(np.int64) for name in ("device", "protocol", "local_port"))
        held = behind(_outside(*ends), records["start"][rows], self._book)
        rows, held = rows[held != NOBODY], held[held != NOBODY]
        if len(rows):
            inside = self._book["device"].to_numpy()[held]
            self._moved.append(
                pl.DataFrame({"source": records["source"][rows], "flow_id": records["flow_id"][rows], "device": inside})
            )
            records["local_port"][rows] = self._book["port"].to_numpy()[held]
            self._move(records, rows, inside)
            self.count += len(rows)
        return records

    def _volumes(self, records: Records) -> Records:
        if self._moved:
            keys = pl.DataFrame({"source": records["source"], "flow_id": records["flow_id"]})
            moved = pl.concat(self._moved).unique(["source", "flow_id"], keep="first")
            found = keys.join(moved, on=["source", "flow_id"], how="left", maintain_order="left")["device"]
            rows = np.flatnonzero(found.is_not_null().to_numpy() & np.isin(records["device"], self._outside))
            self._move(records, rows, found.fill_null(0).to_numpy()[rows])
        return records

    def _move(self, records: Records, rows: npt.NDArray[np.int64], devices: npt.NDArray[np.uint32]) -> None:
        packages, uids = self._registry.app_parts(records["app"][rows])
        records["app"][rows] = self._registry.app_codes(devices, packages, uids)
        records["device"][rows] = devices
