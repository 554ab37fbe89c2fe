"""Every log-source row of AN1702 has evidence that satisfies it and telemetry that the evidence needs."""

from collections import Counter

import pytest

from relaywatch.attack.provenance import attack_provenance, mutable_elements
from relaywatch.attack.requirements import REQUIREMENTS, log_sources_for
from relaywatch.model.schemas import TABLES, SignalKind


def test_every_row_of_the_analytic_is_required_once_and_nothing_else_counts_as_its_own():
    rows = [row.data_component for row in attack_provenance(set()).log_sources]
    assert sorted(r.data_component for r in REQUIREMENTS if r.analytic) == sorted(rows)


def test_state_of_the_app_and_what_only_explains_are_marked_as_extensions():
    assert [r.data_component for r in REQUIREMENTS if not r.analytic] == ["DC0123", "DC0078"]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.data_component)
def test_row_has_evidence_and_telemetry_that_exists(requirement):
    assert requirement.evidence
    assert requirement.telemetry
    for telemetry in requirement.telemetry:
        assert set(telemetry.columns) <= set(TABLES[telemetry.table].names)
        assert set(telemetry.kinds) <= set(SignalKind.__members__)
        assert bool(telemetry.kinds) == (telemetry.table == "signals")
        assert telemetry.sources
        assert telemetry.why


def test_every_mutable_element_judges_evidence_and_nothing_else_is_named_one():
    named = {name for requirement in REQUIREMENTS for name in requirement.settings}
    assert named == set(mutable_elements())


def test_each_item_of_evidence_is_declared_once():
    declared = Counter(name for requirement in REQUIREMENTS for name in requirement.evidence)
    assert set(declared.values()) == {1}


@pytest.mark.parametrize(
    ("evidence", "rows"),
    [
        ("conserved bridges", ["DC0085"]),
        ("link mirrors targets", ["DC0085"]),
        ("unrelated destinations", ["DC0078"]),
        ("listener", ["DC0021"]),
        ("vpn or proxy setting", ["DC0021"]),
        ("no approved role", ["DC0114"]),
        ("background", []),
        ("no recent interaction", []),
        ("destinations of this install only", []),
        ("public-IP look-up", []),
        ("proxyware indicator", []),
    ],
)
def test_evidence_leads_to_the_rows_that_it_satisfies(evidence, rows):
    assert log_sources_for(evidence) == rows


def test_evidence_that_nobody_declared_is_refused():
    with pytest.raises(KeyError, match="conservd bridges"):
        log_sources_for("conservd bridges")
