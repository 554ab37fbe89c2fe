"""Owners, indicators and lateral movement are told in every output, safe to show and with their source."""

from __future__ import annotations

import io

import pytest
from findings_examples import example, example_summary
from rich.console import Console

from relaywatch.model.finding import AutonomousSystem, Finding, IndicatorMatch, Topology, Verdict
from relaywatch.outputs.explanation import explain
from relaywatch.outputs.html import render_report
from relaywatch.outputs.ocsf import ocsf_event
from relaywatch.outputs.terminal import render

MATCH = IndicatorMatch(
    value="gate.example",
    kind="domain",
    family="Example [red]SDK[/red]",
    matched="zs1.gate.example",
    source="https://lists.example/one",
    licence="MIT",
    retrieved="2026-03-01",
)
OWNER = AutonomousSystem(number=64496, organisation="<b>Host</b>\x1b]0;owned\x07\u202e")


def enriched() -> Finding:
    plain = example(Topology.ACCEPTED)
    first = plain.destinations[0].model_copy(update={"autonomous_systems": [OWNER], "lateral": True})
    spread = plain.spread.model_copy(update={"organisations": 3, "lateral": 1})
    changes = {"destinations": [first, *plain.destinations[1:]], "spread": spread, "indicators": [MATCH]}
    return plain.model_copy(update=changes)


def on_terminal(finding: Finding) -> str:
    stream = io.StringIO()
    render([finding], example_summary(), Console(file=stream, width=400))
    return stream.getvalue()


def explained(finding: Finding) -> str:
    stream = io.StringIO()
    explain(finding, Console(file=stream, width=400))
    return stream.getvalue()


def page(finding: Finding) -> str:
    return render_report([finding], example_summary()).replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'")


@pytest.mark.parametrize("output", [on_terminal, explained, page])
def test_each_output_tells_owner_match_and_severity(output):
    text = " ".join(output(enriched()).replace("│", " ").split())
    assert "AS64496 <b>Host</b>" in text
    for part in ("zs1.gate[.]example", "Example [red]SDK[/red]", "lists.example/one", "MIT", "2026-03-01"):
        assert part in text, part
    assert "a client from outside reached 1 private destination: lateral movement into the user's own network" in text


@pytest.mark.parametrize("output", [on_terminal, explained, page])
def test_names_of_owners_neither_style_nor_move_anything(output):
    assert not set(output(enriched())) & {"\x07", "\x1b", "\u202e"}


def test_owner_of_an_address_is_no_markup_on_the_page():
    assert "<b>Host</b>" not in render_report([enriched()], example_summary())


@pytest.mark.parametrize("output", [on_terminal, explained, page])
def test_without_any_of_them_nothing_is_claimed(output):
    text = output(example(Topology.ACCEPTED))
    assert "lateral movement" not in text
    assert "gate[.]example" not in text
    assert "organisation" not in text


def test_organisations_are_counted_where_they_are_known():
    assert "of 3 organisations" in on_terminal(enriched())
    assert "3 organisations" in page(enriched())


def test_ocsf_keeps_indicators_and_grades_lateral_movement_critical():
    event = ocsf_event(enriched())
    assert event["unmapped"]["indicators"] == [MATCH.model_dump(mode="json")]
    assert event["unmapped"]["spread"]["organisations"] == 3
    assert event["severity"] == "Critical"


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict.RELAY, "outside reached 1"),
        (Verdict.SUSPECTED_RELAY, "outside probably reached 1"),
        (Verdict.INSUFFICIENT_TELEMETRY, "outside may have reached 1"),
    ],
)
def test_lateral_movement_is_claimed_no_more_surely_than_the_relay(verdict, said):
    assert said in on_terminal(enriched().model_copy(update={"verdict": verdict}))
