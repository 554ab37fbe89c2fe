"""What a detection engineer is promised of `relaywatch evaluate`, on a tiny lab of known truth."""

import json

import numpy as np
import pytest
from labelled_lab import write_lab
from typer.testing import CliRunner

from relaywatch.cli import app as commands
from relaywatch.detection.calibration import ACCOUNT_BROAD, MEASURED
from relaywatch.evaluation.app_traffic import read_columns, read_traffic
from relaywatch.evaluation.bridges import bridge_rows, score_pairs
from relaywatch.evaluation.holdout import tables_without
from relaywatch.evaluation.labels import read_labels
from relaywatch.evaluation.verdicts import VIEWS, evaluate_apps, evaluate_views, found_in
from relaywatch.model.errors import SourceError


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return write_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def apps(lab):
    return read_labels([lab])


@pytest.fixture(scope="module")
def columns(apps):
    return list(read_columns(apps))


class TestLabels:
    def test_topology_follows_the_roles(self, apps):
        assert {app.name: app.topology for app in apps} == {
            "L0": "accepted",
            "L1": "tunnel",
            "N0": "",
            "N1": "",
            "N2": "",
        }

    def test_a_folder_without_labels_is_said(self, tmp_path):
        with pytest.raises(SourceError, match="truth"):
            read_labels([tmp_path])

    def test_a_damaged_label_is_said_with_its_file(self, tmp_path):
        lab = write_lab(tmp_path, relays=1, benign=1)
        (lab / "truth" / "L0.json").write_text("{")
        with pytest.raises(SourceError, match="L0"):
            read_labels([lab])

    def test_one_trace_in_two_labs_is_refused(self, lab):
        with pytest.raises(SourceError, match="L0"):
            read_labels([lab, lab])


class TestColumns:
    def test_rows_are_named_by_the_labs_own_numbers(self, columns):
        for own in columns:
            starts = dict(read_traffic(own.app).flows.select("flow_id", "start").iter_rows())
            order = [starts[flow] for flow in own.flow_ids.tolist()]
            assert order == sorted(order)
            assert len(own.client_legs) == {"L0": 40, "L1": 1}.get(own.app.name, 0)


class TestFigures:
    def test_relays_are_told_from_the_rest(self, apps):
        result = evaluate_apps(
            apps, found_in([app.folder for app in apps]), dict.fromkeys([a.name for a in apps], 400.0)
        )
        assert (result.recall_relay.value, result.false_flagged.value) == (1.0, 0.0)
        assert result.app_days == pytest.approx(3 * 400.0 / 86_400.0)
        assert result.missed == result.false == []

    def test_true_pairs_rank_above_all_others(self, columns):
        first = bridge_rows([score_pairs(own, MEASURED) for own in columns])[0]
        assert first.pairs == 80
        assert first.found[0].value > 0.95

    def test_what_cannot_be_proven_is_not_called_a_relay(self, apps):
        seen = evaluate_views(apps)
        assert set(seen) == set(VIEWS)
        for name in ("no app identity", "totals, no app identity", "connect events only"):
            assert seen[name][0]["relay"] == 0, name
        assert all(benign["relay"] == 0 for _, benign in seen.values())

    def test_held_out_tables_know_nothing_of_the_family(self, columns):
        without = tables_without(columns, "relay-1")
        only_accepting = [own for own in columns if own.app.name != "L1"]
        assert np.array_equal(without.account_relay, tables_without(only_accepting, "nobody").account_relay)
        assert np.allclose(without.account_relay.sum(axis=1), 1.0)
        assert not np.array_equal(tables_without(columns, "nobody").account_relay, ACCOUNT_BROAD)


def test_the_command_writes_all_it_says(lab, tmp_path):
    done = CliRunner().invoke(commands, ["evaluate", str(lab), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "evaluation.md",
        "evaluation.json",
        "roc.svg",
        "reliability.svg",
    }
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["held_out"]["recall_relay"]["value"] == 1.0
    assert written["rules"][0]["rule"] == "relaywatch"


def test_a_lab_with_nothing_to_hold_out_is_said(tmp_path):
    lab = write_lab(tmp_path / "small", relays=1, benign=2)
    done = CliRunner().invoke(commands, ["evaluate", str(lab), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "families" in done.stderr
