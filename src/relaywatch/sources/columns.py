"""From Polars columns to the canonical Arrow columns: times, text, addresses."""

from __future__ import annotations

import ipaddress
from typing import Final

import polars as pl
import pyarrow as pa

LAST_SECOND: Final = 253_402_300_799
"""End of the year 9999: the last instant that every tool downstream can show."""

_IPV4: Final = r"^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$"


def microseconds(seconds: pl.Expr) -> pl.Expr:
    """Epoch seconds as whole microseconds; null outside 1970 to 9999."""
    inside = seconds.is_between(0, LAST_SECOND)
    return (pl.when(inside).then(seconds) * 1_000_000).round().cast(pl.Int64)


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
