"""What holding out promises: tables know nothing of the family that they judge, and every app is judged."""

import numpy as np
import pytest
from labelled import EXAMPLES, app

from relaywatch.evaluation import fitting
from relaywatch.evaluation.app_traffic import read_columns, read_traffic
from relaywatch.evaluation.holdout import evaluate_held_out, tables_without
from relaywatch.model.finding import Verdict


def example(name, **other):
    own = app(name, folder=EXAMPLES / name, **other)
    inbound = read_traffic(own).flows.filter("inbound")["flow_id"].to_list()
    return app(name, folder=own.folder, **other, roles=dict.fromkeys(inbound, "relay_in"))


@pytest.fixture(scope="module")
def columns():
    apps = [
        example("T1048"),
        example("T1270", family="tinyproxy", program="tinyproxy"),
        example("T1051", family="mqtt", label="benign"),
        example("T1606", family="push", label="benign"),
    ]
    return list(read_columns(apps))


def differ(first, second):
    return any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_tables_are_fitted_without_the_family(columns):
    both = tables_without(columns, "none of them")
    without = tables_without(columns, "tinyproxy")
    others = tables_without([own for own in columns if own.app.family != "tinyproxy"], "none of them")
    assert differ(both, without)
    assert not differ(without, others)


def test_benign_programs_teach_tables_nothing(columns):
    assert not differ(tables_without(columns, "mqtt"), tables_without(columns, "push"))


def test_every_family_is_judged_by_tables_without_it(columns):
    told = []
    found = evaluate_held_out(columns, told.append)
    assert found.tables.keys() == {"microsocks", "tinyproxy", "mqtt", "push"}
    for family, tables in found.tables.items():
        assert not differ(tables, tables_without(columns, family))
    assert {name: finding.verdict for name, finding in found.findings.items()} == {
        "T1048": Verdict.RELAY,
        "T1270": Verdict.RELAY,
    }
    assert len(told) == 3


def test_without_any_relay_to_learn_from_the_broad_tables_judge(columns):
    alone = [own for own in columns if own.app.family == "microsocks"]
    assert not differ(tables_without(alone, "microsocks"), fitting.fit([]))
