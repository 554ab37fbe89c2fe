"""What a fleet's owner is promised: of the relays named in one hunt, few are none, however many apps were hunted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.detection.discovery import relay_bar
from relaywatch.detection.settings import Settings

ALONE = -math.log(Settings().false_alarms_per_app_day)


def test_a_phone_asks_for_the_false_alarm_rate_alone():
    assert relay_bar(np.array([30.0, 2.0]), 200, Settings()) == pytest.approx(ALONE)


def test_a_fleet_of_millions_with_one_relay_asks_for_more():
    assert relay_bar(np.array([30.0, 12.0]), 10_000_000, Settings()) == pytest.approx(math.log(1e7 / 0.05))


def test_the_more_relays_there_are_the_less_each_must_show():
    many = relay_bar(np.full(1_000, 30.0), 10_000_000, Settings())
    assert many == pytest.approx(max(ALONE, math.log(1e7 / 0.05 / 1_000)))


@given(st.lists(st.floats(0, 40), max_size=50), st.integers(1, 10**9), st.integers(0, 10**9))
def test_more_apps_hunted_never_ask_for_less(evidence, judged, more):
    values = np.array(evidence)
    assert relay_bar(values, judged + more, Settings()) >= relay_bar(values, judged, Settings()) - 1e-9


def test_under_chance_alone_a_hunt_names_none_in_all_but_its_rate():
    """Evidence with expectation one at the most, the same for all apps: the worst that e-values allow."""
    rng = np.random.default_rng(1)
    settings = Settings(false_alarms_per_app_day=1.0, false_discovery_rate=0.1)
    hunts, apps, falsely = 4_000, 200, 0
    for _ in range(hunts):
        evidence = np.log(np.where(rng.random(apps) < 1 / 50, 50.0, 1e-9))
        falsely += bool((evidence >= relay_bar(evidence, apps, settings)).any())
    assert falsely / hunts <= 0.1
