"""The blind-spot register: fields that part of the fleet does not show, how that develops, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from relaywatch.assurance.answers import MISSING, OK
from relaywatch.assurance.gaps import GAPS
from relaywatch.assurance.watching import Span
from relaywatch.model.assurance import BlindSpot, Figure, TrendPoint

REGISTER: Final[Mapping[str, str]] = {
    "app identity": "app",
    "socket behaviour": "listener",
    "inbound sessions": "inbound",
    "background state": "foreground",
    "interaction": "interaction",
    "bytes": "bytes",
    "bytes by interval": "volumes",
    "addresses": "address",
    "names": "hostname",
    "direction": "direction",
}
"""The register's fields, and the gap that says of each that it is missing."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def blind_spots(states: pl.DataFrame, span: Span | None) -> list[BlindSpot]:
    """The register over all device windows, watched or not. states: answers.device_states."""
    if span is None or states.is_empty():
        return []
    return [_spot(name, gap, states, span) for name, gap in REGISTER.items()]


def _spot(name: str, gap: str, states: pl.DataFrame, span: Span) -> BlindSpot:
    column = pl.col(f"gap_{gap}")
    by_window = states.group_by("window").agg((column > OK).mean().alias("share")).sort("window")
    return BlindSpot(
        name=name,
        statement=GAPS[gap].statement,
        share=float(states.select((column > OK).mean()).item()),
        lacking=float(states.select((column == MISSING).mean()).item()),
        trend=[
            TrendPoint(start=_EPOCH + timedelta(microseconds=span.begin(window)), share=share)
            for window, share in by_window.iter_rows()
        ],
        remedy=GAPS[gap].remedy,
    )


def with_costs(spots: Sequence[BlindSpot], costs: Mapping[str, Figure]) -> list[BlindSpot]:
    """The register with what drills say of each field's cost, by the field's gap."""
    return [spot.model_copy(update={"cost": costs.get(REGISTER[spot.name])}) for spot in spots]
