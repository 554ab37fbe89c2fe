"""A drill in the terminal and as records: whether what coverage promised was kept."""

from __future__ import annotations

import io
import json

import pytest
from assurance_examples import HOSTILE, drill_report, drill_row, figure, hostile_report
from rich.console import Console

from relaywatch.model.assurance import DrillReport, DrillRow, Figure
from relaywatch.outputs.drill_table import MOST_ROWS, drill_records, render_drill


def shown(report: DrillReport, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render_drill(report, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def words(report: DrillReport) -> str:
    return " ".join(shown(report).split())


def test_recall_stands_with_its_interval_beside_what_coverage_had_said():
    text = words(drill_report())
    assert "tunnel yes 120 81 % 82 % 5 min 12 s promise tablets 76 to 83 81 to 100 14 sessions broken" in text
    assert "back-connect yes 120 97 % 98 % 5 min 12 s promise tablets 92 to 99 97 to 100 14 sessions kept" in text
    assert "tunnel no 120 0 % 1 % 5 min 12 s no phones Zürich 0 to 2" in text
    assert "accepted in part 0 – – – not phones Zürich played" in text


def test_nothing_is_cut_off_at_the_width_of_a_terminal():
    text = shown(drill_report(), 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "14 sessions  broken" in text


def test_a_broken_promise_has_a_line_of_its_own():
    assert (
        "Promise broken: tunnel relays in tablets were said to be provable, and 81 % (76 to 83) of 120 played relays "
        "were found; 95 % is promised."
    ) in words(drill_report())


@pytest.mark.parametrize(
    ("recall", "told"),
    [
        (0.9299, "Promise broken"),
        (0.931, "within what chance allows"),
        (0.9499, "within what chance allows"),
        (0.95, "Promises checked: 3, all kept"),
        (1.0, "Promises checked: 3, all kept"),
    ],
)
def test_the_promise_is_95_percent_and_broken_where_chance_does_not_explain_less(recall: float, told: str):
    assert told in words(drill_report(tunnel=recall))


def test_without_a_promise_none_is_said_to_be_kept():
    rows = [drill_row("tunnel", "phones", "no", 0.0), drill_row("accepted", "phones", "yes", None)]
    text = words(drill_report().model_copy(update={"rows": rows}))
    assert "no promise was checked" in text
    assert "kept" not in text


def test_the_sites_own_alarms_are_an_upper_bound_and_not_false_ones():
    text = words(drill_report())
    assert "9,800.0 app-days: 0.0011 (0.0001 to 0.0042) relays and 0.0041 (0.0012 to 0.0093)" in text
    assert "an upper bound of false alarms, not known false ones" in text


def test_decoys_evasions_and_costs_are_told():
    text = words(drill_report())
    assert "nothing passed on): 0 % (0 to 2) called relay" in text
    assert "tunnel yes 120 55 % 56 % 5 min 12 s padding 50 to 57" in text
    assert "app 31 points (22 to 40) volumes −2 points (−6 to 1)" in text


def test_evasions_are_never_a_broken_promise():
    text = words(drill_report(tunnel=0.97))
    assert "padding" in text
    assert "all kept" in text
    assert "broken" not in text


def test_long_lists_are_cut_and_the_rest_counted():
    rows = [drill_row("tunnel", f"group {number}", "yes", 0.5) for number in range(MOST_ROWS + 7)]
    text = words(drill_report().model_copy(update={"rows": rows}))
    assert "7 more (--json lists all)" in text
    assert "7 more promises broken" in text
    assert text.count("Promise broken:") == MOST_ROWS


def test_hostile_names_are_visible_and_harmless():
    drill = hostile_report().drill
    assert drill is not None
    text = shown(drill)
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "[red]x[/red]" in "".join(text.split())


def test_records_hold_the_whole_report():
    report = drill_report().model_copy(update={"plan": {"name": HOSTILE}})
    records = [json.loads(json.dumps(record)) for record in drill_records(report)]
    kinds = [record.pop("kind") for record in records]
    assert kinds == ["drill", *["drill_row"] * 5, "evaded", "cost", "cost"]
    assert [record.pop("outcome") for record in records[1:6]] == [
        "promise kept",
        "promise kept",
        "promise broken",
        "no promise",
        "not played",
    ]
    lists = {
        "rows": [DrillRow.model_validate(record) for record in records[1:6]],
        "evaded": [DrillRow.model_validate(record) for record in records[6:7]],
        "costs": {record.pop("field"): Figure.model_validate(record) for record in records[7:]},
    }
    assert DrillReport.model_validate({**records[0], **lists}) == report


def test_a_rate_that_was_not_measured_is_no_number():
    assert "not measured called relay" in words(drill_report().model_copy(update={"decoys": figure(None)}))
