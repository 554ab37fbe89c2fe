"""Coverage as DeTT&CT administration files, which its editor opens and `dettect.py` turns into layers and reports.

Format: rabobank-cdc/DeTTECT, constants.py (data source administration 1.1, technique administration 1.2),
sample-data/*-mobile.yaml, generic.py (`load_techniques`), health.py (`check_yaml_file_health`). Data sources are named
after ATT&CK's data components; those that AN1702 does not cite are marked as relaywatch's extension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

import yaml

from relaywatch.model.finding import Attack
from relaywatch.outputs.coverage_scores import ComponentCoverage, Score, data_quality
from relaywatch.outputs.text import printable

DATA_SOURCE_FILE_VERSION: Final = 1.1
TECHNIQUE_FILE_VERSION: Final = 1.2
PLATFORM: Final = "Android"
RETENTION_DAYS: Final = 90.0
"""Retention that scores 5 where a site states none: a quarter, as relays are often found long after they began."""
EXTENSION: Final = "AN1702 does not cite this data component: relaywatch's extension."
_TEXT_CHARACTERS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Scope:
    """What the files speak of. system: DeTT&CT's applicable_to, any name but "all"; registered: day of the files."""

    name: str
    system: str
    registered: date
    retention_days: float = RETENTION_DAYS
    notes: str = ""

    def __post_init__(self) -> None:
        if not self.system.strip() or self.system.strip().lower() == "all":
            raise ValueError("the system needs a name of its own, and not 'all'")
        if not self.retention_days > 0.0:
            raise ValueError("the wanted retention is above 0 days")


@dataclass(frozen=True, slots=True)
class TechniqueScores:
    """T1604's scores over time, each log book with at least one entry; order does not matter.

    location: where the detection runs. detection_comment, visibility_comment: of the technique as a whole.
    """

    detection: tuple[Score, ...]
    visibility: tuple[Score, ...]
    location: str = "relaywatch"
    detection_comment: str = ""
    visibility_comment: str = ""

    def __post_init__(self) -> None:
        if not self.detection or not self.visibility:
            raise ValueError("a log book needs at least one score")
        if not all(-1 <= score.value <= 5 for score in self.detection):
            raise ValueError("detection is scored from -1 to 5")
        if not all(0 <= score.value <= 4 for score in self.visibility):
            raise ValueError("visibility is scored from 0 to 4")


def data_source_administration(coverages: Sequence[ComponentCoverage], attack: Attack, scope: Scope) -> str:
    """The data source administration file, as YAML: one data source a component, in the order given.

    Raises ValueError where a component is given twice.
    """
    names = [coverage.component for coverage in coverages]
    if len(set(names)) < len(names):
        raise ValueError("a data component is given twice")
    cited = {row.data_component_name for row in attack.log_sources}
    return _yaml(
        {
            "version": DATA_SOURCE_FILE_VERSION,
            "file_type": "data-source-administration",
            "name": _text(scope.name),
            "domain": attack.domain,
            "systems": [{"applicable_to": _text(scope.system), "platform": [PLATFORM]}],
            "data_sources": [_data_source(coverage, cited, scope) for coverage in coverages],
            "notes": _text(scope.notes),
        }
    )


def _data_source(coverage: ComponentCoverage, cited: set[str], scope: Scope) -> dict[str, Any]:
    details = {
        "applicable_to": [_text(scope.system)],
        "date_registered": scope.registered,
        "date_connected": coverage.first_seen,
        "products": [_text(product) for product in coverage.products] or [""],
        "available_for_data_analytics": coverage.present,
        "comment": "" if coverage.component in cited else EXTENSION,
        "data_quality": asdict(data_quality(coverage, scope.retention_days)),
    }
    return {"data_source_name": _text(coverage.component), "data_source": [details]}


def technique_administration(scores: TechniqueScores, attack: Attack, scope: Scope) -> str:
    """The technique administration file of T1604, as YAML, newest scores first."""
    applies = [_text(scope.system)]
    detection = {
        "applicable_to": applies,
        "location": [_text(scores.location)],
        "comment": _text(scores.detection_comment),
        "score_logbook": [_entry(score) for score in _newest_first(scores.detection)],
    }
    visibility = {
        "applicable_to": list(applies),
        "comment": _text(scores.visibility_comment),
        # DeTT&CT overwrites what it takes for its own count of data sources; this count knows more.
        "score_logbook": [_entry(score) | {"auto_generated": False} for score in _newest_first(scores.visibility)],
    }
    return _yaml(
        {
            "version": TECHNIQUE_FILE_VERSION,
            "file_type": "technique-administration",
            "name": _text(scope.name),
            "domain": attack.domain,
            "platform": [PLATFORM],
            "techniques": [
                {
                    "technique_id": attack.technique_id,
                    "technique_name": attack.technique_name,
                    "detection": [detection],
                    "visibility": [visibility],
                }
            ],
            "notes": _text(scope.notes),
        }
    )


def _newest_first(scores: Sequence[Score]) -> list[Score]:
    return sorted(scores, key=lambda score: score.day, reverse=True)


def _entry(score: Score) -> dict[str, Any]:
    return {"date": score.day, "score": score.value, "comment": _text(score.comment)}


def _text(text: str) -> str:
    """Names of products and systems come from telemetry: one line, nothing invisible."""
    return printable(text, limit=_TEXT_CHARACTERS)


class _Plain(yaml.SafeDumper):
    """Writes every value out, and quotes every text that a reader of YAML 1.1 or 1.2 might take for something else.

    DeTT&CT edits files with ruamel.yaml, which would keep anchors and break on edits of one of their places.
    """

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401  the base class's own signature
        return True


def _represented(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _WORDS.fullmatch(text) else "'")


_WORDS: Final = re.compile(r"[A-Za-z][A-Za-z _-]*[A-Za-z]")
_Plain.add_representer(str, _represented)


def _yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)
