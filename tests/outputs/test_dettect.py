"""DeTT&CT's own health check finds nothing in the files, whatever the coverage.

The check is written again from DeTT&CT's: rabobank-cdc/DeTTECT, health.py, `check_health_data_sources`,
`_check_health_techniques`, `_check_health_score_object`, `_check_for_similar_values`; constants.py,
REGEX_YAML_TECHNIQUE_ID_FORMAT and the file versions. Platforms of the mobile domain as in sample-data/*-mobile.yaml.
"""

import re
from datetime import date, datetime
from difflib import SequenceMatcher

import pytest
import yaml
from coverage_examples import ATTACK, COVERAGE, COVERAGES, SCOPE, SCORES, without
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.outputs.coverage_scores import ComponentCoverage, Score
from relaywatch.outputs.dettect import Scope, TechniqueScores, data_source_administration, technique_administration

PLATFORMS = {"android", "ios"}
DIMENSIONS = ("device_completeness", "data_field_completeness", "timeliness", "consistency", "retention")


def is_date(value: object) -> bool:
    return all(hasattr(value, part) for part in ("year", "month", "day"))


def unhealthy_lists(entry: dict, keys: tuple[str, ...]) -> list[str]:
    lists = [key for key in keys if not isinstance(entry.get(key), list)]
    return lists + [f"{key} holds nothing" for key in keys if key not in lists and None in entry[key]]


def similar(values: set[str]) -> list[str]:
    pairs = [(a, b) for a in values for b in values if a < b]
    return [f"{a} ~ {b}" for a, b in pairs if 0.8 < SequenceMatcher(None, a, b).ratio() < 1]


def data_source_faults(document: dict) -> list[str]:
    faults, systems, used = [], set(), set()
    for system in document["systems"]:
        platform = system["platform"] if isinstance(system["platform"], list) else [system["platform"]]
        if not platform or not {p.lower() for p in platform} <= PLATFORMS:
            faults.append(f"platform {platform}")
        name = system["applicable_to"]
        if not name or name.lower() == "all" or name.lower() in systems:
            faults.append(f"system {name}")
        systems.add(name.lower())
    for source in document["data_sources"]:
        applicable = []
        for entry in source["data_source"]:
            needed = {"applicable_to", "date_registered", "date_connected", "products"}
            needed |= {"available_for_data_analytics", "comment", "data_quality"}
            faults += [f"lacks {key}" for key in needed - entry.keys()]
            faults += unhealthy_lists(entry, ("applicable_to", "products"))
            dates = (entry["date_registered"], entry["date_connected"])
            faults += [f"no date: {value}" for value in dates if value is not None and not is_date(value)]
            if not isinstance(entry["available_for_data_analytics"], bool):
                faults.append("available_for_data_analytics")
            for dimension in DIMENSIONS:
                value = entry["data_quality"].get(dimension)
                if not isinstance(value, int) or not 0 <= value <= 5:
                    faults.append(f"{dimension} {value}")
            applicable += entry["applicable_to"]
        if len(applicable) > len(set(applicable)):
            faults.append("a system twice")
        used |= {name.lower() for name in applicable}
    return faults + [f"unknown system {name}" for name in used - systems - {"all"}]


def score_faults(kind: str, entry: dict) -> list[str]:
    least, most = (-1, 5) if kind == "detection" else (0, 4)
    faults = [f"lacks {key}" for key in {"date", "score", "comment"} - entry.keys()]
    score, day = entry["score"], entry["date"]
    if not isinstance(score, int) or not least <= score <= most:
        faults.append(f"{kind} {score}")
    if day is None and score > least:
        faults.append("no date")
    if day is not None and not is_date(day):
        faults.append(f"no date: {day}")
    if not isinstance(entry.get("auto_generated", False), bool):
        faults.append("auto_generated")
    return faults


def technique_faults(document: dict) -> list[str]:
    faults, used = [], set()
    if not {p.lower() for p in document["platform"]} <= PLATFORMS:
        faults.append("platform")
    numbers = [technique["technique_id"] for technique in document["techniques"]]
    if len(numbers) > len(set(numbers)) or not all(re.match(r"T\d{4}(\.\d{3}|)", number) for number in numbers):
        faults.append("technique ids")
    for technique in document["techniques"]:
        for kind in ("detection", "visibility"):
            applicable = []
            for entry in technique[kind]:
                lists = ("applicable_to", "location") if kind == "detection" else ("applicable_to",)
                faults += [f"lacks {key}" for key in {*lists, "comment", "score_logbook"} - entry.keys()]
                faults += unhealthy_lists(entry, lists)
                for score in entry["score_logbook"]:
                    faults += score_faults(kind, score)
                applicable += entry["applicable_to"]
            if len(applicable) > len(set(applicable)):
                faults.append("a system twice")
            used |= set(applicable)
    return faults + similar(used)


def test_data_source_file_is_healthy_and_of_the_published_version():
    document = yaml.safe_load(data_source_administration(COVERAGES, ATTACK, SCOPE))
    assert data_source_faults(document) == []
    assert (document["version"], document["file_type"]) == (1.1, "data-source-administration")
    assert (document["domain"], document["name"]) == ("mobile-attack", "Field phones")
    assert document["systems"] == [{"applicable_to": "Managed phones", "platform": ["Android"]}]


def test_data_sources_are_attacks_data_components_and_ours_is_marked():
    document = yaml.safe_load(data_source_administration(COVERAGES, ATTACK, SCOPE))
    names = [source["data_source_name"] for source in document["data_sources"]]
    assert names[:4] == [row.data_component_name for row in ATTACK.log_sources]
    comments = {s["data_source_name"]: s["data_source"][0]["comment"] for s in document["data_sources"]}
    assert "relaywatch's extension" in comments.pop("Application State")
    assert set(comments.values()) == {""}


def test_data_source_holds_dates_products_and_scores():
    document = yaml.safe_load(data_source_administration([COVERAGE], ATTACK, SCOPE))
    ((details,),) = (source["data_source"] for source in document["data_sources"])
    assert details["date_registered"] == date(2026, 11, 1)
    assert details["date_connected"] == date(2026, 9, 1)
    assert details["products"] == ["Zeek", "PCAPdroid"]
    assert details["available_for_data_analytics"] is True
    assert details["data_quality"] == dict(zip(DIMENSIONS, (4, 5, 4, 3, 5), strict=True))


def test_component_that_is_not_there_is_listed_as_not_available():
    document = yaml.safe_load(data_source_administration(without("OS API Execution"), ATTACK, SCOPE))
    details = document["data_sources"][0]["data_source"][0]
    assert details["available_for_data_analytics"] is False
    assert set(details["data_quality"].values()) == {0}
    assert data_source_faults(document) == []


def test_technique_file_is_healthy_and_of_the_published_version():
    document = yaml.safe_load(technique_administration(SCORES, ATTACK, SCOPE))
    assert technique_faults(document) == []
    assert (document["version"], document["file_type"]) == (1.2, "technique-administration")
    assert (document["domain"], document["platform"]) == ("mobile-attack", ["Android"])
    (technique,) = document["techniques"]
    assert (technique["technique_id"], technique["technique_name"]) == ("T1604", "Proxy Through Victim")


def test_log_books_keep_every_score_newest_first():
    (technique,) = yaml.safe_load(technique_administration(SCORES, ATTACK, SCOPE))["techniques"]
    assert technique["detection"][0]["score_logbook"] == [
        {"date": date(2026, 11, 1), "score": 3, "comment": "flows joined to apps"},
        {"date": date(2026, 10, 1), "score": 1, "comment": "hunted by hand"},
    ]
    (visibility,) = technique["visibility"][0]["score_logbook"]
    assert visibility["auto_generated"] is False


def test_dates_are_written_without_quotes_and_nothing_is_an_anchor():
    for text in (
        data_source_administration(COVERAGES, ATTACK, SCOPE),
        technique_administration(SCORES, ATTACK, SCOPE),
    ):
        assert re.search(r"date\w*: \d{4}-\d\d-\d\d$", text, re.M)
        assert "&id" not in text
        assert not text.startswith("---")


AMBIGUOUS = st.sampled_from(
    ["yes", "NULL", "~", "1e3", "0o14", "12:30", "2026-01-01", "- a", "a: b", "#c", "", " x ", "'", "!!python/x", "*a"]
)
TEXTS = st.text(st.characters(), max_size=40) | AMBIGUOUS
SHARES = st.floats(0, 1)
SOME = st.none() | st.floats(0, 1e9)
DAYS = st.dates(date(1970, 1, 1), date(2100, 1, 1))
COVERED = st.builds(
    ComponentCoverage,
    TEXTS,
    SHARES,
    SHARES,
    SOME,
    SHARES,
    SOME,
    st.lists(TEXTS, max_size=3).map(tuple),
    st.none() | DAYS,
)


@given(st.lists(COVERED, max_size=4, unique_by=lambda one: one.component), TEXTS)
def test_any_coverage_gives_a_healthy_file_whose_texts_stay_texts(coverages, name):
    scope = Scope(name, "Phones", date(2026, 11, 1), notes=name)
    document = yaml.safe_load(data_source_administration(coverages, ATTACK, scope))
    assert data_source_faults(document) == []
    assert isinstance(document["name"], str)
    for source in document["data_sources"]:
        assert isinstance(source["data_source_name"], str)
        assert all(isinstance(product, str) for product in source["data_source"][0]["products"])


@given(st.lists(st.builds(Score, DAYS, st.integers(-1, 5), TEXTS), min_size=1, max_size=4), TEXTS)
def test_any_scores_give_a_healthy_file_with_as_many_entries(scores, comment):
    visibility = tuple(Score(score.day, max(0, min(score.value, 4)), score.comment) for score in scores)
    document = yaml.safe_load(
        technique_administration(TechniqueScores(tuple(scores), visibility, comment), ATTACK, SCOPE)
    )
    assert technique_faults(document) == []
    (technique,) = document["techniques"]
    days = [entry["date"] for entry in technique["detection"][0]["score_logbook"]]
    assert days == sorted((score.day for score in scores), reverse=True)
    assert not any(isinstance(day, datetime) for day in days)


def test_text_that_readers_of_other_yaml_versions_would_take_for_a_number_is_quoted():
    text = technique_administration(SCORES, ATTACK, Scope("1e3", "0o14", date(2026, 11, 1)))
    assert "name: '1e3'" in text
    assert "- '0o14'" in text


def test_hostile_product_names_hide_nothing():
    odd = ComponentCoverage("Network Traffic Flow", 1.0, 1.0, 1.0, 1.0, 1.0, ("a\x1b[2J\u202eb\nc: d",))
    text = data_source_administration([odd], ATTACK, SCOPE)
    assert not set(text) & set("\x1b\u202e")
    assert yaml.safe_load(text)["data_sources"][0]["data_source"][0]["products"] == ["a\\x1b[2J\\u202eb\\x0ac: d"]


@pytest.mark.parametrize("system", ["", " ", "all", "ALL"])
def test_system_needs_a_name_of_its_own(system):
    with pytest.raises(ValueError, match="name of its own"):
        Scope("x", system, date(2026, 11, 1))


def test_component_given_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        data_source_administration([COVERAGE, COVERAGE], ATTACK, SCOPE)


@pytest.mark.parametrize(
    ("detection", "visibility"), [((), (0,)), ((0,), ()), ((6,), (0,)), ((-2,), (0,)), ((0,), (5,)), ((0,), (-1,))]
)
def test_scores_outside_dettects_scales_are_refused(detection, visibility):
    day = date(2026, 11, 1)
    with pytest.raises(ValueError, match=r"scored|at least one"):
        TechniqueScores(tuple(Score(day, v) for v in detection), tuple(Score(day, v) for v in visibility))
