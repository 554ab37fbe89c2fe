"""Addresses and ports as a translator (NAT) changed them: events put together into signals with begin and end.

A signal is of the inside address, which names the device: its local_port is the inside port, its detail says the
protocol, outside address and outside port, space-separated. A translation lasts until its end is logged, or its outside
port is given to another; one whose end was not logged is still open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import canonical_addresses, column, text
from relaywatch.sources.device_views import sensed
from relaywatch.sources.reading import Reading
from relaywatch.sources.zeek_ends import LOCAL

MOST_HELD: Final = 1_000_000
"""Translations that wait for their end; beyond it they are given without."""
NAMED: Final = {6: "tcp", 17: "udp"}
"""Protocols with ports whose translations are of use, as a signal's detail names them."""
_KEY: Final = ("protocol", "outside_ip", "outside_port")
EVENTS: Final = {
    "position": pl.Int64,
    "time": pl.Int64,
    "opens": pl.Boolean,
    "protocol": pl.UInt8,
    "inside_ip": pl.String,
    "inside_port": pl.UInt16,
    "outside_ip": pl.String,
    "outside_port": pl.UInt16,
}
"""An event: begin (opens) or end of a translation; time in us since epoch."""


class TranslationLog:
    """Takes events frame by frame and gives translations."""

    def __init__(self, path: Path, reading: Reading, skew_bound_s: float, *, place: str = "line") -> None:
        self._path, self._reading, self._skew_bound_s, self._place = path, reading, skew_bound_s, place
        self._held = pl.DataFrame(schema=EVENTS)

    def batches(self, frame: pl.DataFrame) -> list[Batch]:
        """Translations whose end is known. frame: EVENTS; damaged ones go to quarantine."""
        events = self._sound(frame.select(pl.col(name).cast(kind, strict=False) for name, kind in EVENTS.items()))
        ended = _ended(pl.concat([self._held, events]))
        begun = ended.filter("opens")
        self._reading.tally.left("the end of a translation", ended.height - begun.height)
        waiting = begun["end"].is_null()
        self._held = begun.filter(waiting).select(list(EVENTS))
        if self._held.height > MOST_HELD:
            waiting = pl.repeat(value=False, n=begun.height, eager=True)
            self._held = self._held.clear()
        return self._given(begun.filter(~waiting))

    def rest(self) -> list[Batch]:
        """Those that are still open."""
        held, self._held = self._held, self._held.clear()
        return self._given(held.with_columns(pl.lit(None, pl.Int64).alias("end")))

    def _sound(self, events: pl.DataFrame) -> pl.DataFrame:
        events = events.with_columns(
            canonical_addresses(events[name]).alias(name) for name in ("inside_ip", "outside_ip")
        )
        other = ~events["protocol"].is_in(list(NAMED)).fill_null(value=True)
        self._reading.tally.left("a translation of a protocol without ports", int(other.sum()))
        events = events.filter(~other)
        whole = events.select((pl.all_horizontal(pl.all().is_not_null()) & (pl.col("time") >= 0)).alias("whole"))[
            "whole"
        ]
        for position in events.filter(~whole)["position"].to_list():
            self._reading.quarantine.add(
                str(self._path),
                f"{self._place} {position}",
                "its time, protocol, an address or a port is missing or none",
            )
        return events.filter(whole)

    def _given(self, translations: pl.DataFrame) -> list[Batch]:
        if translations.is_empty():
            return []
        found = [translation_batch(translations, self._path, self._skew_bound_s)]
        self._reading.tally.gave(found)
        return found


def _ended(events: pl.DataFrame) -> pl.DataFrame:
    """The events by their outside end, each with the time of the next one of it as its end."""
    ordered = events.sort(*_KEY, "time", "position")
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(-1) for name in _KEY)
    return ordered.with_columns(pl.when(same).then(pl.col("time").shift(-1)).alias("end"))


def translation_batch(rows: pl.DataFrame, path: Path, skew_bound_s: float) -> Batch:
    """Signals of translations. rows: EVENTS but opens, sound, and `end` (null: still open)."""
    told = pl.concat_str(
        pl.col("protocol").replace_strict(NAMED, return_dtype=pl.String), "outside_ip", "outside_port", separator=" "
    )
    columns = {
        "device_uid": text(rows["inside_ip"]),
        "kind": int(SignalKind.TRANSLATION),
        "start_time": column(rows["time"]),
        "end_time": column(rows["end"]),
        "observability": int(Observability.OBSERVED),
        "local_port": column(rows["inside_port"]),
        "detail": text(rows.select(told.alias("detail"))["detail"]),
        "position": column(rows["position"]),
        **sensed(path, skew_bound_s),
    }
    return batch("signals", columns, length=rows.height)


def inside_of(records: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Flow records with their ends as inside the translator, and the translations that they show.

    records: flow_pairs' columns with src_xlt_ip, src_xlt_port, dst_xlt_ip and dst_xlt_port, null where there is none.
    An end of which one address is private and the other is not has been translated; the private one is inside.
    """
    shown = []
    for end in ("src", "dst"):
        ip, port, other, other_port = (f"{end}_{name}" for name in ("ip", "port", "xlt_ip", "xlt_port"))
        fixed = canonical_addresses(records[ip]), canonical_addresses(records[other])
        records = records.with_columns(fixed[0].alias(ip), fixed[1].alias(other))
        private, behind = (pl.col(name).str.contains(LOCAL) for name in (ip, other))
        changed_port = pl.when(pl.col(other_port) > 0).then(other_port).otherwise(port)
        translated = (private != behind).fill_null(value=False) & ~pl.col(other).is_in(_NO_ADDRESS)
        swapped = translated & behind
        rows = records.filter(translated & pl.col("protocol").is_in(list(NAMED)))
        shown.append(
            rows.select(
                "position", "time", "end", "protocol",
                pl.when(behind).then(other).otherwise(ip).alias("inside_ip"),
                pl.when(behind).then(changed_port).otherwise(port).alias("inside_port"),
                pl.when(behind).then(ip).otherwise(other).alias("outside_ip"),
                pl.when(behind).then(port).otherwise(changed_port).alias("outside_port"),
            )
        )  # fmt: skip
        records = records.with_columns(
            pl.when(swapped).then(changed_port).otherwise(port).alias(port),
            pl.when(swapped).then(other).otherwise(ip).alias(ip),
        )
    return records, pl.concat(shown).drop_nulls(("time", "inside_port", "outside_port"))


_NO_ADDRESS: Final = (".".join("0000"), "::")
"""What exporters fill the translated address with where there is none."""
