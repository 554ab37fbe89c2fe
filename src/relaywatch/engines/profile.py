"""What a source shows: which fields its rows hold, observed or inferred, over which time, of whom."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.engines.records import NO_UID, combined_codes
from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.summary import SourceView

FIELDS: Final[tuple[str, ...]] = (
    "app",
    "direction",
    "bytes",
    "volumes",
    "hostname",
    "local port",
    "end",
    "listener",
    "foreground",
    "interaction",
    "user",
)
"""What a judgement asks for, in the order shown; `not_observable` of a finding speaks of the same."""
MOST_HELD: Final = 1_000_000
"""Rows of who was met that are held before repeated ones are left out."""
_FLOW_FIELDS: Final = {
    "local port": "local_port",
    "end": "end_time",
    "hostname": "remote_hostname",
    "bytes": "bytes_out",
}
_INVENTORY: Final = {"user": "user_name", "package": "android_package", "digest": "signing_digest"}
_GUESSED: Final = {
    "direction": "direction_observability",
    "bytes": "bytes_observability",
    "hostname": "hostname_observability",
}
_SIGNALS: Final = {
    SignalKind.LISTENER: "listener",
    SignalKind.FOREGROUND_UI: "foreground",
    SignalKind.USER_INTERACTION: "interaction",
    SignalKind.KEYGUARD_LOCKED: "interaction",
}
SAMPLED: Final = "sampled"
"""First word of a CAPTURE's detail where its source samples packets."""
_SOME: Final = 0.05
"""Share of the rows below which a field that is there is only partly there: most sources miss a few."""


class Profile:
    """Gathers what one unit's batches show. Memory grows with its devices and apps."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._known: Counter[str] = Counter()
        self._inferred: Counter[str] = Counter()
        self._signals: set[str] = set()
        self._who_met = [pl.DataFrame(schema={"device": pl.String, "package": pl.String, "uid": pl.Int32})]
        self._most_held = MOST_HELD
        self._first: int | None = None
        self._last: int | None = None
        self._gaps = 0
        self._clock_error: float | None = None
        self._sampled = False

    def add(self, batch: Batch) -> None:
        """Take one batch in."""
        rows = batch.rows
        if not rows.num_rows:
            return
        self._rows[batch.table] += rows.num_rows
        self._who(rows)
        if batch.table == "flows":
            self._flows(rows)
        elif batch.table == "signals":
            self._kinds(rows)
        elif batch.table == "inventory":
            for name, column in _INVENTORY.items():
                self._known[name] += rows.num_rows - rows[column].null_count
        if "start_time" in rows.schema.names:
            self._span(rows)
            errors = (self._clock_error, pc.max(rows["clock_skew_bound_s"]).as_py())
            self._clock_error = max((error for error in errors if error is not None), default=None)

    def view(self) -> SourceView:
        """What was gathered."""
        flows, who = self._rows["flows"], pl.concat(self._who_met).unique()
        named = who.filter(pl.col("package").is_not_null() | (pl.col("uid") != NO_UID))
        fields = {name: self._seen(name, flows) for name in FIELDS if name in {"app", "direction", *_FLOW_FIELDS}}
        fields["volumes"] = "observed" if self._rows["volumes"] else "absent"
        fields |= {name: "observed" if name in self._signals else "absent" for name in dict.fromkeys(_SIGNALS.values())}
        fields["user"] = "observed" if self._known["user"] else "absent"
        return SourceView(
            fields={name: fields[name] for name in FIELDS},
            first=_moment(self._first),
            last=_moment(self._last),
            devices=who["device"].n_unique(),
            apps=named.height,
            gaps=self._gaps,
            clock_error_s=self._clock_error,
            sampled=self._sampled,
            packages=bool(self._known["package"]),
            digests=bool(self._known["digest"]),
        )

    def _who(self, rows: pa.RecordBatch) -> None:
        """Remember who the rows are about, each once now and then."""
        pairs, devices, packages = combined_codes(rows["device_uid"], rows["android_package"])
        uids = pc.fill_null(rows["android_uid"], NO_UID).to_numpy(zero_copy_only=False)
        met = pl.DataFrame({"pair": pairs, "uid": uids}).unique()
        place = met["pair"].to_numpy()
        names = pl.Series(devices, dtype=pl.String), pl.Series(packages, dtype=pl.String)
        self._who_met.append(
            pl.DataFrame(
                [
                    names[0].gather(place // len(packages)).alias("device"),
                    names[1].gather(place % len(packages)).alias("package"),
                    met["uid"],
                ]
            )
        )
        if sum(part.height for part in self._who_met) > self._most_held:
            self._who_met = [pl.concat(self._who_met).unique()]
            self._most_held = max(MOST_HELD, 2 * self._who_met[0].height)

    def _flows(self, rows: pa.RecordBatch) -> None:
        count = rows.num_rows
        anonymous = pc.and_(pc.is_null(rows["android_package"]), pc.is_null(rows["android_uid"]))
        self._known["app"] += count - (pc.sum(anonymous).as_py() or 0)
        for name, column in _FLOW_FIELDS.items():
            self._known[name] += count - rows[column].null_count
        self._known["direction"] += pc.sum(pc.not_equal(rows["direction_id"], 0)).as_py() or 0
        for name, column in _GUESSED.items():
            self._inferred[name] += pc.sum(pc.equal(rows[column], int(Observability.INFERRED))).as_py() or 0

    def _kinds(self, rows: pa.RecordBatch) -> None:
        kinds = np.unique(rows["kind"].to_numpy(zero_copy_only=False), return_counts=True)
        for kind, count in zip(*(part.tolist() for part in kinds), strict=True):
            self._signals.add(_SIGNALS.get(SignalKind(kind), ""))
            self._gaps += count if kind == SignalKind.LOGGING_GAP else 0
        if SignalKind.CAPTURE in kinds[0]:
            watched = rows.filter(pc.equal(rows["kind"], int(SignalKind.CAPTURE)))["detail"].unique()
            for text in filter(None, watched.to_pylist()):
                self._sampled |= text.startswith(SAMPLED)
                self._signals |= {name for kind, name in _SIGNALS.items() if kind.name in text.split()}

    def _span(self, rows: pa.RecordBatch) -> None:
        names = [name for name in ("start_time", "end_time") if name in rows.schema.names]
        bounds = [pc.min_max(rows[name].view(pa.int64())).as_py() for name in names]
        known = [value for pair in bounds for value in (pair["min"], pair["max"]) if value is not None]
        self._first = min(known if self._first is None else [self._first, *known])
        self._last = max(known if self._last is None else [self._last, *known])

    def _seen(self, name: str, flows: int) -> str:
        if not self._known[name]:
            return "absent"
        if self._known[name] < _SOME * flows:
            return "partly"
        return "inferred" if self._inferred[name] > self._known[name] / 2 else "observed"


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else datetime.fromtimestamp(microseconds / 1e6, UTC)
