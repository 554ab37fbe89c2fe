"""Sections of dumps written in a test, and what every parser of them promises."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from mutations import assert_accounted, mutate

from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import SignalKind
from relaywatch.sources.android_section import DumpContext, Section, SectionParser
from relaywatch.sources.reading import Reading

TAKEN = datetime(2026, 10, 1, 8, 0, tzinfo=UTC)
"""10:00 in Stockholm, the devices' zone here."""


def context(**changes: Any) -> DumpContext:
    """A phone in Stockholm, its dump taken at TAKEN, two of its apps sharing a uid."""
    values: dict[str, Any] = {
        "device": "FA69P",
        "taken": int(TAKEN.timestamp() * 1e6),
        "zone": ZoneInfo("Europe/Stockholm"),
        "zone_known": True,
        "packages": {10_098: ("org.proxy",), 10_050: ("com.news",), 10_044: ("a.media", "a.downloads")},
    }
    return DumpContext(**(values | changes))


def parsed(
    parser: SectionParser, text: str, *, name: str = "x", command: str = "", within: DumpContext | None = None
) -> tuple[list[dict[str, Any]], Reading]:
    """The parser's rows, each with `table`, in order of position; the account of records is checked."""
    reading = Reading(Quarantine())
    section = Section(name, command, "dump.txt", 1, text.split("\n"))
    batches = list(parser(section, within or context(), reading))
    for part in batches:
        part.rows.validate(full=True)
    assert_accounted(reading.quarantine, reading.tally)
    rows = [{"table": part.table, **row} for part in batches for row in part.rows.to_pylist()]
    return sorted(rows, key=lambda row: row["position"]), reading


def brief(rows: list[dict[str, Any]]) -> list[tuple[str, str | None, str, str | None]]:
    """Signals as (kind, package, start, end), times as UTC hh:mm:ss."""
    return [
        (
            SignalKind(row["kind"]).name,
            row["android_package"],
            f"{row['start_time']:%H:%M:%S}",
            f"{row['end_time']:%H:%M:%S}" if row["end_time"] else None,
        )
        for row in rows
        if row["table"] == "signals"
    ]


def assert_parser_survives(parser: SectionParser, content: bytes, *, name: str = "x", command: str = "") -> None:
    """Hostile variants of a section are read to the end and every record is accounted for."""
    rng = random.Random(11)  # noqa: S311 - seeded, so that it repeats
    for _ in range(300):
        parsed(parser, mutate(content, rng).decode("utf-8", "replace"), name=name, command=command)


def assert_linear(parser: SectionParser, begins: list[str]) -> None:
    """Long lines that nearly match are read in a time that a test can wait for: no pattern backtracks twice."""
    fillers = (" ", "1", "a", "1:", "time=+", "a.", "1,", "VPN", '"', "= ", "[", "/x", "+1s ")
    for begin in begins:
        parsed(parser, "\n".join(begin + filler * (65_000 // len(filler)) for filler in fillers))
