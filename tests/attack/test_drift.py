"""Drift is told field by field, by what entries are about, with what of relaywatch each change touches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stix_examples import (
    ANALYTIC,
    FLOW,
    STATE,
    STRATEGY,
    TECHNIQUE,
    application_state,
    further_analytic,
    mitigation,
    relation,
    same,
    software,
)

from relaywatch.attack.drift import LISTED, PRESENT, Change, compare
from relaywatch.attack.release import Release, vendored_release

ROWS = "x_mitre_log_source_references"
ELEMENTS = "x_mitre_mutable_elements"


def drift(stix: dict[str, dict], *others: dict, whole: bool = True):
    every = stix | {entry["id"]: entry for entry in others}
    return compare(vendored_release(), Release("19.9", "x.json", every, {}, whole))


def changes(stix: dict[str, dict], *others: dict) -> list[Change]:
    return list(drift(stix, *others).changes)


def test_same_objects_have_not_drifted():
    assert changes(same()) == []


def test_order_of_entries_and_form_of_stix_are_no_drift():
    own = same()
    for stix in own.values():
        stix |= {"spec_version": "2.1"}
        stix.setdefault("revoked", False)
        stix.setdefault("x_mitre_deprecated", False)
        for value in stix.values():
            if isinstance(value, list):
                value.reverse()
    own[TECHNIQUE].pop("x_mitre_detection")
    assert changes(own) == []


def test_changed_channel_of_a_row_touches_the_components_evidence_settings_and_telemetry():
    own = same()
    (row,) = (r for r in own[ANALYTIC][ROWS] if r["x_mitre_data_component_ref"] == FLOW)
    before, row["channel"] = row["channel"], "App-attributed fan-out"
    (change,) = changes(own)
    assert (change.label, change.field, change.key) == ("AN1702", ROWS, "DC0078 NSM:Flow")
    assert (change.before, change.after) == (before, "App-attributed fan-out")
    assert "unrelated destinations" in change.bearing.evidence
    assert "ConcurrentDestinationThreshold" in change.bearing.settings
    assert {need.table for need in change.bearing.telemetry} == {"flows"}


def test_changed_text_of_a_mutable_element_touches_its_setting_and_what_it_judges():
    own = same()
    own[ANALYTIC][ELEMENTS][0]["description"] = "Another meaning"
    (change,) = changes(own)
    assert (change.field, change.key, change.after) == (ELEMENTS, "TimeWindow", "Another meaning")
    assert change.bearing.settings == ("TimeWindow",)
    assert change.bearing.evidence == ("conserved bridges", "link mirrors targets")


def test_new_mutable_element_is_named_as_a_setting_that_must_be_made():
    own = same()
    own[ANALYTIC][ELEMENTS].append({"field": "RecentUserInteractionWindow", "description": "Since the last touch"})
    (change,) = changes(own)
    assert (change.before, change.after) == (None, "Since the last touch")
    assert change.bearing.settings == ("RecentUserInteractionWindow",)


def test_citing_application_state_is_told_with_the_evidence_that_there_is():
    own = same()
    row = {"name": "MobileEDR:telemetry", "channel": "AppState=background when traffic is relayed"}
    own[ANALYTIC][ROWS].append({"x_mitre_data_component_ref": STATE} | row)
    cited, new = changes(own, application_state())
    assert (cited.field, cited.key) == (ROWS, "DC0123 MobileEDR:telemetry")
    assert cited.bearing.evidence == ("background", "no recent interaction")
    assert "makes it a row of AN1702" in cited.bearing.note
    assert (new.subject, new.field, new.after) == ("DC0123 Application State", "", PRESENT)


def test_row_on_a_component_without_evidence_says_that_there_is_none():
    own = same()
    other = application_state() | {"id": "x-mitre-data-component--00000000-0000-4000-8000-000000000000"}
    other["external_references"] = [{"source_name": "mitre-attack", "external_id": "DC0999"}]
    own[ANALYTIC][ROWS].append({"x_mitre_data_component_ref": other["id"], "name": "n", "channel": "c"})
    assert "nothing here gives evidence for DC0999" in changes(own, other)[0].bearing.note


def test_log_source_of_a_component_matters_only_where_an_analytic_cites_it():
    own = same()
    row = next(r for r in own[ANALYTIC][ROWS] if r["x_mitre_data_component_ref"] == FLOW)
    own[FLOW]["x_mitre_log_sources"] += [
        {"name": row["name"], "channel": row["channel"]},
        {"name": "NSM:Flow", "channel": "Something else"},
    ]
    cited, other = changes(own)
    assert (cited.after, other.after) == (LISTED, LISTED)
    assert "unrelated destinations" in cited.bearing.evidence
    assert other.key == "NSM:Flow | Something else"
    assert other.bearing.evidence == ()
    assert other.bearing.note == "no analytic of DET0631 cites it"


def test_further_analytic_of_the_strategy_is_told_as_not_implemented():
    own, new = same(), further_analytic()
    own[STRATEGY]["x_mitre_analytic_refs"].append(new["id"])
    found = {change.subject: change for change in changes(own, new)}
    refs, added = found["DET0631 Detection of Proxy Through Victim"], found["AN9999 Analytic 9999"]
    assert (refs.field, refs.key, refs.after) == ("x_mitre_analytic_refs", "AN9999", LISTED)
    assert (added.before, added.after) == (None, PRESENT)
    assert "nothing here implements" in added.bearing.note


@pytest.mark.parametrize(
    ("other", "kind", "note"),
    [
        (software("S9001", "Newproxy"), "uses", "software that relays"),
        (mitigation("M9001", "Newadvice"), "mitigates", "what ATT&CK advises"),
    ],
)
def test_new_relation_of_the_technique_is_told_with_its_other_end(other, kind, note):
    own, name = same(), other["name"]
    new = relation(other["id"], kind)
    vendored = vendored_release()
    number = other["external_references"][0]["external_id"]
    release = Release("19.9", "", own | {new["id"]: new}, {other["id"]: f"{number} {name}"}, whole=True)
    (change,) = compare(vendored, release).changes
    assert change.subject == f"{number} {name} {kind} T1604 Proxy Through Victim"
    assert (change.label, change.after) == (kind, PRESENT)
    assert note in change.bearing.note


def test_object_that_a_whole_release_lacks_was_removed_and_of_a_part_nothing_is_concluded():
    own = same()
    del own[ANALYTIC]
    (change,) = changes(own)
    assert (change.label, change.field, change.before, change.after) == ("AN1702", "", PRESENT, None)
    assert len(change.bearing.settings) == 8
    part = drift(own, whole=False)
    assert part.changes == ()
    assert part.absent == ("AN1702 Analytic 1702",)


def test_revoked_analytic_touches_everything():
    own = same()
    own[ANALYTIC]["revoked"] = True
    (change,) = changes(own)
    assert (change.before, change.after) == (None, True)
    assert len(change.bearing.settings) == 8


def test_version_and_dates_touch_what_findings_state():
    own = same()
    own[ANALYTIC] |= {"x_mitre_version": "1.2", "modified": "2027-01-01T00:00:00.000Z"}
    found = changes(own)
    assert [(change.field, change.bearing.note) for change in found] == [
        ("modified", "every finding states it"),
        ("x_mitre_version", "every finding states it"),
    ]


def test_renamed_component_touches_what_carries_the_name():
    own = same()
    own[FLOW]["name"] = "Flows"
    (change,) = changes(own)
    assert "carry the name" in change.bearing.note


def test_tactic_of_the_technique_is_compared_by_chain():
    own = same()
    own[TECHNIQUE]["kill_chain_phases"][0]["phase_name"] = "stealth"
    (change,) = changes(own)
    assert (change.key, change.before, change.after) == ("mitre-mobile-attack", "defense-evasion", "stealth")


def test_fields_that_are_not_of_attack_are_no_drift():
    own = same()
    own[TECHNIQUE]["name_fa"] = "…"
    assert changes(own) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(same())), st.data())
def test_any_other_value_is_drift_of_that_field_alone(stix_id, data):
    own = same()
    name = data.draw(st.sampled_from(sorted(own[stix_id].keys() - {"type", "id", "spec_version", "relationship_type"})))
    before, own[stix_id][name] = own[stix_id][name], data.draw(JSON)
    found = changes(own)
    assert {(change.stix_id, change.field) for change in found} <= {(stix_id, name)}
    if bool(before) != bool(own[stix_id][name]):
        assert found
