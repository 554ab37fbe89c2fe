"""What the vendored ATT&CK objects promise: they are MITRE's, whole, and exactly the version that is claimed."""

import json
from importlib import resources

import pytest

from relaywatch.attack.provenance import (
    analytic,
    attack_provenance,
    canonical_digest,
    external_id,
    mutable_elements,
    vendored_from,
    vendored_objects,
)

ANALYTIC_DIGEST = "e31bfbbedefb0ce4fd8e514ffd932935d0c45006b3be3f1c7fc6fa40d457ae32"


def of_type(kind):
    return [stix for stix in vendored_objects().values() if stix["type"] == kind]


def test_analytic_has_not_drifted():
    stated = attack_provenance(set())
    assert stated.analytic_id == "AN1702"
    assert stated.analytic_stix_id == "x-mitre-analytic--cb78ff0f-6f8a-41a8-a199-4660a0addec9"
    assert stated.analytic_version == "1.1"
    assert stated.analytic_modified == "2026-05-12T16:30:18.382Z"
    assert stated.analytic_digest == ANALYTIC_DIGEST


def test_finding_names_release_strategy_technique_and_tactic():
    stated = attack_provenance(set())
    assert (stated.release, stated.domain) == ("19.1", "mobile-attack")
    assert (stated.strategy_id, stated.technique_id) == ("DET0631", "T1604")
    assert stated.technique_name == "Proxy Through Victim"
    assert stated.tactics == ["defense-evasion"]


def test_satisfied_rows_are_marked_and_the_others_are_not():
    rows = attack_provenance({"DC0085", "DC0021"}).log_sources
    assert [(row.data_component, row.satisfied) for row in rows] == [
        ("DC0021", True),
        ("DC0114", False),
        ("DC0078", False),
        ("DC0085", True),
    ]


def test_components_have_the_names_of_the_stated_release():
    names = {row.data_component: row.data_component_name for row in attack_provenance(set()).log_sources}
    assert names == {
        "DC0021": "OS API Execution",
        "DC0114": "Application Permission",
        "DC0078": "Network Traffic Flow",
        "DC0085": "Network Traffic Content",
    }


def test_component_outside_the_analytic_is_refused():
    with pytest.raises(ValueError, match="DC0123"):
        attack_provenance({"DC0123"})


def test_digest_does_not_depend_on_key_order_and_sees_every_change():
    stix = analytic()
    assert canonical_digest(dict(reversed(stix.items()))) == ANALYTIC_DIGEST
    assert canonical_digest(stix | {"x_mitre_deprecated": True}) != ANALYTIC_DIGEST


def test_chain_from_technique_to_components_is_whole():
    objects = vendored_objects()
    (strategy,) = of_type("x-mitre-detection-strategy")
    (detects,) = (stix for stix in of_type("relationship") if stix["relationship_type"] == "detects")
    assert detects["source_ref"] == strategy["id"]
    assert objects[detects["target_ref"]]["type"] == "attack-pattern"
    assert strategy["x_mitre_analytic_refs"] == [analytic()["id"]]
    for reference in analytic()["x_mitre_log_source_references"]:
        assert objects[reference["x_mitre_data_component_ref"]]["type"] == "x-mitre-data-component"


def test_analytic_obeys_the_rules_of_its_schema():
    stix = analytic()
    assert len(stix["x_mitre_platforms"]) == 1
    triples = [tuple(row.values()) for row in stix["x_mitre_log_source_references"]]
    assert all(
        set(row) == {"x_mitre_data_component_ref", "name", "channel"} for row in stix["x_mitre_log_source_references"]
    )
    assert all(all(triple) for triple in triples)
    assert len(set(triples)) == len(triples) == 4
    assert all(set(e) == {"field", "description"} and all(e.values()) for e in stix["x_mitre_mutable_elements"])
    assert len(mutable_elements()) == len(stix["x_mitre_mutable_elements"]) == 8


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("x-mitre-analytic", "AN"),
        ("x-mitre-detection-strategy", "DET"),
        ("x-mitre-data-component", "DC"),
        ("attack-pattern", "T"),
        ("malware", "S"),
    ],
)
def test_ids_have_their_kinds_form(kind, prefix):
    for stix in of_type(kind):
        assert stix["id"].startswith(f"{kind}--")
        assert external_id(stix).startswith(prefix)
        assert external_id(stix).removeprefix(prefix).isdigit()
        assert not stix.get("revoked")
        assert not stix["x_mitre_deprecated"]


def test_software_that_uses_the_technique_is_here_with_its_relation():
    objects = vendored_objects()
    uses = [stix for stix in of_type("relationship") if stix["relationship_type"] == "uses"]
    assert sorted(external_id(objects[stix["source_ref"]]) for stix in uses) == ["S0522", "S1067"]
    assert {external_id(objects[stix["target_ref"]]) for stix in uses} == {"T1604"}


def test_objects_say_which_release_they_were_taken_from():
    releases = {stix_id: vendored_from(stix_id) for stix_id in vendored_objects()}
    assert releases.pop(analytic()["id"]) == "19.1"
    assert set(releases.values()) == {"18.1"}


def test_objects_without_attack_id_say_so():
    (identity,) = of_type("identity")
    with pytest.raises(KeyError, match="has no ATT&CK id"):
        external_id(identity)


def test_marking_and_author_of_every_object_are_here():
    objects = vendored_objects()
    for stix in objects.values():
        assert set(stix.get("object_marking_refs", ())) <= set(objects)
        assert stix.get("created_by_ref", stix["id"]) in objects


def test_mitres_terms_travel_with_the_objects():
    folder = resources.files("relaywatch.attack") / "objects"
    notice = (folder / "LICENCE-NOTICE.md").read_text("utf-8")
    assert "reproduced and distributed with the permission of The MITRE Corporation" in notice
    assert "non-exclusive, royalty-free license" in notice
    files = [json.loads(entry.read_text("utf-8"))["id"] for entry in folder.iterdir() if entry.name.endswith(".json")]
    assert len(files) == len(set(files)) == 14
