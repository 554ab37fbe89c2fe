r"""The assurance report as a PDF: the same sections as the page, drawn by reportlab (extra `report`).

The embedded font, Bitstream Vera, has the Latin letters of Western and much of Central Europe. Every other character is
written as a visible escape (\u0627), so that nothing is lost, reversed or drawn over something else. The same report
gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from relaywatch.model.assurance import AssuranceReport, Shares
from relaywatch.model.errors import RelaywatchError
from relaywatch.outputs.assurance_definitions import DEFINITIONS
from relaywatch.outputs.assurance_report import bar
from relaywatch.outputs.assurance_sections import (
    LEDE,
    Cell,
    Column,
    Section,
    SectionTable,
    commands_note,
    heading,
    left_out_note,
    made,
    sections,
)
from relaywatch.outputs.text import printable

if TYPE_CHECKING:
    from reportlab.graphics.shapes import Drawing
    from reportlab.platypus import Flowable

REGULAR: Final = "Vera"
BOLD: Final = "VeraBd"
_MARGIN: Final = 48.0
_INSET: Final = 6.0
"""What reportlab's frames keep free within the margin."""
_WIDTH: Final = 595.28 - 2 * (_MARGIN + _INSET)
"""A4 is 595.28 points wide."""
_ROOM: Final = 96.0
"""Points that a title asks for below itself, lest it stand alone at the foot of a page."""
_LONGEST_LINE: Final = 320
_CELL_LINES: Final = 30
_SUB_LINES: Final = 12
_LETTER_WIDTH: Final = 4.3
"""Of a common letter in a cell, in points; the widest has twice that."""
_INK, _SOFT, _LINE, _SUNK = "#1b2227", "#56626b", "#c9d0d4", "#f3f5f6"
_TONES: Final = {"good": "#2c6a4a", "warn": "#87590b", "bad": "#a82d25", "soft": _SOFT}
_BAR: Final = {"yes": "#2c6a4a", "part": "#c58a1c", "no": "#a82d25"}
_BAR_WIDTH: Final = 70.0


def write_assurance_pdf(report: AssuranceReport, path: Path) -> None:
    """Write the PDF. Raises RelaywatchError where reportlab is not installed, or the path cannot be written."""
    try:
        from reportlab.platypus import SimpleDocTemplate
    except ImportError as error:
        raise RelaywatchError(
            f"{path}: the library reportlab is not installed. Run pip install 'relaywatch[assurance]'."
        ) from error
    title = _shown(heading(report))
    document = SimpleDocTemplate(
        str(path),
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=62.0,
        bottomMargin=54.0,
        title=title,
        author=_shown(report.coverage.producer),
        subject="What telemetry could have shown of relays on Android devices, and what was found",
        lang="en",
        invariant=1,
    )
    frame = partial(_frame, title=title, made=_shown(made(report)))
    try:
        document.build(list(story(report)), onFirstPage=frame, onLaterPages=frame, canvasmaker=_numbered_canvas())
    except OSError as error:
        raise RelaywatchError(
            f"{path}: the report cannot be written: {error.strerror}. Choose another path."
        ) from error


def story(report: AssuranceReport) -> Iterator[Flowable]:
    """Yield the PDF's parts in order: title, then each section with its sentences and tables."""
    from reportlab.platypus import Paragraph

    styles = _styles()
    yield Paragraph(_markup(heading(report)), styles["title"])
    yield Paragraph(LEDE, styles["lede"])
    for section in sections(report):
        yield from _section(section, report)


def _section(section: Section, report: AssuranceReport) -> Iterator[Flowable]:
    from reportlab.platypus import CondPageBreak, Paragraph

    styles = _styles()
    yield CondPageBreak(_ROOM)
    yield Paragraph(f'<a name="{section.anchor}"/>{_markup(section.title)}', styles["section"])
    for sentence in section.alerts:
        yield Paragraph(_markup(sentence), styles["alert"])
    for sentence in section.sentences:
        yield Paragraph(_markup(sentence), styles["body"])
    for table in section.tables:
        yield CondPageBreak(_ROOM)
        yield Paragraph(_markup(table.title), styles["table"])
        yield _table(table, anchored=section.anchor == "method")
        if note := left_out_note(table):
            yield Paragraph(_markup(note), styles["note"])
    for part, command in commands_note(section, report):
        how = f"How: {part} by {command}; definitions by the number in a heading."
        yield Paragraph(_markup(how, limit=1200), styles["note"])


def _table(table: SectionTable, *, anchored: bool) -> Flowable:
    """A table over the page's width whose heading repeats on every page, and whose cells wrap."""
    from reportlab.lib.colors import HexColor
    from reportlab.platypus import LongTable, TableStyle

    total = sum(column.weight for column in table.columns)
    widths = [_WIDTH * column.weight / total for column in table.columns]
    rows: list[list[list[Flowable]]] = [[_head(column) for column in table.columns]]
    for row in table.rows:
        cells = [_cell(cell, column, width) for cell, column, width in zip(row, table.columns, widths, strict=True)]
        rows.append(cells)
    if anchored:
        for number, cells in enumerate(rows[1:], start=1):
            cells[0] = [_anchor(number), *cells[0]]
    drawn = LongTable(rows, colWidths=widths, repeatRows=1, hAlign="LEFT")
    drawn.setStyle(
        TableStyle(
            [
                ("FONTNAME", (0, 0), (-1, -1), REGULAR),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
                ("LEFTPADDING", (0, 0), (-1, -1), 4),
                ("RIGHTPADDING", (0, 0), (-1, -1), 4),
                ("TOPPADDING", (0, 0), (-1, -1), 3),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
                ("BACKGROUND", (0, 0), (-1, 0), HexColor(_SUNK)),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, HexColor(_LINE)),
            ]
        )
    )
    return drawn


def _anchor(number: int) -> Flowable:
    from reportlab.platypus import AnchorFlowable

    return AnchorFlowable(f"definition-{number}")


def _head(column: Column) -> list[Flowable]:
    from reportlab.platypus import Paragraph

    text = _markup(column.title)
    if column.definition:
        number = DEFINITIONS[column.definition].number
        text += f' <a href="#definition-{number}">[{number}]</a>'
    return [Paragraph(text, _styles()["head_number" if column.numeric else "head"])]


def _cell(cell: Cell, column: Column, width: float) -> list[Flowable]:
    from reportlab.platypus import Paragraph

    styles = _styles()
    text = _markup(cell.text, limit=_fitting(width, _CELL_LINES))
    if cell.tone:
        weight = text if cell.tone == "soft" else f"<b>{text}</b>"
        text = f'<font color="{_TONES[cell.tone]}">{weight}</font>'
    parts: list[Flowable] = []
    if cell.shares is not None:
        parts.append(_bar(cell.shares, min(_BAR_WIDTH, width - 8)))
    if cell.trend:
        parts.append(_trend(cell.trend, min(_BAR_WIDTH, width - 8)))
    parts.append(Paragraph(text, styles["number" if column.numeric else "cell"]))
    if cell.sub:
        parts.append(Paragraph(_markup(cell.sub, limit=_fitting(width, _SUB_LINES)), styles["sub"]))
    return parts


def _fitting(width: float, lines: int) -> int:
    """Characters that fill so many lines of a column: a row must fit a page, of whatever letters its names are."""
    return max(min(int(lines * (width - 8) / _LETTER_WIDTH), 1000), 40)


def _bar(shares: Shares, width: float) -> Drawing:
    from reportlab.graphics.shapes import Drawing, Rect
    from reportlab.lib.colors import HexColor

    drawing = Drawing(width, 8, initialFontName=REGULAR)
    for part in bar(shares):
        fill = HexColor(_BAR[part.kind])
        left, length = part.left * width / 100, part.width * width / 100
        drawing.add(Rect(left, 2, length, 4.5, fillColor=fill, strokeColor=HexColor("#ffffff"), strokeWidth=0.3))
    return drawing


def _trend(trend: Sequence[float], width: float) -> Drawing:
    from reportlab.graphics.shapes import Drawing, Line, PolyLine
    from reportlab.lib.colors import HexColor

    drawing = Drawing(width, 20, initialFontName=REGULAR)
    drawing.add(Line(0, 2, width, 2, strokeColor=HexColor(_LINE), strokeWidth=0.5))
    step = width / (len(trend) - 1)
    points = [value for k, share in enumerate(trend) for value in (k * step, 2 + 16 * min(max(share, 0.0), 1.0))]
    drawing.add(PolyLine(points, strokeColor=HexColor("#12708c"), strokeWidth=1.1))
    return drawing


def _frame(canvas: Any, document: Any, *, title: str, made: str) -> None:  # noqa: ANN401  reportlab has no types
    """The header of a page; its foot is the numbered canvas's, which alone knows how many pages there are."""
    width, height = document.pagesize
    canvas.saveState()
    canvas.setFont(REGULAR, 7.5)
    canvas.setFillColor(_SOFT)
    left = _MARGIN + _INSET
    canvas.drawString(left, height - 36, _fitted(title, 0.48 * _WIDTH))
    canvas.drawRightString(width - left, height - 36, _fitted(made, 0.48 * _WIDTH))
    canvas.setStrokeColor(_LINE)
    canvas.setLineWidth(0.4)
    canvas.line(left, height - 42, width - left, height - 42)
    canvas.restoreState()


def _fitted(text: str, width: float) -> str:
    """Cut a line to a width in points, with an ellipsis."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    if stringWidth(text, REGULAR, 7.5) <= width:
        return text
    while text and stringWidth(f"{text}…", REGULAR, 7.5) > width:
        text = text[:-1]
    return f"{text}…"


@cache
def _numbered_canvas() -> Callable[..., Any]:
    """A canvas that writes `page 2 of 9` at the foot of each page once it knows how many there are."""
    from reportlab.pdfgen.canvas import Canvas

    class NumberedCanvas(Canvas):  # type: ignore[misc]  # reportlab has no types
        def __init__(self, *parts: Any, **named: Any) -> None:  # noqa: ANN401
            super().__init__(*parts, **{**named, "initialFontName": REGULAR})
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802  reportlab's own name
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, start=1):
                self.__dict__.update(page)
                self.setFont(REGULAR, 7.5)
                self.setFillColor(_SOFT)
                self.drawCentredString(self._pagesize[0] / 2, 30, f"page {number} of {len(self._pages)}")
                super().showPage()
            super().save()

    return NumberedCanvas


@cache
def _styles() -> dict[str, Any]:
    """The paragraph styles by name."""
    from reportlab.lib.colors import HexColor
    from reportlab.lib.styles import ParagraphStyle

    _fonts()
    body = ParagraphStyle(
        "body", fontName=REGULAR, fontSize=9, leading=13, textColor=HexColor(_INK), spaceAfter=3, splitLongWords=1
    )

    def style(name: str, **changes: Any) -> ParagraphStyle:  # noqa: ANN401
        return ParagraphStyle(name, parent=body, **changes)

    soft, right = HexColor(_SOFT), 2
    small = {"fontSize": 7, "leading": 9, "spaceAfter": 0}
    listed = [
        body,
        style("title", fontName=BOLD, fontSize=18, leading=23, spaceAfter=4),
        style("lede", textColor=soft, spaceAfter=8),
        style("section", fontName=BOLD, fontSize=13, leading=17, spaceBefore=16, spaceAfter=5),
        style("table", fontName=BOLD, fontSize=9, leading=12, spaceBefore=9, spaceAfter=4),
        style("note", fontSize=7, leading=9.5, textColor=soft, spaceBefore=5),
        style(
            "alert",
            fontName=BOLD,
            textColor=HexColor(_TONES["bad"]),
            backColor=HexColor(_SUNK),
            borderPadding=5,
            spaceBefore=5,
            spaceAfter=9,
        ),
        style("cell", **small),
        style("number", **small, alignment=right),
        style("sub", **{**small, "fontSize": 6, "leading": 7.6}, textColor=soft),
        style("head", **small, textColor=soft),
        style("head_number", **small, textColor=soft, alignment=right),
    ]
    return {each.name: each for each in listed}


@cache
def _fonts() -> frozenset[int]:
    """Register the fonts that reportlab brings, to be embedded; return the code points that both can show."""
    from reportlab.lib.fonts import addMapping
    from reportlab.pdfbase.pdfmetrics import registerFont
    from reportlab.pdfbase.ttfonts import TTFont

    faces = [TTFont(REGULAR, "Vera.ttf"), TTFont(BOLD, "VeraBd.ttf")]
    for face in faces:
        registerFont(face)
    for bold, italic, name in ((0, 0, REGULAR), (0, 1, REGULAR), (1, 0, BOLD), (1, 1, BOLD)):
        addMapping(REGULAR, bold, italic, name)
    addMapping(BOLD, 0, 0, BOLD)
    return frozenset.intersection(*(frozenset(face.face.charToGlyph) for face in faces))


def _shown(text: str, limit: int = _LONGEST_LINE) -> str:
    """Write what the font lacks as escapes, and arrows and blanks that it lacks as what it has."""
    known = _fonts()
    plain = printable(text, limit=limit).replace("→", "to")
    whole = "".join(letter if ord(letter) in known else _escaped(letter) for letter in plain)
    return whole if len(whole) <= limit else f"{whole[: limit - 1]}…"


def _escaped(letter: str) -> str:
    point = ord(letter)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _markup(text: str, limit: int = 1000) -> str:
    """Return text for a reportlab paragraph, in which no name is markup."""
    return escape(_shown(text, limit))
