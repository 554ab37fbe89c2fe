"""The assurance report for managers and auditors: one self-contained HTML page, the record as JSON, numbers as CSV.

The PDF is assurance_pdf.py's. The same report gives the same bytes: the only clock is the record's own.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final, NamedTuple

from jinja2 import Environment

from relaywatch.model.assurance import AssuranceReport, Shares
from relaywatch.outputs.assurance_definitions import DEFINITIONS
from relaywatch.outputs.assurance_measures import Measure, measures
from relaywatch.outputs.assurance_sections import LEDE, Column, commands_note, heading, left_out_note, made, sections
from relaywatch.outputs.native import plain_object
from relaywatch.outputs.pages import LONGEST_TEXT, page_environment, write_page
from relaywatch.outputs.text import printable

_COLUMN_PIXELS: Final = 62
_FORMULA: Final = frozenset("=+-@＝＋－＠")
"""First characters that spreadsheets take for a formula's, their full-width forms included."""
_TREND_HEIGHT: Final = 26.0


class BarPart(NamedTuple):
    """One answer's part of a bar of width 100."""

    kind: str
    left: float
    width: float


def write_assurance_html(report: AssuranceReport, path: Path) -> None:
    """Write the page. Raises RelaywatchError where the path cannot be written."""
    write_page(path, assurance_html(report))


def write_assurance_csv(report: AssuranceReport, path: Path) -> None:
    """Write every number as a row: section, name, value, unit, low, high, how_obtained; UTF-8, RFC 4180.

    Text that a spreadsheet would take for a formula has an apostrophe before it; numbers are left as they are.
    Raises RelaywatchError where the path cannot be written.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow([*Measure._fields[:-1], "how_obtained"])
    for measure in measures(report):
        writer.writerow([_csv_cell(value) for value in measure])
    write_page(path, stream.getvalue())


def assurance_json(report: AssuranceReport) -> str:
    """Return the whole record as one indented JSON object in ASCII, times RFC 3339 in UTC, with a last newline."""
    text = json.dumps(plain_object(report), indent=2, ensure_ascii=True, allow_nan=False)
    return text.replace("\x7f", "\\u007f") + "\n"


def assurance_html(report: AssuranceReport) -> str:
    """Return the page as text."""
    return (
        _environment()
        .get_template("assurance.html.j2")
        .render(
            heading=heading(report),
            made=made(report),
            lede=LEDE,
            sections=sections(report),
            definitions=DEFINITIONS,
            commands_note=partial(commands_note, report=report),
        )
    )


def _csv_cell(value: float | str | None) -> float | str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    shown = printable(value, limit=LONGEST_TEXT)
    return f"'{shown}" if shown.lstrip()[:1] in _FORMULA else shown


@cache
def _environment() -> Environment:
    environment = page_environment()
    environment.globals.update(
        bar=bar, line=_line, shares_of=_column_shares, least=_least_width, left_out_note=left_out_note
    )
    return environment


def bar(shares: Shares) -> Iterator[BarPart]:
    """Yield the parts of a bar, from the left: yes, in part, no; answers that do not occur have none."""
    left = 0.0
    for kind, share in (("yes", shares.yes), ("part", shares.in_part), ("no", shares.no)):
        width = round(100.0 * min(max(share, 0.0), 1.0), 2)
        if width > 0.0:
            yield BarPart(kind, round(left, 2), width)
        left += width


def _line(trend: Sequence[float]) -> str:
    """Return shares over time as the points of an SVG polyline, 100 wide, none at the bottom."""
    step = 100.0 / (len(trend) - 1)
    heights = (_TREND_HEIGHT - 1.0 - (_TREND_HEIGHT - 2.0) * min(max(share, 0.0), 1.0) for share in trend)
    return " ".join(f"{k * step:.1f},{height:.1f}" for k, height in enumerate(heights))


def _column_shares(columns: Sequence[Column]) -> list[float]:
    """Return each column's width in percent."""
    total = sum(column.weight for column in columns)
    return [round(100.0 * column.weight / total, 2) for column in columns]


def _least_width(columns: Sequence[Column]) -> int:
    """Return the pixels below which a table scrolls rather than shrinks."""
    return round(_COLUMN_PIXELS * sum(max(column.weight, 1.0) for column in columns))
