"""T1604's coverage as a layer of the ATT&CK Navigator.

Format: mitre-attack/attack-navigator, layers/spec/v4.5/layerformat.md. The score is DeTT&CT's detection score; what it
rests on stands in the comment and the metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from relaywatch.model.finding import Attack
from relaywatch.outputs.coverage_scores import ComponentCoverage, data_quality
from relaywatch.outputs.dettect import PLATFORM, Scope, TechniqueScores
from relaywatch.outputs.text import printable

LAYER_VERSION: Final = "4.5"
NAVIGATOR_VERSION: Final = "5.2.0"
"""Version of the Navigator with which the format was published; readers ask for 4.9.0 or later."""
_TEXT_CHARACTERS: Final = 2_000

LEVELS: Final = (
    (-1, "None", "#ff8a80"),
    (0, "Forensics or context only", "#ffd180"),
    (1, "Basic", "#fff59d"),
    (2, "Fair", "#dce775"),
    (3, "Good", "#aed581"),
    (4, "Very good", "#66bb6a"),
    (5, "Excellent", "#2e7d32"),
)
"""DeTT&CT's detection scores, their names, and our colours: one a score, so that the gradient gives each its own."""


def navigator_layer(
    scores: TechniqueScores, coverages: Sequence[ComponentCoverage], attack: Attack, scope: Scope
) -> dict[str, Any]:
    """The layer as JSON values. Of each log book the newest score counts."""
    detection = max(scores.detection, key=lambda score: score.day)
    visibility = max(scores.visibility, key=lambda score: score.day)
    metadata = [
        _entry("Detection", f"{detection.value} of 5, {detection.day.isoformat()}"),
        _entry("Visibility", f"{visibility.value} of 4, {visibility.day.isoformat()}: {visibility.comment}"),
        {"divider": True},
        *(_entry(coverage.component, _quality(coverage, scope)) for coverage in coverages),
    ]
    technique = {
        "techniqueID": attack.technique_id,
        "score": detection.value,
        "comment": _text(detection.comment),
        "enabled": True,
        "metadata": metadata,
        "links": [{"label": attack.strategy_id, "url": _page(attack)}],
    }
    return {
        "name": _text(scope.name),
        "versions": {
            "attack": attack.release.partition(".")[0],
            "navigator": NAVIGATOR_VERSION,
            "layer": LAYER_VERSION,
        },
        "domain": attack.domain,
        "description": _text(scope.notes),
        "filters": {"platforms": [PLATFORM]},
        "techniques": [technique | {"tactic": tactic} for tactic in attack.tactics],
        "gradient": {
            "colors": [colour for _, _, colour in LEVELS],
            "minValue": LEVELS[0][0],
            "maxValue": LEVELS[-1][0],
        },
        "legendItems": [{"label": f"Detection {value}: {name}", "color": colour} for value, name, colour in LEVELS],
        "metadata": [
            _entry("Analytic", f"{attack.analytic_id} {attack.analytic_version}, ATT&CK {attack.release}"),
            _entry("Analytic SHA-256", attack.analytic_digest),
            _entry("System", scope.system),
        ],
    }


def _page(attack: Attack) -> str:
    return f"https://attack.mitre.org/detectionstrategies/{attack.strategy_id}#{attack.analytic_id}"


def _quality(coverage: ComponentCoverage, scope: Scope) -> str:
    if not coverage.present:
        return "not there"
    quality = data_quality(coverage, scope.retention_days)
    products = f"; {', '.join(coverage.products)}" if coverage.products else ""
    return (
        f"devices {quality.device_completeness}, fields {quality.data_field_completeness}, "
        f"timeliness {quality.timeliness}, consistency {quality.consistency}, retention {quality.retention}{products}"
    )


def _entry(name: str, value: str) -> dict[str, str]:
    """A metadata entry; the Navigator takes none that is empty."""
    return {"name": _text(name) or "–", "value": _text(value.rstrip(" :")) or "–"}


def _text(text: str) -> str:
    return printable(text, limit=_TEXT_CHARACTERS)
