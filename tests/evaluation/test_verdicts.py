"""What figures of whole apps promise: a suspicion is no relay verdict, silence ranks lowest, groups are whole."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
from labelled import EXAMPLES, app

from relaywatch.evaluation.verdicts import evaluate_apps, found_in, scores_of, verdict_of
from relaywatch.model.finding import Topology, Verdict

HOUR = 3_600.0
RELAYS = [
    app("R1"),
    app("R2", family="agent", program="agent", topology="tunnel", evasion="delay_s"),
    app("R3", family="agent", program="agent", topology="tunnel", scenario="trojan-game-agent"),
    app("R4", family="ssh", program="ssh", topology="tunnel", scenario="evade-low-and-slow", lab="range"),
]
BENIGN = [app(f"B{k}", label="benign", family=f"benign {k}", topology="", scenario="sync") for k in range(4)]
APPS = [*RELAYS, *BENIGN]


def finding(verdict, score, topology=Topology.TUNNEL):
    return SimpleNamespace(verdict=verdict, score=score, topology=topology)


FOUND = {
    "R1": finding(Verdict.RELAY, 9.0, Topology.ACCEPTED),
    "R2": finding(Verdict.SUSPECTED_RELAY, 3.0, Topology.ACCEPTED),
    "R3": finding(Verdict.INSUFFICIENT_TELEMETRY, 0.5),
    "B0": finding(Verdict.SUSPECTED_RELAY, 4.0),
}


@pytest.fixture
def result():
    return evaluate_apps(APPS, FOUND, {own.name: HOUR for own in APPS})


def test_recall_and_false_alarms_are_told_by_how_much_is_claimed(result):
    assert (result.relays, result.benign) == (4, 4)
    assert (result.recall_relay.value, result.recall_flagged.value) == (0.25, 0.5)
    assert (result.false_relay.value, result.false_flagged.value) == (0.0, 0.25)


def test_false_alarms_are_by_the_time_of_benign_apps_alone(result):
    assert result.app_days == pytest.approx(4 / 24)
    assert result.false_relay_per_app_day.value == 0.0
    assert result.false_relay_per_app_day.high == pytest.approx(-math.log(0.025) * 6)
    assert result.false_flagged_per_app_day.value == pytest.approx(6.0)


def test_an_app_without_a_finding_ranks_below_every_other(result):
    scores, relays = scores_of(FOUND, APPS)
    named = dict(zip((own.name for own in APPS), scores.tolist(), strict=True))
    assert named["R4"] == named["B1"] < min(named["R1"], named["R2"], named["R3"], named["B0"])
    assert relays.tolist() == [True] * 4 + [False] * 4
    # Above B0's 4.0 only R1.
    assert result.recall_without_alarms == 0.25
    # Of 16 pairs: R1 beats 4, R2 and R3 beat 3 each, R4 ties 3.
    assert result.area.value == pytest.approx((4 + 3 + 3 + 1.5) / 16)


def test_what_went_wrong_is_named(result):
    assert result.missed == ["trojan-game-agent (R3)", "evade-low-and-slow (R4)"]
    assert result.false == ["suspected_relay: sync (B0)"]


def test_every_kind_of_group_holds_every_relay_once(result):
    kinds = {row.group.split(": ")[0] for row in result.rows}
    assert len(kinds) == 6
    for kind in kinds:
        assert sum(row.apps for row in result.rows if row.group.startswith(f"{kind}: ")) == 4
    for row in result.rows:
        assert row.verdicts.total() == row.apps


def test_rows_tell_verdicts_and_right_topologies(result):
    rows = {row.group: row for row in result.rows}
    assert rows["program: agent"].verdicts == Counter({"suspected_relay": 1, "insufficient_telemetry": 1})
    assert (rows["topology: accepted"].topology_right, rows["topology: tunnel"].topology_right) == (1, 1)
    assert (rows["hidden: yes"].apps, rows["inside an app with traffic of its own: yes"].apps) == (3, 1)
    assert rows["lab: range"].verdicts == Counter({"none": 1})


def test_each_evasion_has_a_row_also_where_only_the_scenario_names_it(result):
    rows = {row.group: row.apps for row in result.rows if row.group.startswith("evasion: ")}
    assert rows == {"evasion: delay_s": 1, "evasion: evade-low-and-slow": 1, "evasion: none": 2}


def test_a_hunt_names_each_trace_as_a_device():
    found = found_in([EXAMPLES / "T1048", EXAMPLES / "T1126"])
    assert verdict_of(found, app("T1048")) == "relay"
    assert verdict_of(found, app("T1126", label="benign")) == "none"
    assert found["T1048"].topology == "accepted"
