"""What reliability promises: silence is the prior, groups are of what was said, and merged programs are judged too."""

import numpy as np
import pytest
from labelled import EXAMPLES, app

from relaywatch.evaluation.reliability import calibration_error, evaluate_reliability
from relaywatch.evaluation.verdicts import found_in


@pytest.fixture(scope="module")
def result():
    apps = [
        app("T1048", folder=EXAMPLES / "T1048"),
        app("T1051", folder=EXAMPLES / "T1051", label="benign"),
        app("T1606", folder=EXAMPLES / "T1606", label="benign"),
    ]
    return evaluate_reliability(apps, found_in([own.folder for own in apps]))


def test_merged_programs_are_judged_by_kind(result):
    assert result.merged["relay in a benign app"].total() == 2
    assert result.merged["two benign programs"] == {"none": 1}


def test_every_app_is_in_one_group(result):
    assert sum(group.apps for group in result.groups) == 3 + 3
    assert sum(group.relays for group in result.groups) == 1 + 2
    silent, *_ = result.groups
    assert (silent.label, silent.relays, silent.observed.value) == ("not reported", 0, 0.0)
    assert silent.expected == pytest.approx(0.001, rel=0.01)


def test_probabilities_that_are_right_have_small_errors(result):
    assert result.brier < 0.01
    assert result.brier_weighted < 0.001
    assert result.calibration_error < 0.01


def test_without_benign_programs_nothing_is_merged():
    alone = evaluate_reliability([app("T1048", folder=EXAMPLES / "T1048")], {})
    assert sum(counts.total() for counts in alone.merged.values()) == 0
    (silent,) = alone.groups
    assert (silent.relays, silent.observed.value) == (1, 1.0)
    assert alone.brier == pytest.approx(0.998, abs=0.001)


@pytest.mark.parametrize(
    ("said", "relays", "error"),
    [
        ([0.9, 0.9], [True, True], 0.1),
        ([0.9, 0.9], [False, False], 0.9),
        ([0.6, 0.6], [True, False], 0.1),
        ([0.9, 0.001], [True, False], 0.0505),
    ],
)
def test_the_calibration_error_is_the_distance_within_groups(said, relays, error):
    assert calibration_error(np.array(said), np.array(relays), np.ones(2)) == pytest.approx(error)


def test_weights_say_what_is_rare():
    said, relays = np.array([0.9, 0.1]), np.array([True, False])
    assert calibration_error(said, relays, np.array([1.0, 999.0])) == pytest.approx(0.1)
    assert calibration_error(np.array([0.9, 0.9]), relays, np.array([1.0, 999.0])) == pytest.approx(0.899)
