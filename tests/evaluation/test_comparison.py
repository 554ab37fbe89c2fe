"""What comparing rules promises: one split for all, thresholds of other families, and a row for every rule."""

import numpy as np
import pytest
from labelled import EXAMPLES, app

from relaywatch.evaluation.app_traffic import read_columns, read_traffic
from relaywatch.evaluation.baselines.registry import baselines
from relaywatch.evaluation.comparison import OURS, evaluate_comparison, rule_of_calls, rule_of_scores


def judged(*scores):
    """Row of a rule on (family, relays, score)."""
    apps = [app(str(k), family=f, label="relay" if r else "benign") for k, (f, r, _) in enumerate(scores)]
    return rule_of_scores("rule", apps, np.array([score for *_, score in scores]))


def test_a_threshold_is_the_highest_benign_score_of_other_families():
    row = judged(("a", True, 5.0), ("b", True, 3.0), ("c", False, 4.0), ("d", False, 1.0))
    assert (row.recall.value, row.hindsight, row.false_alarms) == (0.5, 0.5, 1)


def test_benign_programs_of_its_own_family_do_not_set_a_relays_threshold():
    row = judged(("a", True, 3.0), ("a", False, 4.0), ("d", False, 1.0))
    assert (row.recall.value, row.hindsight, row.false_alarms) == (1.0, 0.0, 1)


def test_ties_with_the_threshold_are_no_calls():
    row = judged(("a", True, 1.0), ("c", False, 1.0), ("d", False, 1.0))
    assert (row.recall.value, row.false_alarms) == (0.0, 0)


def test_recall_is_told_for_the_harder_half():
    apps = [app("open"), app("hidden", scenario="evade-delay"), app("benign", label="benign")]
    row = rule_of_calls("rule", apps, np.array([3.0, 2.0, 1.0]), np.array([True, False, False]))
    assert (row.recall.value, row.of_open.value, row.of_hidden.value) == (0.5, 1.0, 0.0)


@pytest.fixture(scope="module")
def result():
    def example(name, **other):
        inbound = read_traffic(app(folder=EXAMPLES / name)).flows
        roles = {row["flow_id"]: "relay_in" if row["inbound"] else "relay_out" for row in inbound.iter_rows(named=True)}
        return app(name, folder=EXAMPLES / name, **other, roles={} if other.get("label") else roles)

    apps = [
        example("T1048", pairs=frozenset({(0, 2)})),
        example("T1270", family="tinyproxy", program="tinyproxy"),
        example("T1051", family="mqtt", label="benign"),
        example("T1606", family="push", label="benign"),
    ]
    return evaluate_comparison(sorted(read_columns(apps), key=lambda own: own.app.name), lambda _: None)


def test_every_rule_has_a_row_and_a_curve(result):
    names = [OURS, *(rule.name for rule in baselines())]
    assert [row.rule for row in result.rules] == names
    assert list(result.curves) == names
    assert {len(scores) for scores in result.curves.values()} == {4}


def test_relaywatch_calls_relays_that_its_tables_never_saw(result):
    own = result.rules[0]
    assert (own.recall.value, own.false_alarms, own.area.value) == (1.0, 0, 1.0)
    assert result.held_out.keys() == {"T1048", "T1270"}


def test_pairs_of_every_rule_that_tells_any_are_the_same_pairs(result):
    tells = [rule.name for rule in baselines() if rule.pair_scores is not None]
    assert [row.group for row in result.pairs_of_rules] == [OURS, *tells]
    assert {row.pairs for row in result.pairs_of_rules} == {1}


def test_traces_without_packets_have_no_forest(result):
    assert {row.rule for row in result.flows} == {OURS}
