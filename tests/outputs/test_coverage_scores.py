"""Coverage is scored by DeTT&CT's bands, and what is not known never scores as if it were there."""

from dataclasses import replace

import pytest
from coverage_examples import ATTACK, COVERAGE, COVERAGES, without
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.outputs.coverage_scores import (
    DataQuality,
    Standing,
    consistency_score,
    data_quality,
    detection_score,
    share_score,
    timeliness_score,
    visibility_score,
)


@pytest.mark.parametrize(
    ("share", "score"),
    [(0, 0), (0.01, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.51, 3), (0.75, 3), (0.76, 4), (0.999, 4), (1, 5), (2, 5)],
)
def test_completeness_and_retention_have_bands_of_a_quarter(share, score):
    assert share_score(share) == score


@pytest.mark.parametrize(("share", "score"), [(0, 0), (0.01, 1), (0.5, 1), (0.51, 3), (0.99, 3), (1, 5)])
def test_consistency_has_three_bands(share, score):
    assert consistency_score(share) == score


@pytest.mark.parametrize(
    ("delay_s", "clock_error_s", "score"),
    [
        (None, None, 0),
        (None, 0.1, 0),
        (30, None, 5),
        (30, 0.5, 5),
        (30, 5.0, 4),
        (600, 0.5, 4),
        (3_000, 0.5, 3),
        (50_000, 0.5, 2),
        (90_000, 0.5, 1),
        (30, 7_200.0, 1),
    ],
)
def test_timeliness_is_the_worse_of_delay_and_clock(delay_s, clock_error_s, score):
    assert timeliness_score(delay_s, clock_error_s) == score


def test_component_is_scored_in_all_five_dimensions():
    assert data_quality(COVERAGE, 90.0) == DataQuality(4, 5, 4, 3, 5)
    assert data_quality(COVERAGE, 365.0).retention == 1
    assert data_quality(replace(COVERAGE, retention_days=None, delay_s=None), 90.0) == DataQuality(4, 5, 0, 3, 0)


def test_component_that_no_device_sends_has_no_quality():
    assert data_quality(replace(COVERAGE, devices_share=0.0), 90.0) == DataQuality(0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("missing", "score"),
    [
        ([], 4),
        (["Application State"], 4),
        (["OS API Execution"], 3),
        (["Network Traffic Content"], 3),
        (["OS API Execution", "Application Permission"], 2),
        (["OS API Execution", "Application Permission", "Network Traffic Content"], 1),
        (["Network Traffic Flow", "Network Traffic Content"], 1),
        ([one.component for one in COVERAGES], 0),
    ],
)
def test_visibility_counts_the_analytics_components_and_needs_flows(missing, score):
    assert visibility_score(without(*missing), ATTACK) == score


@pytest.mark.parametrize(
    ("standing", "score"),
    [
        (Standing(0.0, 0.0), 0),
        (Standing(0.2, 0.0, 30.0), 1),
        (Standing(0.4, 0.0, 30.0), 2),
        (Standing(1.0, 1.0), 2),
        (Standing(1.0, 1.0, 7_200.0, 1.0), 2),
        (Standing(0.5, 0.0, 600.0), 3),
        (Standing(0.8, 0.0, 600.0, 0.5), 3),
        (Standing(0.8, 0.0, 600.0, 0.8), 4),
        (Standing(1.0, 0.9, 600.0, 1.0), 4),
        (Standing(1.0, 1.0, 600.0, 1.0), 5),
    ],
)
def test_detection_is_scored_by_what_is_provable_and_proven(standing, score):
    assert detection_score(standing, COVERAGES) == score


def test_without_telemetry_there_is_no_detection():
    assert detection_score(Standing(0.0, 0.0), without(*(one.component for one in COVERAGES))) == -1
    assert detection_score(Standing(0.0, 0.0), []) == -1


SHARES = st.floats(0, 1)


@given(SHARES, SHARES, SHARES, SHARES, st.none() | st.floats(0, 1e9))
def test_more_is_never_scored_worse(provable, more, disprovable, drills, delay_s):
    low, high = sorted((provable, more))
    worse = detection_score(Standing(low, disprovable, delay_s, drills), COVERAGES)
    better = detection_score(Standing(high, disprovable, delay_s, drills), COVERAGES)
    assert 0 <= worse <= better <= 5


@pytest.mark.parametrize(
    "wrong", [{"devices_share": 1.1}, {"fields_share": -0.1}, {"delay_s": -1.0}, {"retention_days": float("nan")}]
)
def test_number_outside_its_unit_is_refused(wrong):
    with pytest.raises(ValueError, match=f"Network Traffic Flow: {next(iter(wrong))}"):
        replace(COVERAGE, **wrong)


def test_share_of_drills_beyond_all_is_refused():
    with pytest.raises(ValueError, match="from 0 to 1"):
        Standing(0.5, 0.5, None, 1.5)
