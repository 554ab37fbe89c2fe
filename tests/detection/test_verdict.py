"""What a user is promised of verdicts: where each boundary lies, and that more against never makes more of a relay."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.detection.calibration import PRIOR_LOG_ODDS
from relaywatch.detection.discovery import relay_bar
from relaywatch.detection.items import Item
from relaywatch.detection.settings import Settings
from relaywatch.detection.verdict import Judgement, Provable, conserved, judge
from relaywatch.model.finding import Verdict

SEEN = Provable(app=True, bytes=True, direction=True, names=True)
BEYOND_CHANCE = -math.log(1e-5)
RELAY, SUSPECTED = Verdict.RELAY, Verdict.SUSPECTED_RELAY
GRAVITY = {None: 0, SUSPECTED: 1, RELAY: 2}


def item(kind: str, log_ratio: float) -> Item:
    return Item(kind, kind, "", None, "", log_ratio, core=kind in {"bridging", "tunnelling"})


def judged(
    bridging: float,
    *,
    spread: float = 0.5,
    context: float = 0.0,
    sessions: int = 20,
    provable: Provable = SEEN,
    settings: Settings | None = None,
    kind: str = "bridging",
) -> Judgement:
    items = [item(kind, bridging), item("spread", spread), item("context", context)]
    chosen = settings or Settings()
    return judge(items, sessions, provable, chosen, relay_bar(np.empty(0), 1, chosen))


@pytest.mark.parametrize("kind", ["bridging", "tunnelling"])
def test_relay_begins_where_bridging_is_beyond_the_false_alarm_rate(kind):
    assert judged(BEYOND_CHANCE, kind=kind).verdict is RELAY
    assert judged(BEYOND_CHANCE - 1e-6, kind=kind).verdict is SUSPECTED


def test_false_alarm_rate_moves_that_boundary():
    strict = Settings(false_alarms_per_app_day=1e-9)
    assert judged(-math.log(1e-9) - 1e-6, settings=strict).verdict is SUSPECTED
    assert judged(-math.log(1e-9), settings=strict).verdict is RELAY


def test_context_never_makes_up_for_bridging():
    assert judged(BEYOND_CHANCE - 0.1, spread=1.5, context=100.0).verdict is SUSPECTED


def test_relay_begins_at_the_session_threshold():
    settings = Settings(relay_session_threshold=7)
    assert judged(25.0, sessions=6, settings=settings).verdict is SUSPECTED
    assert judged(25.0, sessions=7, settings=settings).verdict is RELAY


@pytest.mark.parametrize(
    "provable", [replace(SEEN, **{missing: False}) for missing in ("app", "bytes", "direction", "names")]
)
def test_what_cannot_be_proven_is_at_most_suspected(provable):
    assert judged(25.0, provable=provable).verdict is SUSPECTED


def test_sessions_that_mostly_reach_one_or_two_parties_are_at_most_suspected():
    assert judged(25.0, spread=-1e-6).verdict is SUSPECTED
    assert judged(25.0, spread=0.0).verdict is RELAY


def test_report_begins_at_the_suspicion_threshold():
    even = -PRIOR_LOG_ODDS - 0.5
    assert judged(even + 1e-6).verdict is SUSPECTED
    assert judged(even - 1e-6).verdict is None
    assert judged(even + 1e-6, settings=Settings(suspicion_threshold=0.6)).verdict is None


def test_relay_asks_for_nineteen_to_one_beside_everything_else():
    lowest = math.log(19.0) - PRIOR_LOG_ODDS - BEYOND_CHANCE - 0.5
    assert judged(BEYOND_CHANCE, context=lowest + 1e-6).verdict is RELAY
    assert judged(BEYOND_CHANCE, context=lowest - 1e-6).verdict is SUSPECTED


@given(st.floats(-50, 50), st.floats(-6, 1.5), st.floats(-3, 3), st.integers(0, 40))
def test_score_is_the_prior_and_every_ratio_added_up(bridging, spread, context, sessions):
    result = judged(bridging, spread=spread, context=context, sessions=sessions)
    assert result.score == pytest.approx(PRIOR_LOG_ODDS + bridging + spread + context)
    assert result.probability == pytest.approx(1 / (1 + math.exp(-max(-20.0, min(20.0, result.score)))))


@given(
    st.floats(0, 25),
    st.floats(-6, 1.5),
    st.floats(-1, 2),
    st.integers(1, 40),
    st.floats(0, 25),
    st.integers(0, 40),
    st.booleans(),
    st.booleans(),
)
def test_more_evidence_sessions_and_sight_never_lower_a_verdict(
    bridging, spread, context, sessions, more, more_sessions, app, all_bytes
):
    less = judged(
        bridging, spread=spread, context=context, sessions=sessions, provable=replace(SEEN, app=app, bytes=all_bytes)
    )
    gained = judged(bridging + more, spread=spread, context=context, sessions=sessions + more_sessions)
    assert GRAVITY[gained.verdict] >= GRAVITY[less.verdict]
    assert gained.probability >= less.probability


def test_tolerance_of_bytes_widens_as_bytes_shrink():
    ratios, sizes = np.array([1.0999, 1.1001, 0.9001, 1.5, np.nan]), np.full(5, 1e9)
    assert conserved(ratios, sizes, 0.1, 0.0) == 2
    assert conserved(np.array([1.5]), np.array([400.0]), 0.0, 200.0) == 1
    assert conserved(np.array([1.5]), np.array([401.0]), 0.0, 200.0) == 0
    assert conserved(np.array([1.0]), np.array([0.0]), 0.0, 200.0) == 1
