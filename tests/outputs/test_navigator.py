"""The layer has what the published format asks for, of the types that it asks for.

The check is written again from mitre-attack/attack-navigator, layers/spec/v4.5/layerformat.md.
"""

import json
import re
from dataclasses import replace
from datetime import date

import pytest
from coverage_examples import ATTACK, COVERAGE, COVERAGES, SCOPE, SCORES, without

from relaywatch.outputs.coverage_scores import Score
from relaywatch.outputs.dettect import Scope, TechniqueScores
from relaywatch.outputs.navigator import navigator_layer

COLOUR = re.compile(r"#[0-9a-f]{6}")
NUMBER = (int, float)
LAYER = {"name": str, "domain": str}
LAYER_OPTIONAL = {
    "versions": dict,
    "description": str,
    "customDataURL": str,
    "filters": dict,
    "sorting": NUMBER,
    "layout": dict,
    "hideDisabled": bool,
    "techniques": list,
    "gradient": dict,
    "legendItems": list,
    "showTacticRowBackground": bool,
    "tacticRowBackground": str,
    "selectTechniquesAcrossTactics": bool,
    "selectSubtechniquesWithParent": bool,
    "selectVisibleTechniques": bool,
    "metadata": list,
    "links": list,
}
TECHNIQUE_OPTIONAL = {
    "tactic": str,
    "comment": str,
    "enabled": bool,
    "score": NUMBER,
    "color": str,
    "metadata": list,
    "links": list,
    "showSubtechniques": bool,
}


def fields(entry: dict, required: dict, optional: dict) -> list[str]:
    known = required | optional
    faults = [f"lacks {name}" for name in required.keys() - entry.keys()]
    faults += [f"unknown {name}" for name in entry.keys() - known.keys()]
    return faults + [f"{name} is {value!r}" for name, value in entry.items() if not isinstance(value, known[name])]


def listed(entries: list[dict], names: tuple[str, str]) -> list[str]:
    """Metadata and links: both strings, not empty; or a divider."""
    texts = dict.fromkeys(names, str)
    faults = []
    for entry in entries:
        divider = entry.keys() == {"divider"}
        faults += fields(entry, {"divider": bool}, {}) if divider else fields(entry, texts, {})
        faults += [f"{name} is empty" for name in names if not divider and not entry[name]]
    return faults


def layer_faults(layer: dict) -> list[str]:
    faults = fields(layer, LAYER, LAYER_OPTIONAL)
    if layer["domain"] not in {"enterprise-attack", "mobile-attack", "ics-attack"}:
        faults.append("domain")
    faults += fields(layer["versions"], {"navigator": str, "layer": str}, {"attack": str})
    if layer["versions"]["layer"] != "4.5" or tuple(map(int, layer["versions"]["navigator"].split("."))) < (4, 9, 0):
        faults.append("versions")
    if not set(layer["filters"]["platforms"]) <= {"Android", "iOS"}:
        faults.append("platforms")
    gradient = layer["gradient"]
    faults += fields(gradient, {"colors": list, "minValue": NUMBER, "maxValue": NUMBER}, {})
    if len(gradient["colors"]) < 2 or not gradient["minValue"] < gradient["maxValue"]:
        faults.append("gradient")
    colours = [*gradient["colors"], *(item["color"] for item in layer["legendItems"])]
    faults += [colour for colour in colours if not COLOUR.fullmatch(colour)]
    for item in layer["legendItems"]:
        faults += fields(item, {"label": str, "color": str}, {})
    faults += listed(layer["metadata"], ("name", "value"))
    for technique in layer["techniques"]:
        faults += fields(technique, {"techniqueID": str}, TECHNIQUE_OPTIONAL)
        faults += listed(technique["metadata"], ("name", "value")) + listed(technique["links"], ("label", "url"))
        if not re.fullmatch(r"T\d{4}(\.\d{3})?", technique["techniqueID"]):
            faults.append("techniqueID")
        faults += [link["url"] for link in technique["links"] if not link["url"].startswith("https://")]
    return faults


def layer(**changes) -> dict:
    given = {"scores": SCORES, "coverages": COVERAGES, "attack": ATTACK, "scope": SCOPE} | changes
    return json.loads(json.dumps(navigator_layer(**given), allow_nan=False))


def test_layer_is_as_the_published_format_says():
    assert layer_faults(layer()) == []


def test_technique_has_the_newest_detection_score_under_its_tactic():
    (technique,) = layer()["techniques"]
    assert (technique["techniqueID"], technique["tactic"]) == ("T1604", "defense-evasion")
    assert (technique["score"], technique["comment"]) == (3, "flows joined to apps")


def test_layer_names_release_analytic_and_digest():
    made = layer()
    assert (made["domain"], made["versions"]["attack"]) == ("mobile-attack", "19")
    said = {entry["name"]: entry["value"] for entry in made["metadata"]}
    assert said["Analytic"] == "AN1702 1.1, ATT&CK 19.1"
    assert said["Analytic SHA-256"] == ATTACK.analytic_digest
    (technique,) = made["techniques"]
    assert technique["links"] == [
        {"label": "DET0631", "url": "https://attack.mitre.org/detectionstrategies/DET0631#AN1702"}
    ]


def test_metadata_says_visibility_and_each_components_quality():
    (technique,) = layer(coverages=without("OS API Execution"))["techniques"]
    said = {entry["name"]: entry["value"] for entry in technique["metadata"] if "name" in entry}
    assert said["Visibility"] == "4 of 4, 2026-11-01: all four components"
    assert said["OS API Execution"] == "not there"
    assert said["Network Traffic Flow"] == (
        "devices 4, fields 5, timeliness 4, consistency 3, retention 5; Zeek, PCAPdroid"
    )


@pytest.mark.parametrize("score", range(-1, 6))
def test_every_score_has_its_own_colour_in_gradient_and_legend(score):
    made = layer(scores=TechniqueScores((Score(date(2026, 1, 1), score),), (Score(date(2026, 1, 1), 0),)))
    gradient = made["gradient"]
    step = (gradient["maxValue"] - gradient["minValue"]) / (len(gradient["colors"]) - 1)
    colour = gradient["colors"][round((score - gradient["minValue"]) / step)]
    (item,) = (item for item in made["legendItems"] if item["color"] == colour)
    assert item["label"].startswith(f"Detection {score}: ")
    assert layer_faults(made) == []


def test_empty_and_hostile_texts_make_no_broken_layer():
    odd = replace(COVERAGE, component="", products=("\x1b[2J\u202e", ""))
    made = layer(coverages=[odd], scope=Scope("", "\x07phones", date(2026, 11, 1)))
    assert layer_faults(made) == []
    assert not set(json.dumps(made, ensure_ascii=False)) & set("\x1b\x07\u202e")
