"""What was not read or not judged, as plain lines beside output for machines. Knows no stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from relaywatch.model.quarantine import Quarantine
from relaywatch.outputs.summary import HuntSummary
from relaywatch.outputs.text import plural, printable

SHOWN_LINES: Final = 20
LONGEST_PLACE: Final = 1_000


def hunt_account(summary: HuntSummary) -> list[str]:
    """Lines safe to show: the first records put aside, and counts of all else; none where nothing was left out."""
    lines = quarantine_account(summary.quarantine)
    if summary.unrecognised:
        lines.append(f"not read: {plural(len(summary.unrecognised), 'path')} not recognised")
    if summary.not_judged:
        count = max(summary.not_judged_in_all, len(summary.not_judged))
        lines.append(f"not judged, which is not the same as clean: {plural(count, 'app')}")
    return lines


def quarantine_account(quarantine: Quarantine) -> list[str]:
    """Lines safe to show: the first records put aside, each with file, position and reason, and how many more."""
    places = ((f"{printable(record.source)}, {record.position}", record.reason) for record in quarantine.records)
    return _listed("put aside", places, quarantine.total, "damaged record")


def unread_account(unread: Sequence[tuple[str, str]]) -> list[str]:
    """Lines safe to show: the first paths found and not read, each with why, and how many more."""
    return _listed("not read", unread, len(unread), "path")


def _listed(title: str, entries: Iterable[tuple[str, str]], total: int, one: str) -> list[str]:
    # Cut apart, so that no name is long enough to push its reason out of sight.
    lines = [
        f"{title}: {printable(where, limit=LONGEST_PLACE)}: {printable(why)}"
        for where, why in islice(entries, SHOWN_LINES)
    ]
    more = total - len(lines)
    return lines + ([f"{title}: {plural(more, f'more {one}')}"] if more else [])
