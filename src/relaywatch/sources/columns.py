"""From Polars columns to the canonical Arrow columns: times, text, addresses."""

from __future__ import annotations

import ipaddress
from typing import Final

import polars as pl
import pyarrow as pa

LAST_SECOND: Final = 253_402_300_799
"""End of the year 9999: the last instant that every tool downstream can show."""
SECONDS_LONG: Final = len("2026-01-01T00:00:00")

_IPV4: Final = r"^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$"


def microseconds(seconds: pl.Expr) -> pl.Expr:
    """Epoch seconds as whole microseconds; null outside 1970 to 9999."""
    inside = seconds.is_between(0, LAST_SECOND)
    return (pl.when(inside).then(seconds) * 1_000_000).round().cast(pl.Int64)


def written_instants(text: pl.Expr, *, zoned: bool = True) -> pl.Expr:
    """ISO 8601 times as us since the epoch, null where one is none; zoned: with their zone, else read as UTC."""
    return text.map_batches(lambda series: _written_instants(series, zoned=zoned), return_dtype=pl.Int64)


def _written_instants(series: pl.Series, *, zoned: bool) -> pl.Series:
    length = series.str.len_bytes()
    plain = (series.str.slice(10, 1) == "T") & (length >= SECONDS_LONG) & (series.str.ends_with("Z") == zoned)
    if plain.all():
        try:  # Arrow's parser is the faster, where all are in the form that it and Polars take alike
            cast = series.to_arrow().cast(pa.string()).cast(pa.timestamp("us", tz="UTC" if zoned else None))
            return pl.Series(series.name, cast.cast(pa.int64()))
        except pa.ArrowInvalid:
            pass
    read = (
        series.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
        if zoned
        else series.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    )
    return read.dt.epoch("us")


def text(series: pl.Series) -> pa.Array:
    """A text column, dictionary-encoded as in the canonical tables."""
    return series.to_arrow().cast(pa.string()).dictionary_encode()


def column(series: pl.Series) -> pa.Array:
    """A column of numbers or booleans; batch() casts it to the canonical type."""
    return series.to_arrow()


def canonical_addresses(series: pl.Series) -> pl.Series:
    """IP addresses as their canonical text (RFC 5952), mapped IPv4 as IPv4, without zone; null where it is none."""
    distinct = series.drop_nulls().unique()
    unusual = distinct.filter(~distinct.str.contains(_IPV4))
    if unusual.is_empty():
        return series
    known = {value: canonical_address(value) for value in unusual.to_list()}
    return series.replace(list(known), list(known.values()))


def canonical_address(value: str) -> str | None:
    """One IP address as canonical_addresses has it; None where it is none."""
    try:
        address = ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
