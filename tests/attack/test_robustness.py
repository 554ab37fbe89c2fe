"""Robustness follows Summiting the Pyramid's algebra; an allow-list by name alone makes a verdict as weak as a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.attack.requirements import REQUIREMENTS
from relaywatch.attack.robustness import (
    DECIDING,
    JUDGED,
    KEYS,
    OBSERVABLES,
    Column,
    Robustness,
    TelemetryQuality,
    all_of,
    analytic_robustness,
    any_of,
    component_robustness,
    coverage,
    filter_robustness,
    none_of,
    telemetry_quality,
    timeliness,
)

ROBUSTNESS = st.builds(Robustness, st.integers(1, 5), st.sampled_from(Column))


@given(ROBUSTNESS, ROBUSTNESS, ROBUSTNESS)
def test_and_takes_the_least_or_the_greatest_and_not_changes_nothing(a, b, c):
    assert all_of(a, b, c).level == min(a.level, b.level, c.level)
    assert any_of(a, b, c).level == max(a.level, b.level, c.level)
    assert none_of(a) == a
    assert all_of(a, any_of(a, b)).strength == a.strength
    assert any_of(a, all_of(a, b)).strength == a.strength


def test_of_one_level_the_weaker_column_decides():
    kernel, application = Robustness(2, Column.KERNEL_MODE), Robustness(2, Column.APPLICATION)
    header, payload = Robustness(2, Column.HEADER), Robustness(2, Column.PAYLOAD)
    assert (all_of(kernel, application), any_of(kernel, application)) == (application, kernel)
    assert (all_of(header, payload), any_of(header, payload)) == (payload, header)
    assert str(header) == "2H"


def test_every_item_of_evidence_is_judged_and_no_other():
    assert set(OBSERVABLES) == {name for need in REQUIREMENTS for name in need.evidence}
    assert set(JUDGED) == {need.data_component for need in REQUIREMENTS}
    assert all(robustness.decided_by == name for name, robustness in (OBSERVABLES | KEYS).items())


def test_verdict_without_exceptions_is_as_robust_as_bridging():
    verdict = analytic_robustness(OBSERVABLES, [])
    assert (str(verdict), verdict.decided_by) == ("4H", "conserved bridges")


def test_setup_and_context_neither_add_nor_take():
    assert analytic_robustness(DECIDING, []) == analytic_robustness(OBSERVABLES, [])


def test_without_bridging_there_is_no_verdict_to_be_robust():
    assert analytic_robustness(OBSERVABLES.keys() - set(DECIDING), []) is None


def test_exception_by_package_alone_drags_the_verdict_to_1():
    entries = [{"package", "signing_digest"}, {"package"}]
    verdict = analytic_robustness(OBSERVABLES, entries)
    assert (verdict.level, verdict.decided_by) == (1, "package")


def test_exception_by_signature_keeps_the_verdict_at_4():
    assert analytic_robustness(OBSERVABLES, [{"package", "signing_digest", "destinations"}]).level == 4


@pytest.mark.parametrize(
    ("keys", "level"),
    [
        ({"package", "devices"}, 1),
        ({"package", "device_group", "destinations"}, 1),
        ({"destinations"}, 1),
        ({"package", "installer"}, 3),
        ({"package", "managed_role"}, 3),
        ({"package", "signing_digest"}, 4),
    ],
)
def test_entry_is_as_robust_as_its_strongest_key(keys, level):
    assert filter_robustness([keys]).level == level


@given(st.lists(st.sets(st.sampled_from(sorted(KEYS)), min_size=1), min_size=1, max_size=5))
def test_a_further_exception_never_makes_the_verdict_more_robust(entries):
    assert analytic_robustness(DECIDING, entries).strength <= analytic_robustness(DECIDING, entries[1:]).strength


def test_entry_without_keys_and_unknown_keys_are_refused():
    assert filter_robustness([]) is None
    with pytest.raises(ValueError, match="excuses everything"):
        filter_robustness([set()])
    with pytest.raises(KeyError, match="colour"):
        filter_robustness([{"colour"}])


@pytest.mark.parametrize(
    ("delay_s", "score"), [(1, 5), (60, 5), (61, 4), (900, 4), (3_600, 3), (3_601, 2), (86_400, 2), (86_401, 1)]
)
def test_timeliness_follows_the_published_bands(delay_s, score):
    assert timeliness(delay_s) == score


@pytest.mark.parametrize(("share", "score"), [(0, 1), (0.19, 1), (0.2, 2), (0.4, 3), (0.6, 4), (0.8, 5), (1, 5)])
def test_coverage_follows_the_published_bands(share, score):
    assert coverage(share) == score


def test_flows_with_bytes_are_the_best_telemetry_and_metrics_are_summed():
    qualities = {component: telemetry_quality(component, 30.0, 1.0) for component in JUDGED}
    best = qualities["DC0085"]
    assert best == TelemetryQuality(fidelity=3, noise=2, timeliness=5, context=5, coverage=5, robustness=4)
    assert best.total == 24
    assert all(quality.total <= best.total for quality in qualities.values())


def test_quality_falls_with_delay_and_with_what_cannot_be_shown():
    assert telemetry_quality("DC0085", 7_200.0, 1 / 3).total == 24 - 3 - 3


def test_component_is_as_robust_as_its_best_evidence():
    assert component_robustness("DC0021").decided_by == "listener"
    with pytest.raises(KeyError, match="DC9999"):
        component_robustness("DC9999")


@pytest.mark.parametrize("values", [(5, 1, 1, 1, 1, 1), (0, 1, 1, 1, 1, 1), (1, 6, 1, 1, 1, 1), (1, 1, 1, 1, 1, 0)])
def test_metric_outside_its_scale_is_refused(values):
    with pytest.raises(ValueError, match="from 1 to"):
        TelemetryQuality(*values)


def test_level_outside_the_pyramid_is_refused():
    with pytest.raises(ValueError, match="from 1 to 5"):
        Robustness(6, Column.KERNEL_MODE)
