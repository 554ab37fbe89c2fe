"""Android's network events as rows: connects become flows, name look-ups signals, and look-ups name later connects.

netd's hooks see connect() and getaddrinfo() of bionic: TCP only, success and failure alike; no UDP, no accepted
session, no local port, no bytes, no end (AOSP android.app.admin.ConnectEvent, DnsEvent). All events of one log format
come here as frames with `position`, `device`, `time` (us since epoch), `package` and what the event says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import LAST_SECOND, canonical_addresses, column, text
from relaywatch.sources.reading import Reading

SKEW_BOUND_S: Final = 2.0
"""A phone's clock under network time."""
NAMES_KEPT: Final = 500_000
"""Answers remembered for naming connects."""
ANSWER_HOLDS_US: Final = 86_400_000_000
LOOPBACK: Final = r"^(?:127\.|::1$|0\.0\.0\.0$|::$)"
_SHARED: Final = r"^[^:/\s]+:(\d{4,10})$"
"""PackageManager.getNameForUid of a uid that several packages share: the shared user id, a colon, the uid."""


class EventNames:
    """Host names by device, package and address, as far as they were looked up before a connect."""

    def __init__(self) -> None:
        schema = {
            "time": pl.Int64,
            "device": pl.String,
            "package": pl.String,
            "address": pl.String,
            "hostname": pl.String,
        }
        self._known = pl.DataFrame(schema=schema)

    def add(self, answers: pl.DataFrame) -> None:
        """Take answers: time, device, package, address, hostname."""
        both = pl.concat([self._known, answers.select(self._known.columns).drop_nulls()])
        self._known = both.sort("time", maintain_order=True).tail(NAMES_KEPT)

    def of(self, connects: pl.DataFrame) -> pl.Series:
        """The name of each connect (time, device, package, address); null where none was looked up within a day."""
        asked = connects.select("time", "device", "package", "address").with_row_index("row").sort("time")
        found = asked.join_asof(
            self._known,
            on="time",
            by=["device", "package", "address"],
            tolerance=ANSWER_HOLDS_US,
            check_sortedness=False,
        )
        return found.sort("row")["hostname"]


def sound_times(frame: pl.DataFrame, path: Path, reading: Reading, *, place: str = "line") -> pl.DataFrame:
    """The events with a time between 1970 and 9999; the others go to quarantine."""
    good = frame["time"].is_between(0, LAST_SECOND * 1_000_000).fill_null(value=False)
    for position in frame.filter(~good)["position"].to_list():
        reading.quarantine.add(str(path), f"{place} {position}", "its time is missing or no time")
    return frame.filter(good)


def connect_batches(
    connects: pl.DataFrame, path: Path, reading: Reading, names: EventNames, *, place: str = "line"
) -> list[Batch]:
    """Flows of connects: position, device, time, package, address ("/1.2.3.4", "host/::1" or plain), port, key.

    key: a hash of the event; place: what positions count.
    Connects to the phone itself are left: they never leave it. Damaged addresses and ports go to quarantine.
    """
    connects = connects.with_columns(
        canonical_addresses(connects["address"].str.split("/").list.last()).alias("address"),
        pl.col("port").cast(pl.UInt16, strict=False),
    )
    whole = connects["address"].is_not_null() & connects["port"].is_not_null()
    for position in connects.filter(~whole)["position"].to_list():
        reading.quarantine.add(str(path), f"{place} {position}", "its address or port is missing or none")
    connects = connects.filter(whole)
    own = connects["address"].str.contains(LOOPBACK)
    reading.tally.left("a connect to the phone itself", int(own.sum()))
    connects = connects.filter(~own)
    if connects.is_empty():
        return []
    named = names.of(connects)
    packages, uids = identities(connects["package"])
    seen = pl.select(pl.when(named.is_not_null()).then(int(Observability.INFERRED)).otherwise(0).alias("s"))["s"]
    columns = {
        "device_uid": text(connects["device"]),
        "android_package": text(packages),
        "android_uid": column(uids),
        "flow_id": column((connects["key"] // 2).cast(pl.Int64)),  # the event's own, so that overlapping files agree
        "start_time": column(connects["time"]),
        "protocol_num": 6,
        "direction_id": int(Direction.OUTBOUND),
        "direction_observability": int(Observability.OBSERVED),
        "remote_ip": text(connects["address"]),
        "remote_port": column(connects["port"]),
        "remote_hostname": text(named),
        "hostname_observability": column(seen),
        "bytes_observability": int(Observability.NOT_OBSERVABLE),
        "position": column(connects["position"]),
        **provenance(path),
    }
    return [batch("flows", columns, length=connects.height)]


def lookup_batches(lookups: pl.DataFrame, path: Path, names: EventNames) -> list[Batch]:
    """Signals of name look-ups: position, device, time, package, hostname, addresses (list of text)."""
    if lookups.is_empty():
        return []
    lookups = lookups.select("position", "device", "time", "package", "hostname", "addresses").with_columns(
        pl.col("hostname").str.to_lowercase().str.strip_chars_end(".").str.slice(0, 253),
        pl.col("addresses").list.eval(pl.element().str.split("/").list.last()),
    )
    answers = lookups.explode("addresses")
    answers = answers.with_columns(canonical_addresses(answers["addresses"]).alias("address"))
    names.add(answers)
    answered = answers.group_by("position").agg(pl.col("address").drop_nulls().str.join(" "))
    told = lookups.join(answered, on="position", how="left", maintain_order="left")
    words = pl.concat_str(pl.col("hostname").fill_null(""), pl.col("address").fill_null(""), separator=" ")
    detail = told.select(words.str.strip_chars_end(" ").alias("detail"))["detail"]
    return [_signals(lookups, SignalKind.NAME_LOOKUP, detail, path)]


def instants_batches(events: pl.DataFrame, kind: SignalKind, path: Path) -> list[Batch]:
    """Signals that are instants: position, device, time, package (may be null), detail."""
    return [] if events.is_empty() else [_signals(events, kind, events["detail"], path)]


def _signals(events: pl.DataFrame, kind: SignalKind, detail: pl.Series, path: Path) -> Batch:
    packages, uids = identities(events["package"])
    columns = {
        "device_uid": text(events["device"]),
        "android_package": text(packages),
        "android_uid": column(uids),
        "kind": int(kind),
        "start_time": column(events["time"]),
        "end_time": column(events["time"]),
        "observability": int(Observability.OBSERVED),
        "detail": text(detail),
        "position": column(events["position"]),
        **provenance(path),
    }
    return batch("signals", columns, length=events.height)


def identities(names: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Package and uid of each name that Android gives for a uid: a package, or "shared.user.id:uid"."""
    uid = names.str.extract(_SHARED, 1).cast(pl.Int32, strict=False)
    package = pl.select(pl.when(uid.is_null() & (names != "")).then(names).alias("package"))["package"]
    return package.cast(pl.String), uid


def provenance(path: Path) -> dict[str, object]:
    """The columns that say where a phone's event is from."""
    return {"source": str(path), "clock": "device", "clock_skew_bound_s": SKEW_BOUND_S}
