"""What the forest over labelled apps promises: whoever is judged was not trained on, by family and by lab."""

import numpy as np
import pytest
from labelled import EXAMPLES, app

from relaywatch.evaluation.baselines.flow_statistics import FEATURES, FlowStatistics
from relaywatch.evaluation.flow_level import Sought
from relaywatch.evaluation.forest import apps_statistics, forest_votes


def trace(name, family, lab, kind, *, flows=40):
    """An app whose client legs have a mark of their own in all features: `kind`; all other flows have zeros."""
    roles = {flow: "relay_in" if flow % 2 else "own" for flow in range(flows)}
    vectors = np.array([[kind if flow % 2 else 0.0] * FEATURES for flow in range(flows)])
    return app(name, family=family, lab=lab, roles=roles), FlowStatistics(np.arange(flows), vectors)


def voted(*traces):
    apps = [own for own, _ in traces]
    votes = forest_votes(apps, {own.name: statistics for own, statistics in traces})
    return {(own.sought, own.split): own for own in votes}


def test_marks_that_only_ones_own_family_has_are_not_learnt():
    strange, known = trace("T1", "a", "lab", -9.0), trace("T2", "b", "lab", 9.0)
    own = voted(strange, known, trace("T3", "c", "lab", 9.0))[Sought.CLIENT_LEGS, "other families"]
    assert own.flows["T2"] == {flow: float(flow % 2) for flow in range(40)}
    assert own.flows["T1"][1] == own.flows["T1"][0]
    assert own.greatest[1] == 1.0
    assert own.mean[1] == pytest.approx(0.5)


def test_another_lab_may_have_the_same_family():
    own = voted(trace("T1", "a", "here", 9.0), trace("R1", "a", "there", 9.0))
    assert own[Sought.CLIENT_LEGS, "another lab"].greatest.tolist() == [1.0, 1.0]
    assert own[Sought.CLIENT_LEGS, "other families"].greatest.tolist() == [0.0, 0.0]


def test_one_lab_gives_no_split_by_labs():
    assert {split for _, split in voted(trace("T1", "a", "lab", 1.0), trace("T2", "b", "lab", 1.0))} == {
        "other families"
    }


def test_an_app_whose_flows_have_no_vectors_scores_least():
    empty = app("T1", family="a"), FlowStatistics(np.empty(0, np.int64), np.empty((0, FEATURES)))
    own = voted(empty, trace("T2", "b", "lab", 1.0))[Sought.CLIENT_LEGS, "other families"]
    assert (own.flows["T1"], own.greatest[0], own.mean[0]) == ({}, 0.0, 0.0)


def test_traces_without_packets_are_left_out():
    assert apps_statistics([app("T1048", folder=EXAMPLES / "T1048")], lambda _: None) == {}
