"""Coverage in the terminal and as records: what an analyst may rely on."""

from __future__ import annotations

import io
import json
from datetime import datetime

import pytest
from assurance_examples import REMEDIES, coverage_report, empty_coverage, hostile_report, population, window
from rich.console import Console

from relaywatch.model.assurance import (
    BlindSpot,
    CoverageReport,
    Gap,
    PopulationCoverage,
    RowCoverage,
    SourceFeed,
    WindowCoverage,
)
from relaywatch.outputs.assurance_text import NOT_OBSERVED
from relaywatch.outputs.coverage_table import MOST_ROWS, coverage_records, render_coverage


def shown(report: CoverageReport, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render_coverage(report, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def words(report: CoverageReport, width: int = 300) -> str:
    return " ".join(shown(report, width).split())


def test_the_headline_says_how_much_of_what_can_be_proved_and_disproved():
    text = words(coverage_report())
    assert text.startswith(
        "48 devices, 10,080 app windows of 1 d: a relay provable in 58 %, its absence in 28 % "
        "2026-03-01 06:00:00 to 2026-03-07 23:40:00 UTC, 6 d 17 h 3 devices without any flow seen"
    )


def test_each_population_and_window_has_its_answers_in_percent():
    text = words(coverage_report())
    assert "2026-03-02 48 1,440 93 % 90/10/0 85/0/15 58/20/22 28/0/72" in text
    assert "tablets 2026-03-01 28 840 93 % 90/10/0 85/0/15 100/0/0 100/0/0" in text


def test_why_not_is_in_words_with_its_share_and_the_cheapest_sources_in_order():
    text = shown(coverage_report(), 200)
    assert "70 % nothing shows that all of the phone's traffic passed the sensors" in text
    assert "and 1 lesser gap" in text
    places = [text.index(f"{place}. {source}") for place, source in enumerate(REMEDIES, start=1)]
    assert places == sorted(places)


def test_windows_that_lack_the_same_are_told_once_with_the_range_of_shares():
    report = coverage_report()
    assert "all devices, 2026-03-01 and 6 more windows" in words(report)
    first, *rest = report.populations
    gaps = [first.gaps[0].model_copy(update={"share": 0.5}), *first.gaps[1:]]
    changed = report.model_copy(update={"populations": [first.model_copy(update={"gaps": gaps}), *rest]})
    assert "50 to 70 % nothing shows" in words(changed)


def test_no_finding_is_never_called_clean_where_absence_cannot_be_shown():
    assert NOT_OBSERVED in words(coverage_report())
    sure = coverage_report().model_copy(update={"populations": [population("tablets", 0, yes=1.0, absent=1.0)]})
    assert "not observed" not in words(sure)


def test_log_source_rows_stand_apart_from_extensions():
    text = shown(coverage_report())
    rows, extensions = text.split("relaywatch's own extensions")
    for component in ("DC0021", "DC0114", "DC0078", "DC0085"):
        assert component in rows
        assert component not in extensions
    assert "DC0123" in extensions
    assert "DC0123" not in rows


def test_a_row_says_what_fed_it_and_what_is_absent():
    (line,) = [line for line in shown(coverage_report(), 200).splitlines() if "DC0078" in line]
    joined = " ".join(line.split())
    assert joined == "DC0078 Network Traffic Flow, flows 42 % zeek, pcapdroid-csv app, bytes hostname listener"


def test_sources_say_what_they_hold_and_lack():
    text = words(coverage_report())
    assert "zeek 1,204,331 2 48 7 d 0.001 s 1 no 14 units 2026-03-01 00:00" in text
    assert "netflow 9,001 0 20 – not stated 0 yes 1 unit" in text


def test_blind_spots_come_largest_first_with_trend_cost_and_remedy():
    text = shown(coverage_report(), 200)
    register = text[text.index("Blind spots") :]
    names = [register.index(name) for name in ("inbound sessions", "app identity", "names", "bytes")]
    assert names == sorted(names)
    assert "▁▂▃▄▅▆▇" in register
    assert "10 % → 80 %" in register
    assert "31 points (22 to 40)" in register
    assert "−1 points (−5 to 3)" in register


def test_one_window_has_no_trend_and_no_drill_no_cost():
    report = coverage_report()
    spots = [spot.model_copy(update={"trend": spot.trend[:1], "cost": None}) for spot in report.blind_spots]
    register = shown(report.model_copy(update={"blind_spots": spots}))
    assert "over time" not in register
    assert "recall" not in register


@pytest.mark.parametrize("width", [80, 100])
def test_nothing_is_cut_off_at_the_width_of_a_terminal(width: int):
    text = shown(coverage_report(), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    joined = "".join(text.split())
    for word in ("provable", "sampled", "absent", "remedy", "58/20/22", "100/0/0"):
        assert word in joined


def test_long_lists_are_cut_and_the_rest_counted():
    report = coverage_report(days=MOST_ROWS)
    text = words(report)
    assert f"{2 * MOST_ROWS} more (--json lists all)" in text
    assert text.count("48 1,440 93 %") == MOST_ROWS


def test_hostile_names_are_visible_and_harmless():
    text = shown(hostile_report().coverage)
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "<script>alert(1)</script>[red]x[/red]\\x1b" in "".join(text.split())


def test_nothing_watched_is_said():
    assert words(empty_coverage()) == (
        "1 device, 0 app windows of 1 d: no flow was seen, so nothing can be said of any app"
    )


def test_records_hold_the_whole_report_and_every_window():
    report = coverage_report()
    windows = [window(), window(None)]
    records = [json.loads(json.dumps(record)) for record in coverage_records(report, iter(windows))]
    assert {next(iter(record)) for record in records} == {"kind"}
    by_kind: dict[str, list[dict[str, object]]] = {}
    for record in records:
        by_kind.setdefault(record.pop("kind"), []).append(record)
    (sums,) = by_kind["coverage"]
    lists = {
        "populations": [PopulationCoverage.model_validate(record) for record in by_kind["population"]],
        "rows": [RowCoverage.model_validate(record) for record in by_kind["row"]],
        "blind_spots": [BlindSpot.model_validate(record) for record in by_kind["blind_spot"]],
        "feeds": [SourceFeed.model_validate(record) for record in by_kind["feed"]],
        "gaps": [Gap.model_validate(record) for record in by_kind["gap"]],
    }
    assert CoverageReport.model_validate({**sums, **lists}) == report
    assert [WindowCoverage.model_validate(record) for record in by_kind["window"]] == windows


def test_times_of_records_are_rfc_3339_in_utc():
    (record,) = [record for record in coverage_records(coverage_report(), [window()]) if record["kind"] == "window"]
    assert record["start"] == "2026-03-01T00:00:00.000000Z"
    assert datetime.fromisoformat(record["end"]).utcoffset() is not None
