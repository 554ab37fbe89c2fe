"""The assurance report: the same statements and numbers on the page, in the PDF, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from assurance_examples import (
    assurance_report,
    bare_report,
    coverage_report,
    drill_report,
    drill_row,
    exceptions,
    hostile_report,
    population,
)
from findings_examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_html import Page, _contrast

from relaywatch.model.assurance import ALL_DEVICES, AssuranceReport, ExceptionState
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.finding import Finding
from relaywatch.outputs.assurance_definitions import DEFINITIONS
from relaywatch.outputs.assurance_pdf import story, write_assurance_pdf
from relaywatch.outputs.assurance_report import (
    assurance_html,
    assurance_json,
    write_assurance_csv,
    write_assurance_html,
)
from relaywatch.outputs.assurance_sections import MOST_ROWS, Cell, sections

PLACES = ("Order", "No.", "Window")
"""Columns whose cells are places in a list and no numbers of the report."""


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(assurance_html(assurance_report()))


def without_blanks(text: str) -> str:
    return "".join(text.split())


def texts(report: AssuranceReport) -> Iterator[str]:
    """Every text that the report must show, whatever draws it."""
    for section in sections(report):
        yield section.title
        yield from (*section.sentences, *section.alerts)
        for table in section.tables:
            yield table.title
            yield from (column.title for column in table.columns)
            yield from (text for row in table.rows for cell in row for text in (cell.text, cell.sub))


def cells(report: AssuranceReport, anchor: str) -> list[list[Cell]]:
    (section,) = [section for section in sections(report) if section.anchor == anchor]
    return [list(row) for table in section.tables for row in table.rows]


# The page


def test_the_page_shows_everything(page: Page) -> None:
    shown = without_blanks(page.words)
    for text in texts(assurance_report()):
        assert without_blanks(text) in shown


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    policy = next(each["content"] for _, each in page.elements if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not {tag for tag, _ in page.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
    }
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "srcset", "action"}]
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://", assurance_html(assurance_report()))


def test_the_same_report_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_assurance_html(assurance_report(), tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize(
    "report", [assurance_report(), bare_report(), hostile_report()], ids=["site", "bare", "hostile"]
)
def test_every_id_is_unique_and_every_reference_has_its_id(report: AssuranceReport) -> None:
    elements = Page(assurance_html(report)).elements
    ids = Counter(attributes["id"] for _, attributes in elements if "id" in attributes)
    assert max(ids.values()) == 1
    links = {attributes["href"][1:] for _, attributes in elements if "href" in attributes}
    labels = {name for _, attributes in elements for name in attributes.get("aria-labelledby", "").split()}
    assert links | labels <= set(ids)


def test_tables_have_headings_for_screen_readers(page: Page) -> None:
    tags = Counter(tag for tag, _ in page.elements)
    assert tags["table"] == tags["thead"] > 8
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.elements if tag == "th")
    regions = [attributes for _, attributes in page.elements if attributes.get("role") == "region"]
    assert len(regions) == tags["table"]
    assert all(attributes["aria-label"] and attributes["tabindex"] == "0" for attributes in regions)


def test_stacked_tables_keep_their_meaning(page: Page) -> None:
    assert [attributes["class"] for _, attributes in page.elements if attributes.get("role") == "table"] == [
        "prose"
    ] * 2
    roles = Counter(attributes.get("role") for _, attributes in page.elements)
    assert roles["row"] * 2 < roles["cell"] + roles["columnheader"] + roles["rowheader"]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_that_carries_a_judgement_meets_wcag_aa(scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", assurance_html(bare_report()), re.DOTALL)[scheme]
    colour = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
    for tone in ("relay", "suspected", "sanctioned", "soft"):
        assert _contrast(colour[tone], colour["card"]) >= 4.5


def test_judgements_are_words_and_not_colours_alone() -> None:
    for row in cells(assurance_report(), "watched"):
        for cell in row:
            assert cell.text or not (cell.tone or cell.shares)


def test_long_names_break_rather_than_widen_the_page() -> None:
    styles = assurance_html(bare_report())
    assert re.search(r"h1, [^{]*\.says p[^{]*\{ overflow-wrap: anywhere", styles)
    assert re.search(r"td, tbody th \{[^}]*overflow-wrap: anywhere", styles)


def test_hostile_names_are_text() -> None:
    page = Page(assurance_html(hostile_report()))
    assert "script" not in {tag for tag, _ in page.elements}
    assert "<script>alert(1)</script>" in page.words
    assert not set(page.words) & {"\x1b", "\x07", "\u202e", "\u200d"}
    assert max(map(len, page.text)) < 2_100


# What it says


def test_the_summary_says_it_in_plain_sentences(page: Page) -> None:
    for sentence in (
        "Looked at: 48 devices of Übungsplatz Nord, 2026-03-01 06:00:00 to 2026-03-07 23:40:00 UTC (6 d 17 h); "
        "connections were watched 93 % of the time.",
        "In the time that was watched, a relay of any kind that does not hide would have been shown in 58 % of app "
        "windows, in 20 % perhaps, in 22 % not.",
        "Only in 28 % of app windows is finding nothing a proof that there was nothing.",
        "that is never the same as clean",
        "Never seen, though in the inventory: 3 devices.",
        "The hunt found 2 relays, 1 suspected and 1 permitted by a documented exception; 1 more could not be judged.",
        "Drills checked 3 promises, by kind of relay and group: 2 kept, 1 broken (at least 95 % of "
        "played relays must be found).",
        "Documented exceptions: 1 in force, 1 ending soon, 1 expired.",
        "What would help first: the same sources without pause.",
    ):
        assert sentence in page.words


def test_a_broken_promise_is_told_first_and_in_the_drills() -> None:
    alerts = {section.anchor: list(section.alerts) for section in sections(assurance_report()) if section.alerts}
    assert list(alerts) == ["summary", "drills"]
    assert alerts["summary"] == alerts["drills"]
    assert alerts["summary"][0].startswith("Promise broken: tunnel relays in tablets")
    kept = assurance_report().model_copy(update={"drill": drill_report(tunnel=0.97)})
    assert not [section for section in sections(kept) if section.alerts]


def test_without_a_drill_the_report_says_that_nobody_checked() -> None:
    words = Page(assurance_html(assurance_report().model_copy(update={"drill": None}))).words
    assert "No drill was run, so nobody has checked" in words
    assert "Promise" not in words


def test_where_everything_is_shown_nothing_is_held_back() -> None:
    sure = population("tablets", 0, yes=1.0, absent=1.0).model_copy(update={"gaps": [], "remedies": []})
    coverage = coverage_report().model_copy(update={"populations": [sure], "silent_devices": 0})
    words = Page(assurance_html(assurance_report().model_copy(update={"coverage": coverage}))).words
    assert "No gap holds back any answer." in words
    assert "not observed" not in words


def test_nothing_watched_and_nothing_found_is_not_called_clean() -> None:
    words = Page(assurance_html(bare_report())).words
    assert "Of 1 device no flow was seen, so nothing can be said of any app." in words
    assert "The hunt found no relay." in words
    assert "Command: not recorded" in words
    assert "Relay assurance:" not in words
    assert "clean" not in words


def test_groups_are_weighted_by_their_app_windows_and_devices() -> None:
    days = [population("tablets", 0, yes=1.0, absent=1.0), population("tablets", 1, devices=60, yes=0.0, absent=0.0)]
    coverage = coverage_report().model_copy(update={"populations": days})
    report = assurance_report().model_copy(update={"coverage": coverage})
    (row,) = [row for row in cells(report, "watched") if row[0].sub == "2 windows"]
    shares = ["yes 25 %, in part 15 %, no 60 %", "yes 25 %, no 75 %"]
    assert [cell.text for cell in row] == ["tablets", "60", "2,400", "93 %", *shares]


def test_findings_say_what_became_of_them() -> None:
    fates = [row[-1].text for row in cells(assurance_report(), "findings")]
    assert Counter(fates) == Counter(
        [
            "open: EX-1 of Jürgen Łukasz expired 2026-02-09",
            "open",
            "open",
            "permitted by EX-12 of network team until 2026-09-30.",
            "could not be judged",
        ]
    )


def test_expired_exceptions_come_first() -> None:
    states = [row[1].text for row in cells(assurance_report(), "exceptions")]
    assert states == ["expired", "expiring", "in force"]


def test_long_lists_are_cut_and_the_rest_counted() -> None:
    many = [exceptions()[0].model_copy(update={"id": f"EX-{number}"}) for number in range(MOST_ROWS + 5)]
    words = Page(assurance_html(assurance_report().model_copy(update={"exceptions": many}))).words
    assert "5 more in the JSON." in words


def test_every_column_of_numbers_has_its_definition_and_every_section_its_commands() -> None:
    report = assurance_report()
    used = set()
    for section in sections(report):
        numbered = [column for table in section.tables for column in table.columns if column.definition]
        used |= {column.definition for column in numbered}
        assert {DEFINITIONS[column.definition].part for column in numbered} <= {*section.parts, "coverage"}
        for table in section.tables:
            for place, column in enumerate(table.columns):
                digits = [row[place].text for row in table.rows if re.match(r"[<>−]? ?\d", row[place].text)]
                assert column.definition or not digits or column.title in (*PLACES, "Value", "Device", "App")
    assert used <= set(DEFINITIONS)
    (method,) = [section for section in sections(report) if section.anchor == "method"]
    assert len(method.tables[0].rows) == len(DEFINITIONS)


def test_key_figures_have_command_and_definition_beside_them() -> None:
    for _, value, how in cells(assurance_report(), "summary"):
        assert value.text
        assert re.search(r"\. Command: relaywatch (coverage|drill|hunt|exceptions) ", how.text)


# JSON and CSV


@pytest.mark.parametrize(
    "report", [assurance_report(), bare_report(), hostile_report()], ids=["site", "bare", "hostile"]
)
def test_the_json_is_the_record(report: AssuranceReport) -> None:
    text = assurance_json(report)
    assert text.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert AssuranceReport.model_validate(json.loads(text)) == report
    assert assurance_json(report) == text


def rows_of(report: AssuranceReport, folder: Path) -> list[dict[str, str]]:
    write_assurance_csv(report, folder / "report.csv")
    with (folder / "report.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def test_the_csv_has_one_number_a_row_and_how_it_was_obtained(tmp_path: Path) -> None:
    rows = rows_of(assurance_report(), tmp_path)
    assert list(rows[0]) == ["section", "name", "value", "unit", "low", "high", "how_obtained"]
    assert all(None not in row and row["how_obtained"] for row in rows)
    named = {row["name"]: row for row in rows}
    recall = named["played: tunnel, tablets, provable yes: recall"]
    assert (recall["section"], float(recall["value"]), recall["unit"]) == ("drills", 0.81, "share")
    assert float(recall["low"]) == pytest.approx(0.76)
    assert "relaywatch drill telemetry/ --seed 7" in recall["how_obtained"]
    assert named["app windows"]["value"] == "10080"
    assert named["played: tunnel, tablets, provable yes: outcome"]["value"] == "promise broken"
    assert named["played: accepted, phones Zürich, provable in part: recall"]["value"] == ""
    assert float(named["bytes: recall it costs"]["low"]) == -0.05


def test_the_csv_has_every_share_of_every_population(tmp_path: Path) -> None:
    report = assurance_report()
    rows = {row["name"]: row["value"] for row in rows_of(report, tmp_path)}
    for row in report.coverage.populations:
        where = f"{row.group}, {row.start:%Y-%m-%d}"
        assert float(rows[f"{where}: disprovable: no"]) == row.disprovable.no
        assert float(rows[f"{where}: provable, any kind: in part"]) == row.provable["every"].in_part
    assert len({name for name in rows if name.startswith("inbound sessions, ")}) == 7


def test_every_row_of_the_csv_has_a_name_of_its_own(tmp_path: Path) -> None:
    rows = rows_of(assurance_report(), tmp_path)
    assert max(Counter((row["section"], row["name"]) for row in rows).values()) == 1


def test_key_figures_have_the_recall_of_all_devices_and_not_of_their_parts() -> None:
    rows = [drill_row("tunnel", group, answer, 0.97) for group in (ALL_DEVICES, "tablets") for answer in ("yes", "no")]
    report = assurance_report().model_copy(update={"drill": drill_report().model_copy(update={"rows": rows})})
    names = [row[0].text for row in cells(report, "summary") if row[0].text.startswith("Recall")]
    assert names == ["Recall, tunnel, provable yes", "Recall, tunnel, provable no"]


def test_intervals_of_the_csv_hold_their_value(tmp_path: Path) -> None:
    bounded = [row for row in rows_of(assurance_report(), tmp_path) if row["low"]]
    assert len(bounded) > 10
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in bounded)


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text))


def _harmless(text: str) -> bool:
    return _is_number(text) or text.lstrip()[:1] not in tuple("=+-@＝＋－＠\t\r")


def test_no_cell_of_the_csv_is_a_formula(tmp_path: Path) -> None:
    rows = rows_of(hostile_report(), tmp_path)
    assert all(_harmless(value) and value.isprintable() for row in rows for value in row.values())
    assert [row["name"] for row in rows if row["name"].startswith("'=1+1")]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
def test_no_name_breaks_the_csv_or_the_page(tmp_path: Path, page: Page, name: str) -> None:
    entry = exceptions()[0].model_copy(update={"id": name, "owner": name, "reason": name})
    group = population(name, 0)
    coverage = coverage_report().model_copy(update={"populations": [group], "rows": [], "blind_spots": []})
    report = bare_report().model_copy(update={"coverage": coverage, "exceptions": [entry], "site": name})
    rows = rows_of(report, tmp_path)
    assert all(len(row) == 7 and all(map(_harmless, row.values())) for row in rows)
    assert {tag for tag, _ in Page(assurance_html(report)).elements} <= {tag for tag, _ in page.elements}


# The PDF


def _paragraphs(parts: object) -> Iterator[str]:
    """The plain text of flowables, those in the cells of tables too."""
    if isinstance(parts, list | tuple):
        for part in parts:
            yield from _paragraphs(part)
    elif hasattr(parts, "getPlainText"):
        yield str(parts.getPlainText())
    elif hasattr(parts, "_cellvalues"):
        yield from _paragraphs(parts._cellvalues)


def pdf_words(report: AssuranceReport) -> str:
    return without_blanks(" ".join(_paragraphs(list(story(report)))))


def test_the_pdf_says_what_the_page_says() -> None:
    words = pdf_words(assurance_report())
    for text in texts(assurance_report()):
        assert without_blanks(text.replace("→", "to")) in words


@pytest.mark.parametrize("make", [assurance_report, bare_report, hostile_report], ids=["site", "bare", "hostile"])
def test_a_pdf_has_its_fonts_in_it_and_is_the_same_bytes(make: Any, tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        write_assurance_pdf(make(), tmp_path / name)
    content = (tmp_path / "one.pdf").read_bytes()
    assert content == (tmp_path / "two.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.count(b"/FontFile2") == 2
    assert b"Helvetica" not in content
    assert b"/JavaScript" not in content
    assert b"/URI" not in content


def test_letters_that_the_font_lacks_are_escapes_and_accents_are_not() -> None:
    words = pdf_words(hostile_report())
    assert r"\u0627\u0644\u0639\u0631" in words
    assert r"\U0001f469\u200d\U0001f680" in words
    assert "<script>alert(1)</script>[red]x[/red]" in words
    assert "JürgenŁukasz" in pdf_words(assurance_report())


@pytest.mark.parametrize("letter", ["W", "@", "i", "W ", "\u0627", "Ł-"])
def test_no_name_is_too_long_for_a_page(letter: str, tmp_path: Path) -> None:
    name = letter * 5_000
    plain = hostile_report()
    coverage = plain.coverage.model_copy(
        update={
            "populations": [row.model_copy(update={"group": name}) for row in plain.coverage.populations[:1]],
            "rows": [
                row.model_copy(update={"row": name, "formats": [name] * 9, "absent": [name] * 9})
                for row in plain.coverage.rows[:1]
            ],
            "blind_spots": [
                spot.model_copy(update={"name": name, "statement": name, "remedy": name})
                for spot in plain.coverage.blind_spots[:1]
            ],
            "gaps": [gap.model_copy(update={"statement": name, "cost": name}) for gap in plain.coverage.gaps],
        }
    )
    findings: list[Finding] = [
        finding.model_copy(update={"device": finding.device.model_copy(update={"uid": name, "group": name})})
        for finding in examples()
    ]
    report = plain.model_copy(
        update={
            "coverage": coverage,
            "findings": findings,
            "site": name,
            "commands": dict.fromkeys(plain.commands, name),
        }
    )
    write_assurance_pdf(report, tmp_path / "long.pdf")
    assert (tmp_path / "long.pdf").stat().st_size > 10_000


def test_pages_are_numbered_and_no_words_lie_over_each_other(tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler) is not at hand")
    for make in (assurance_report, hostile_report):
        write_assurance_pdf(make(), tmp_path / "report.pdf")
        shown = subprocess.run(
            ["pdftotext", "-bbox", str(tmp_path / "report.pdf"), "-"],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        pages = shown.split("<page ")[1:]
        for number, page in enumerate(pages, start=1):
            words = re.findall(r'xMin="([\d.]+)" yMin="([\d.]+)" xMax="([\d.]+)" yMax="([\d.]+)">(.*?)<', page)
            assert f"page {number} of {len(pages)}" in " ".join(word[4] for word in words)
            boxes = sorted(tuple(map(float, word[:4])) for word in words)
            assert all(box[0] >= 48 and box[2] <= 548 for box in boxes)
            assert not list(_overlapping(boxes))


def _overlapping(boxes: list[tuple[float, ...]]) -> Iterator[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Pairs of words that share more than a sliver of space."""
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            if other[0] >= one[2] - 1:
                break
            height = min(one[3], other[3]) - max(one[1], other[1])
            if height > 0.5 * min(one[3] - one[1], other[3] - other[1]):
                yield one, other


def test_without_reportlab_the_user_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reportlab.platypus", None)
    with pytest.raises(RelaywatchError, match=re.escape("pip install 'relaywatch[assurance]'")):
        write_assurance_pdf(bare_report(), tmp_path / "report.pdf")


@pytest.mark.parametrize("write", [write_assurance_html, write_assurance_csv, write_assurance_pdf])
def test_a_path_that_cannot_be_written_is_named(write: Any, tmp_path: Path) -> None:
    with pytest.raises(RelaywatchError, match=re.escape(str(tmp_path))):
        write(bare_report(), tmp_path)


def test_every_state_of_an_exception_is_counted() -> None:
    assert {entry.state for entry in exceptions()} == set(ExceptionState)
    none = assurance_report().model_copy(update={"exceptions": []})
    assert "No app is permitted to relay: there is no documented exception." in Page(assurance_html(none)).words
