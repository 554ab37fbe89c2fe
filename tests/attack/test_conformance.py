"""Objects that are not as ATT&CK's data model says are named, with field and reason; the vendored ones are sound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stix_examples import ANALYTIC, CONTENT, FLOW, STATE, STRATEGY, TECHNIQUE, objects, relation, same

from relaywatch.attack.conformance import MOST_PROBLEMS, problems
from relaywatch.attack.release import Release, vendored_release


def told(stix: dict[str, dict], *, whole: bool = False) -> list[tuple[str, str, str]]:
    """(object, field, reason) of a release with these objects."""
    release = Release("19.9", "x.json", stix, {}, whole)
    return [(problem.object, problem.field, problem.reason) for problem in problems(release)]


def test_vendored_objects_have_no_problem():
    assert problems(vendored_release()) == []


def test_objects_of_one_release_have_no_problem():
    assert told(objects(), whole=True) == []


ANALYTIC_BREACHES = [
    ({"x_mitre_platforms": ["Android", "iOS"]}, "x_mitre_platforms", "at most 1"),
    ({"description": None}, "description", "string"),
    ({"name": ""}, "name", "at least 1"),
    ({"x_mitre_version": "1.1.0"}, "x_mitre_version", "match pattern"),
    ({"x_mitre_attack_spec_version": "3.3"}, "x_mitre_attack_spec_version", "match pattern"),
    ({"modified": "yesterday"}, "modified", "match pattern"),
    ({"x_mitre_domains": []}, "x_mitre_domains", "at least 1"),
    ({"object_marking_refs": []}, "object_marking_refs", "at least 1"),
    ({"created_by_ref": "MITRE"}, "created_by_ref", "match pattern"),
    ({"x_mitre_deprecated": "no"}, "x_mitre_deprecated", "boolean"),
    ({"x_mitre_mutable_elements": []}, "x_mitre_mutable_elements", "at least 1"),
    ({"x_mitre_mutable_elements": [{"field": "TimeWindow"}]}, "x_mitre_mutable_elements.0.description", "required"),
    ({"x_mitre_log_source_references": 4}, "x_mitre_log_source_references", "list"),
    ({"external_references": [{"source_name": "mitre-attack", "external_id": "DC0001"}]}, "", "match pattern"),
    ({"external_references": [{"source_name": "blog", "external_id": "AN1702"}]}, "", "not ATT&CK's own"),
    ({"id": "x-mitre-analytic--1"}, "id", "match pattern"),
    ({"id": STATE}, "", "does not begin with the type"),
]


@pytest.mark.parametrize(("change", "field", "reason"), ANALYTIC_BREACHES)
def test_analytic_that_breaks_a_rule_is_told(change, field, reason):
    own = objects()
    own[ANALYTIC] |= change
    assert any(place == field and reason in why for _, place, why in told(own)), told(own)


@pytest.mark.parametrize("name", ["created_by_ref", "object_marking_refs", "x_mitre_version", "external_references"])
def test_required_field_that_is_missing_is_told(name):
    own = objects()
    del own[ANALYTIC][name]
    assert any((place, why) == (name, "Field required") for _, place, why in told(own))


def test_log_source_row_given_twice_is_told():
    own = objects()
    rows = own[ANALYTIC]["x_mitre_log_source_references"]
    rows.append(dict(rows[0]))
    assert [(entry[:2], "more than once" in entry[2]) for entry in told(own)] == [
        (("AN1702", "x_mitre_log_source_references"), True)
    ]


def test_mutable_element_given_twice_is_told():
    own = objects()
    own[ANALYTIC]["x_mitre_mutable_elements"].append({"field": "TimeWindow", "description": "Again"})
    assert told(own) == [("AN1702", "", "given more than once: TimeWindow")]


def test_row_that_its_data_component_does_not_list_is_told_where_the_component_is_at_hand():
    own = objects()
    own[FLOW]["x_mitre_log_sources"].pop()
    ((what, field, reason),) = told(own)
    assert (what, field) == ("AN1702", "x_mitre_log_source_references (NSM:Flow)")
    assert reason.startswith("DC0078 here lists no such log source: App-attributed traffic")
    del own[FLOW]
    assert told(own) == []


def test_log_source_listed_twice_by_a_component_is_told():
    own = objects()
    listed = own[CONTENT]["x_mitre_log_sources"]
    listed.append(listed[0])
    assert [entry[:2] for entry in told(own)] == [("DC0085", "x_mitre_log_sources")]


def test_analytic_and_component_that_a_whole_release_lacks_are_told():
    own = objects()
    other = "x-mitre-analytic--00000000-0000-4000-8000-000000000000"
    own[STRATEGY]["x_mitre_analytic_refs"].append(other)
    del own[FLOW]
    assert [(entry[0], entry[1]) for entry in told(own, whole=True)] == [("AN1702", FLOW), ("DET0631", other)]
    assert told(own) == []


@pytest.mark.parametrize(
    ("source", "kind", "target"),
    [
        (TECHNIQUE, "uses", TECHNIQUE),
        (STRATEGY, "mitigates", TECHNIQUE),
        (ANALYTIC, "detects", TECHNIQUE),
        (ANALYTIC, "revoked-by", STRATEGY),
        (TECHNIQUE, "likes", TECHNIQUE),
    ],
)
def test_relation_that_attack_does_not_know_is_told(source, kind, target):
    odd = relation(source, kind, target)
    assert [entry[0] for entry in told({odd["id"]: odd})] == [kind]


def test_fields_of_a_changed_copy_are_named():
    own = objects()
    own[TECHNIQUE] |= {"name_fa": "…", "description_fa": "…"}
    assert told(own) == [("T1604", "description_fa, name_fa", "no field of STIX or ATT&CK; not compared")]


def test_problems_of_one_object_are_bounded():
    own = objects()
    own[ANALYTIC]["x_mitre_mutable_elements"] = [{}] * 5_000
    assert len(told(own)) == MOST_PROBLEMS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(same())), st.data())
def test_no_value_in_any_field_is_a_fault(stix_id, data):
    own = same()
    name = data.draw(st.sampled_from(sorted(own[stix_id].keys() - {"type", "id"})))
    own[stix_id][name] = data.draw(JSON)
    assert isinstance(told(own, whole=True), list)
