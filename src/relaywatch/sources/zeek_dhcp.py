"""Zeek's dhcp.log: which hardware address held which IP address, from when to when, under which host name.

A lease is an inventory row of kind ip: the device is "mac:" and its hardware address, valid for the lease's time.
Phones since Android 10 use another hardware address in each network, and many send no host name.
Format: Zeek's documentation of base/protocols/dhcp (one line an exchange since 2.6; before, one a lease).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import LAST_SECOND, canonical_addresses, column, text
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.zeek_ends import host_name, provenance
from relaywatch.sources.zeek_log import instants, log_kind, text_frames
from relaywatch.sources.zeek_macs import MAC

DEVICES_KEPT: Final = 200_000
"""Devices remembered, so that each of their names is said once."""
_COLUMNS: Final = ("ts", "mac", "host_name", "assigned_addr", "assigned_ip", "lease_time", "msg_types")
_KINDS: Final = (IdentifierKind.IP, IdentifierKind.MAC, IdentifierKind.HOSTNAME)


class ZeekDhcp:
    """One dhcp.log. It speaks of many devices, so a device named by the user does not apply."""

    name: ClassVar[str] = "zeek-dhcp"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path dhcp header, or a JSON record with dhcp.log's keys."""
        return log_kind(head) == "dhcp"

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Leases, hardware addresses and host names."""
        yield from leases(path, stream, reading)


def leases(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
    """An inventory row for each lease, and one for each new hardware address and host name."""
    said: set[tuple[str, str]] = set()
    for frame in text_frames(stream, path, _COLUMNS, reading):
        frame = _sound(frame, path, reading)
        anonymous = frame["mac"].is_null()
        reading.tally.left("names no hardware address", int(anonymous.sum()))
        named = frame.filter(~anonymous)
        rows = pl.concat([_rows(named, kind, said) for kind in _KINDS]).sort("position", maintain_order=True)
        reading.tally.left("says nothing new of its device", named.height - rows["position"].n_unique())
        if rows.height:
            inventory = batch("inventory", {**_columns(rows), **provenance(path)}, length=rows.height)
            reading.tally.gave([inventory])
            yield inventory


def _sound(frame: pl.DataFrame, path: Path, reading: Reading) -> pl.DataFrame:
    """The records whose time, hardware address and addresses are such; the others go to quarantine."""
    granted = pl.coalesce("assigned_addr", "assigned_ip")
    refused = pl.col("msg_types").str.contains("NAK", literal=True).fill_null(value=False)
    frame = frame.with_columns(
        pl.when(~refused & ~granted.is_in(["0.0.0.0", "::"])).then(granted).alias("ip"),  # noqa: S104 - "no address"
        pl.col("mac").str.to_lowercase().str.replace_all("-", ":").alias("mac"),
        instants("ts", frame["ts"].dtype).alias("time"),
    )
    frame = frame.with_columns(
        canonical_addresses(frame["ip"]).alias("address"),
        host_name("host_name"),
        pl.col("lease_time").cast(pl.Float64, strict=False).alias("span"),
    )
    sound = (
        (pl.col("mac").is_null() | pl.col("mac").str.contains(MAC))
        & (pl.col("ip").is_null() | pl.col("address").is_not_null())
        & (pl.col("lease_time").is_null() | pl.col("span").is_between(0, LAST_SECOND))
        & pl.col("time").is_not_null()
    ).fill_null(value=False)
    for position in frame.filter(~sound)["position"].to_list():
        reason = "a time, hardware address, IP address or lease time that is none"
        reading.quarantine.add(str(path), f"line {position}", reason)
    return frame.filter(sound)


def _rows(frame: pl.DataFrame, kind: IdentifierKind, said: set[tuple[str, str]]) -> pl.DataFrame:
    """The identifiers of one kind with the time for which they hold; names that were said before are left out."""
    source = {IdentifierKind.IP: "address", IdentifierKind.MAC: "mac", IdentifierKind.HOSTNAME: "host_name"}[kind]
    end = pl.col("time") + (pl.col("span") * 1_000_000).round().cast(pl.Int64)
    ends = pl.when(end <= LAST_SECOND * 1_000_000).then(end) if kind == IdentifierKind.IP else pl.lit(None, pl.Int64)
    rows = frame.select(
        "position",
        "time",
        "mac",
        ends.alias("end"),
        pl.col(source).alias("identifier"),
        pl.lit(str(kind)).alias("kind"),
    ).drop_nulls("identifier")
    if kind == IdentifierKind.IP:
        return rows
    rows = rows.unique(["mac", "identifier"], keep="first", maintain_order=True)
    fresh = [pair not in said for pair in rows.select("mac", "identifier").iter_rows()]
    rows = rows.filter(pl.Series(fresh, dtype=pl.Boolean))
    if len(said) < DEVICES_KEPT:
        said.update(rows.select("mac", "identifier").iter_rows())
    return rows


def _columns(rows: pl.DataFrame) -> dict[str, Any]:
    return {
        "device_uid": text("mac:" + rows["mac"]),
        "identifier_kind": text(rows["kind"]),
        "identifier": text(rows["identifier"]),
        "valid_from": column(rows["time"]),
        "valid_to": column(rows["end"]),
        "position": column(rows["position"]),
    }
