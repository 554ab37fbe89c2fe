"""AN1702's log-source rows and relaywatch's extensions: which were fed, by which source, with which fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from relaywatch.attack.provenance import log_sources
from relaywatch.attack.requirements import REQUIREMENTS, Requirement, TelemetryRequirement
from relaywatch.model.assurance import RowCoverage, SourceFeed
from relaywatch.model.schemas import SignalKind

_COLUMN_FIELDS: Final[Mapping[str, str]] = {
    "signing_digest": "signing digest",
    "installer": "installed apps",
    "android_package": "app",
    "direction_id": "direction",
    "bytes_out": "bytes",
    "remote_hostname": "hostname",
    "end_time": "end",
    "duration_us": "volumes",
}
"""Fields of a source's view that the columns of a requirement rest on."""
_OF_INVENTORY: Final = {"signing digest": "digests", "installed apps": "packages"}
_KIND_FIELDS: Final[Mapping[str, str]] = {
    "LISTENER": "listener",
    "FOREGROUND_UI": "foreground",
    "USER_INTERACTION": "interaction",
    "KEYGUARD_LOCKED": "interaction",
}


def row_coverage(states: pl.DataFrame, feeds: Sequence[SourceFeed]) -> list[RowCoverage]:
    """A row for each requirement of each log-source row and extension. states: answers.device_states, or empty."""
    rows = {row.data_component: row for row in log_sources(frozenset())}
    found = []
    for requirement in REQUIREMENTS:
        for telemetry in requirement.telemetry:
            row = rows.get(requirement.data_component)
            channel = row.channel if row is not None and requirement.analytic else telemetry.why
            name = row.data_component_name if row is not None else _EXTENSIONS[requirement.data_component]
            found.append(_covered(requirement, telemetry, (name, channel), states, feeds))
    return found


_EXTENSIONS: Final = {"DC0123": "Application State"}


def _covered(
    requirement: Requirement,
    telemetry: TelemetryRequirement,
    named: tuple[str, str],
    states: pl.DataFrame,
    feeds: Sequence[SourceFeed],
) -> RowCoverage:
    fields = _fields(telemetry)
    feeding = [feed for feed in feeds if _feeds(feed, fields)]
    best = {name: _best(feeding, name) for name in fields}
    fed = float(states.select(_fed(telemetry).mean()).item() or 0.0) if states.height else 0.0
    return RowCoverage(
        data_component=requirement.data_component,
        component_name=named[0],
        row=named[1],
        table=telemetry.table,
        analytic=requirement.analytic,
        fed=fed,
        formats=[feed.format for feed in feeding],
        observed=[name for name, seen in best.items() if seen == "observed"],
        inferred=[name for name, seen in best.items() if seen in {"inferred", "partly"}],
        absent=[name for name, seen in best.items() if seen == "absent"],
        remedies=[] if fed >= 1.0 else list(telemetry.sources),
    )


def _fields(telemetry: TelemetryRequirement) -> list[str]:
    """The fields that the requirement rests on, each once."""
    names = telemetry.kinds if telemetry.table == "signals" else telemetry.columns
    known = _KIND_FIELDS if telemetry.table == "signals" else _COLUMN_FIELDS
    found = dict.fromkeys(known[name] for name in names if name in known)
    if telemetry.table == "inventory":
        return [name for name in found if name in _OF_INVENTORY]
    if telemetry.table == "volumes":
        return ["volumes"]
    return list(found)


def _seen(feed: SourceFeed, name: str) -> str:
    """How a format shows a field: an inventory's are there or not."""
    if name in _OF_INVENTORY:
        return "observed" if getattr(feed, _OF_INVENTORY[name]) else "absent"
    return feed.fields.get(name, "absent")


def _feeds(feed: SourceFeed, fields: Sequence[str]) -> bool:
    """Whether a format gives any of what is asked; what it lacks another one may add."""
    return any(_seen(feed, name) != "absent" for name in fields)


def _best(feeds: Sequence[SourceFeed], name: str) -> str:
    order = ("observed", "inferred", "partly", "absent")
    return min((_seen(feed, name) for feed in feeds), key=order.index, default="absent")


def _fed(telemetry: TelemetryRequirement) -> pl.Expr:
    """Whether a device window had what the requirement asks for."""
    if telemetry.table == "signals":
        return (pl.col("kinds") & sum(1 << int(SignalKind[name]) for name in telemetry.kinds)) != 0
    if telemetry.table == "inventory":
        return pl.col("packages") & pl.col("signed")
    if telemetry.table == "volumes":
        return pl.col("fine") > 0
    needed = {"bytes_out": "bytes", "direction_id": "directed", "remote_ip": "remote"}
    asked = [pl.col(needed[name]) > 0 for name in telemetry.columns if name in needed]
    return pl.all_horizontal(*asked, pl.col("flows") > pl.col("hidden"))
