"""`explain`: every number behind a verdict is on the page, and the numbers add up."""

from __future__ import annotations

import io
import math
import re

import pytest
from findings_examples import example, examples, hostile
from rich.console import Console

from relaywatch.model.finding import Bridge, Finding, Topology, Verdict
from relaywatch.outputs.explanation import SHOWN_BRIDGES, explain


def explained(finding: Finding, *, width: int = 160) -> str:
    stream = io.StringIO()
    explain(finding, Console(file=stream, width=width))
    return stream.getvalue()


def test_every_evidence_item_has_value_null_settings_and_records() -> None:
    text = explained(example(Topology.ACCEPTED, sessions=4))
    assert "+9.84" in text
    assert "×18,770" in text
    assert "bridging, start_lag: 0.074 s median" in text
    assert "judged against: Lags after shifting the client legs 200 times within the app-day" in text
    assert "settings: ByteSymmetryTolerance = 0.15 (site.toml)" in text
    assert "records: eve.json:40, eve.json:43, eve.json:46, eve.json:49, eve.json:52 and 3 more" in text


def test_the_sum_runs_from_the_prior_to_the_score() -> None:
    finding = example(Topology.TUNNEL)
    total = explained(finding).split("The sum")[1].split("Bridges")[0].replace("−", "-")
    prior = float(re.search(r"prior.*?(-?\d+\.\d+)", total).group(1))  # type: ignore[union-attr]
    score = float(re.search(r"\n score\s+([+-]\d+\.\d+)", total).group(1))  # type: ignore[union-attr]
    items = sum(item.log_likelihood_ratio for item in finding.evidence)
    assert score == pytest.approx(prior + items, abs=0.011)
    assert score == pytest.approx(finding.score, abs=0.005)
    assert "probability 99.9 %" in total


def test_a_calibrated_probability_says_what_it_was_calibrated_from() -> None:
    finding = example(Topology.TUNNEL).model_copy(update={"probability": 0.6})
    assert "probability 60 %, calibrated from 99.9 %" in explained(finding)


def test_every_listed_bridge_shows_both_legs_lag_ratios_and_records() -> None:
    finding = example(Topology.BACK_CONNECT, sessions=2)
    text = explained(finding)
    for bridge in finding.bridge_list:
        assert f"{bridge.lag_s:.3f}" in text
        assert f"{bridge.upstream_ratio:.3f}" in text
        assert f"pcapdroid.csv:{finding.client_legs[bridge.client].record.position}" in text
        assert f"pcapdroid.csv:{finding.target_legs[bridge.target].record.position}" in text


def test_bridges_beyond_the_list_are_counted() -> None:
    finding = example(Topology.TUNNEL, sessions=214)
    assert "194 weaker bridges not shown; 194 of them in explain --json" in explained(finding)
    assert explained(finding).split("\nBridges")[1].split("\nContext")[0].count("203.0.113[.]") == SHOWN_BRIDGES


def test_no_record_is_listed_twice() -> None:
    tunnel = example(Topology.TUNNEL, sessions=12)
    records = [tunnel.client_legs[0].record] * 5
    twice = [item.model_copy(update={"records": records, "record_count": 5}) for item in tunnel.evidence[:1]]
    text = explained(tunnel.model_copy(update={"evidence": twice}))
    assert "records: edge/conn.log:11\n" in re.sub(" +\n", "\n", text)
    assert len(re.findall(r"conn\.log:11\b", text)) == 2
    assert "as above" in text


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, 1e308])
def test_a_number_out_of_bounds_does_not_break_the_page(number: float) -> None:
    plain = example(Topology.ACCEPTED, sessions=3)
    evidence = [item.model_copy(update={"value": number, "log_likelihood_ratio": number}) for item in plain.evidence]
    context = [fact.model_copy(update={"value": number}) for fact in plain.context]
    bridges = [
        row.model_copy(update={"lag_s": number, "upstream_ratio": number, "log_likelihood_ratio": number})
        for row in plain.bridge_list
    ]
    update = {"evidence": evidence, "context": context, "bridge_list": bridges, "score": number}
    assert "The sum" in explained(plain.model_copy(update=update))


def test_a_suspected_relay_says_why() -> None:
    finding = example(Topology.BACK_CONNECT, verdict=Verdict.SUSPECTED_RELAY, sessions=3)
    assert "why suspected: the evidence together gives less than 95 %" in explained(finding)


def test_a_bridge_without_its_legs_does_not_break_the_page() -> None:
    stray = Bridge(client=900, target=901, lag_s=0, upstream_ratio=None, downstream_ratio=None, log_likelihood_ratio=1)
    finding = example(Topology.ACCEPTED, sessions=2)
    assert "1 weaker bridge not shown" in explained(
        finding.model_copy(update={"bridge_list": [finding.bridge_list[0], stray]})
    )


def test_settings_name_their_origin_and_whose_they_are() -> None:
    text = explained(examples()[0])
    assert re.search(r"ByteSymmetryTolerance\s+0\.15\s+0\.2\s+site\.toml\s+AN1702", text)
    assert re.search(r"RecentUserInteractionWindow\s+300 s\s+300 s\s+default\s+relaywatch", text)


def test_the_attack_objects_are_exact() -> None:
    text = explained(examples()[0])
    for part in (
        "mobile-attack 19.1",
        "T1604 Proxy Through Victim",
        "AN1702 1.1",
        "x-mitre-analytic--cb78ff0f",
        "5d1f" * 16,
        "not satisfied: OS API",
    ):
        assert part in text


def test_narrow_and_hostile() -> None:
    text = explained(hostile(), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "[red]x[/red]" in text
