"""A release is read from any form that ATT&CK is published in; what is hostile or damaged costs itself, in bounds."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stix_examples import (
    ANALYTIC,
    STATE,
    TECHNIQUE,
    application_state,
    bundle,
    collection,
    common,
    folder,
    further_analytic,
    relation,
    same,
    software,
)

from relaywatch.attack import release as reading
from relaywatch.attack.release import Release, attack_id, read_release, vendored_release
from relaywatch.model.errors import SourceError


def others(count: int) -> list[dict]:
    """Techniques that have nothing to do with AN1702."""
    numbers = [f"T{number:04}" for number in range(count)]
    return [common("attack-pattern", number, f"Other {number}", "https://attack.mitre.org/") for number in numbers]


def test_bundle_is_named_after_its_collection_and_keeps_only_what_concerns_us(tmp_path):
    path = bundle(tmp_path / "mobile.json", collection("19.9"), *others(300), *same().values())
    release = read_release(path)
    assert (release.name, release.path, release.whole) == ("19.9", str(path), True)
    assert release.objects == vendored_release().objects
    assert release.remarks == ()


def test_folder_of_single_objects_is_the_same_release_as_the_bundle(tmp_path):
    release = read_release(folder(tmp_path / "mobile-attack", *others(300), *same().values()))
    assert (release.name, release.whole) == ("mobile-attack", True)
    assert release.objects == vendored_release().objects


def test_lone_object_without_a_bundle_is_a_part_of_a_release(tmp_path):
    path = tmp_path / "AN1702.v1.1.json"
    path.write_text(json.dumps(same()[ANALYTIC]))
    release = read_release(path)
    assert (release.name, release.whole, list(release.objects)) == ("AN1702.v1.1", False, [ANALYTIC])


def test_what_stands_in_a_relation_is_found_wherever_it_stands_in_the_bundle(tmp_path):
    own = same()
    own[ANALYTIC]["x_mitre_log_source_references"].append(
        {"x_mitre_data_component_ref": STATE, "name": "MobileEDR:telemetry", "channel": "AppState=background"}
    )
    proxy = software("S9001", "Newproxy")
    unrelated = relation(proxy["id"], "uses", others(1)[0]["id"])
    new = [relation(proxy["id"], "uses"), application_state(), further_analytic()]
    release = read_release(bundle(tmp_path / "b.json", *new, unrelated, *own.values(), proxy))
    assert release.objects.keys() - own.keys() == {stix["id"] for stix in new}
    assert release.names[proxy["id"]] == "S9001 Newproxy"


def test_data_component_that_nobody_cites_is_left_out(tmp_path):
    assert STATE not in read_release(bundle(tmp_path / "b.json", *same().values(), application_state())).objects


def test_object_under_a_new_stix_id_is_found_by_its_attack_id(tmp_path):
    moved = same()[ANALYTIC] | {"id": "x-mitre-analytic--00000000-0000-4000-8000-000000000000"}
    assert list(read_release(bundle(tmp_path / "b.json", moved)).objects) == [moved["id"]]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_versions_the_last_modified_is_taken_and_the_choice_is_told(tmp_path, order):
    new = same()[ANALYTIC]
    old = new | {"modified": "2025-10-21T15:10:28.402Z", "x_mitre_version": "1.0"}
    release = read_release(bundle(tmp_path / "b.json", *[old, new][::order]))
    assert release.objects[ANALYTIC]["x_mitre_version"] == "1.1"
    assert "AN1702 is here in several versions" in release.remarks[0]


def test_folder_of_several_releases_says_so(tmp_path):
    for version in ("18.1", "19.1"):
        bundle(tmp_path / f"mobile-attack-{version}.json", collection(version, f"20{version}"), *same().values())
    release = read_release(tmp_path)
    assert release.name == "19.1"
    assert "several releases are here (18.1, 19.1)" in release.remarks[0]


def test_release_of_another_domain_is_refused_with_what_to_give(tmp_path):
    components = [stix for stix in same().values() if stix["type"] == "x-mitre-data-component"]
    path = bundle(tmp_path / "enterprise.json", collection("19.1"), *others(5), *components)
    with pytest.raises(SourceError, match=r"none of AN1702, DET0631 and T1604 among 10 .*mobile-attack-19.1.json"):
        read_release(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no sound JSON"),
        (b"not json", "no sound JSON"),
        (b'{"type": "bundle", "objects": [{"type": "x", "id":', "no sound JSON"),
        (b'{"type": "bundle", "objects": []}', "no object that concerns AN1702"),
        (b"[1, 2]", "no object that concerns AN1702"),
        (b'{"type": "bundle", "objects": [1, null, {"type": 4, "id": []}]}', "no object that concerns AN1702"),
        (b"[" * 200_000, "nests deeper"),
        (b'{"a": ' * 200_000, "nests deeper"),
        (b'{"objects": [' + b'{"a": [' * 40 + b"]}" * 40 + b"]}", "nests deeper"),
        (b'{"objects": [{"id": "\xff"}]}', "no sound JSON"),
        (b'{"objects": [' + b"9" * 5_000 + b"]}", "no sound JSON"),
    ],
)
def test_file_that_is_no_release_is_refused_in_a_sentence(tmp_path, content, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=reason) as refused:
        read_release(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        read_release(tmp_path / "absent.json")


def test_damaged_file_of_a_folder_costs_itself_and_then_nothing_counts_as_removed(tmp_path):
    folder(tmp_path, *others(300), *same().values())
    (tmp_path / "broken.json").write_text('{"type": "bundle", "objects": [')
    release = read_release(tmp_path)
    assert release.objects == vendored_release().objects
    assert not release.whole
    assert "broken.json" in release.remarks[0]


def test_links_in_a_folder_are_not_followed(tmp_path):
    outside = bundle(tmp_path / "outside.json", same()[TECHNIQUE])
    inside = folder(tmp_path / "release", same()[ANALYTIC])
    (inside / "link.json").symlink_to(outside)
    (inside / "round").symlink_to(inside)
    assert list(read_release(inside).objects) == [ANALYTIC]


def test_object_nested_beyond_bounds_is_left_out_and_told(tmp_path):
    folder(tmp_path, same()[TECHNIQUE])
    deep: list = []
    for _ in range(28):
        deep = [deep]
    (tmp_path / "lone.json").write_text(json.dumps(same()[ANALYTIC] | {"x_mitre_deep": {"a": {"b": {"c": [deep]}}}}))
    release = read_release(tmp_path)
    assert list(release.objects) == [TECHNIQUE]
    assert "nests deeper" in release.remarks[0]
    assert not release.whole


def test_object_that_never_ends_stops_the_reading_in_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "OBJECT_BYTES", 1 << 18)
    path = tmp_path / "b.json"
    path.write_text('{"type": "bundle", "objects": [{"a": [' + "[]," * (1 << 18) + "[]]}]}")
    with pytest.raises(SourceError, match="without an object of a bundle"):
        read_release(path)


@pytest.mark.parametrize(
    "more", [{"x_mitre_a": list(range(5_000))}, {"x_mitre_a": "a" * 64 * 5_000}, {"a" * 320_000: 1}]
)
def test_no_more_is_kept_than_fits(tmp_path, monkeypatch, more):
    monkeypatch.setattr(reading, "MOST_KEPT", 5_000)
    release = read_release(bundle(tmp_path / "b.json", same()[TECHNIQUE], same()[ANALYTIC] | more))
    assert list(release.objects) == [TECHNIQUE]
    assert "too large" in release.remarks[0]
    assert not release.whole


def test_folder_that_is_given_as_a_dot_has_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(folder(tmp_path / "mobile-attack", *same().values()))
    assert read_release(Path()).name == "mobile-attack"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["external_references", "relationship_type", "source_ref", "modified", "name", "x_mitre_log_source_references"]
)


@given(st.lists(st.sampled_from(sorted(same())), min_size=1, max_size=4), st.dictionaries(FIELDS, JSON, max_size=3))
def test_any_value_in_any_field_is_read_without_a_fault(tmp_path_factory, which, values):
    path = tmp_path_factory.mktemp("stix") / "b.json"
    objects = [same()[stix_id] | values for stix_id in which]
    path.write_text(json.dumps({"type": "bundle", "objects": objects}))
    try:
        release = read_release(path)
    except SourceError:
        return
    assert release.objects.keys() <= set(which)
    assert all(attack_id(stix) is None or attack_id(stix) for stix in release.objects.values())


def test_label_is_the_attack_id_or_what_is_known():
    vendored = vendored_release()
    assert vendored.label(ANALYTIC) == "AN1702"
    assert {vendored.label(i) for i in vendored.objects if i.startswith("relationship")} == {"uses", "detects"}
    assert Release("x", "", {}, {"malware--1": "S0001 Name"}, whole=False).label("malware--1") == "S0001"
    assert vendored.label("malware--2") == "malware--2"
    assert Path(vendored.path) == Path()
