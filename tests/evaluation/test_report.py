"""What reports promise: tables that hold whatever a name holds, figures with intervals, JSON that all readers take."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from labelled import app

from relaywatch.evaluation.reliability import Group, ReliabilityResult
from relaywatch.evaluation.report import as_json, markdown, table
from relaywatch.evaluation.run import Evaluation
from relaywatch.evaluation.verdicts import evaluate_apps
from relaywatch.evaluation.views import ViewRow
from relaywatch.model.estimates import Estimate, proportion

SILENT = Counter({"none": 1})
APPS = [app("R1"), app("B1", label="benign", family="sync", scenario="sync")]


@pytest.fixture
def evaluation():
    """An evaluation of a relay that is missed and a benign app, for no time at all."""
    apps = evaluate_apps(APPS, {}, {own.name: 0.0 for own in APPS})
    unknown = Estimate(math.nan, 0.0, math.inf)
    return Evaluation(
        labs=["lab | one"],
        apps=["R1", "B1"],
        without_flows=["E1"],
        relays=np.array([True, False]),
        held_out=apps,
        shipped=apps,
        views=[ViewRow("connects", proves=False, recall=unknown, other_topology=0, relays=SILENT, benign=SILENT)],
        rules=[],
        pairs=[],
        totals=[],
        pairs_of_scenarios=[],
        pairs_of_rules=[],
        flows=[],
        ablation=[],
        reliability=ReliabilityResult(
            [Group("not reported", 2, 1, 0.001, proportion(1, 2), 0.001)], 0.5, 0.001, 0.5, 0.0, {}
        ),
        curves={"relaywatch": np.array([0.0, -np.inf])},
        pair_rates=np.array([1e-3]),
        pair_curves={},
    )


def test_a_table_keeps_its_columns_whatever_a_cell_holds():
    head, rule, row = table(("name", "share", "number", "nothing"), [("a | b", 0.123456, 3, None)]).splitlines()
    assert (head, rule) == ("| name | share | number | nothing |", "|---|---|---|---|")
    assert row == "| a \\| b | 0.123 | 3 |  |"


def test_an_estimate_is_shown_with_its_interval():
    assert str(proportion(0, 26)) == "0 (0 to 0.132)"
    assert str(proportion(1, 2)) == "0.5 (0.0126 to 0.987)"


def test_what_is_no_number_is_null_in_json(evaluation):
    document = json.loads(as_json(evaluation), parse_constant=pytest.fail)
    assert document["held_out"]["false_relay_per_app_day"] == {"value": None, "low": 0.0, "high": None}
    assert document["curves"]["relaywatch"] == [0.0, None]
    assert document["views"][0]["relays"] == {"none": 1}
    assert document["relays"] == [True, False]


def test_misses_and_apps_that_could_not_be_judged_are_named(evaluation):
    text = markdown(evaluation)
    assert "Not judged, without a flow: E1." in text
    assert "Missed: microsocks-scrape (R1)." in text
    assert "False alarms: none." in text


def test_telemetry_that_cannot_prove_says_so(evaluation):
    assert "| connects (cannot prove) | benign | 1 |" in markdown(evaluation)
