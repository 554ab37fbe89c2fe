"""Writes coverage as the files of other tools: DeTT&CT's administration files, a Navigator layer, StP's scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from relaywatch.attack.provenance import attack_provenance
from relaywatch.attack.robustness import Robustness, TelemetryQuality
from relaywatch.outputs.coverage_scores import ComponentCoverage
from relaywatch.outputs.dettect import Scope, TechniqueScores, data_source_administration, technique_administration
from relaywatch.outputs.navigator import navigator_layer

DATA_SOURCES: Final = "dettect-data-sources.yaml"
TECHNIQUES: Final = "dettect-techniques.yaml"
LAYER: Final = "navigator-layer.json"
SUMMITING: Final = "summiting-the-pyramid.json"


def write_scores(
    components: Sequence[ComponentCoverage],
    scores: TechniqueScores,
    scope: Scope,
    robustness: tuple[Robustness | None, Robustness | None, str],
    qualities: Mapping[str, TelemetryQuality],
    folder: Path,
) -> list[Path]:
    """Write the four files into the folder, which is made where it is missing; returns their paths.

    robustness: of the relay verdict with the site's permissions and without, and what lowers it, in a sentence.
    """
    attack = attack_provenance(frozenset())
    folder.mkdir(parents=True, exist_ok=True)
    layer = navigator_layer(scores, components, attack, scope)
    told, bare, lowered = robustness
    summiting = {
        "analytic": attack.analytic_id,
        "robustness": None if told is None else str(told),
        "decided_by": None if told is None else told.decided_by,
        "robustness_without_permissions": None if bare is None else str(bare),
        "lowered": lowered,
        "telemetry": {name: {**asdict(quality), "total": quality.total} for name, quality in qualities.items()},
    }
    texts = {
        DATA_SOURCES: data_source_administration(components, attack, scope),
        TECHNIQUES: technique_administration(scores, attack, scope),
        LAYER: json.dumps(layer, indent=2, ensure_ascii=False) + "\n",
        SUMMITING: json.dumps(summiting, indent=2, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]
