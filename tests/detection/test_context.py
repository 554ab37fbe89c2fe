"""What a user is promised of context: it weighs a little, says what it saw, and is silent where nothing was seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.detection.context import (
    LOOKUP_WINDOW_S,
    MOST_FOR_INDICATORS,
    Intervals,
    Surroundings,
    context_facts,
    context_items,
    indicator_fact,
    indicator_items,
    lookup_fact,
    lookup_items,
    lookups_near,
    setup_items,
)
from relaywatch.detection.settings import Settings
from relaywatch.model.schemas import SignalKind

ALL = frozenset(SignalKind)
TIMES = np.array([0.0, 10.0, 20.0, 30.0])


def spans(*pairs: tuple[float, float]) -> Intervals:
    return Intervals(np.array([a for a, _ in pairs], float), np.array([b for _, b in pairs], float))


moments = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(moments, st.floats(0.0, 1e3) | st.just(np.inf)), max_size=12), st.lists(moments, max_size=12))
def test_a_time_is_held_by_any_interval_around_it(given_spans, times):
    pairs = [(begin, begin + length) for begin, length in given_spans]
    held = spans(*pairs).holds(np.array(times), after_s=5.0)
    assert held.tolist() == [float(any(a <= t <= b + 5.0 for a, b in pairs)) for t in times]


def test_shares_of_sessions_in_each_state_are_told():
    around = Surroundings(
        ALL,
        app={SignalKind.FOREGROUND_UI: spans((5, 12)), SignalKind.USER_INTERACTION: spans((9, 9))},
        device={SignalKind.SCREEN_ON: spans((0, 25)), SignalKind.KEYGUARD_LOCKED: spans((26, np.inf))},
    )
    facts = {f.name: f.value for f in context_facts(around, TIMES, Settings(recent_user_interaction_window_s=12))}
    assert facts == {
        "foreground UI": 0.25,
        "foreground service": 0.0,
        "screen on": 0.75,
        "keyguard locked": 0.25,
        "recent interaction": 0.5,
    }


def test_what_no_source_would_have_shown_is_unknown_and_moves_nothing():
    facts = context_facts(Surroundings(frozenset()), TIMES, Settings())
    assert {fact.value for fact in facts} == {None}
    assert all(fact.statement.endswith("not observable in this telemetry") for fact in facts)
    assert context_items(facts, Settings()) == []


def test_background_raises_the_odds_a_little_and_foreground_lowers_them_a_little():
    def ratios(shown: Intervals) -> list[float]:
        around = Surroundings(ALL, app={SignalKind.FOREGROUND_UI: shown, SignalKind.USER_INTERACTION: shown})
        return [item.log_ratio for item in context_items(context_facts(around, TIMES, Settings()), Settings())]

    assert ratios(spans()) == pytest.approx([0.7, 0.7])
    assert ratios(spans((0, 100))) == pytest.approx([-0.5, -0.5])


def test_state_is_left_out_where_it_is_not_required_and_still_told():
    settings = Settings(foreground_state_required=False)
    facts = context_facts(Surroundings(ALL), TIMES, settings)
    assert facts[0].value == 0.0
    assert context_items(facts, settings) == []


def test_listener_counts_on_the_relays_port_only():
    around = Surroundings(ALL, listening=frozenset({1080}))
    assert [(i.name, i.value, i.log_ratio) for i in setup_items(around, 1080)] == [("listener", 1080.0, 0.5)]
    assert setup_items(around, 8080) == setup_items(around, None) == []


def test_vpn_proxy_and_raw_socket_of_the_app_count_once_together():
    kinds = (SignalKind.VPN, SignalKind.RAW_SOCKET, SignalKind.PROXY_SETTING)
    (item,) = setup_items(Surroundings(ALL, app={kind: spans((0, 1)) for kind in kinds}), None)
    assert (item.name, item.log_ratio) == ("vpn or proxy setting", 0.5)
    assert "vpn, raw socket, proxy setting" in item.statement
    assert setup_items(Surroundings(ALL, device={SignalKind.VPN: spans((0, 1))}), None) == []


@given(st.lists(moments, max_size=12), st.lists(moments, max_size=12))
def test_look_ups_count_near_any_of_the_moments(lookups, connects):
    near = lookups_near(np.array(lookups), np.array(connects))
    assert near == sum(any(abs(a - b) <= LOOKUP_WINDOW_S for b in connects) for a in lookups)


@pytest.mark.parametrize(("near", "said", "odds"), [(None, "not observable", []), (0, "No", []), (1, "1", [0.5])])
def test_look_ups_speak_modestly_and_none_is_not_the_same_as_unseen(near, said, odds):
    fact = lookup_fact(near)
    assert said in fact.statement
    assert (fact.value is None) == (near is None)
    assert [item.log_ratio for item in lookup_items(fact)] == odds
    assert all(item.explains for item in lookup_items(fact))


@given(st.integers(1, 10_000))
def test_indicators_are_capped_however_many_there_are(matches):
    (item,) = indicator_items(indicator_fact(matches))
    assert 0.0 < item.log_ratio <= MOST_FOR_INDICATORS
    assert item.explains
    assert indicator_items(indicator_fact(0)) == indicator_items(indicator_fact(None)) == []
