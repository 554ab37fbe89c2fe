"""Whether ATT&CK objects are as ATT&CK's own data model says, before anything is concluded from them.

Rules: mitre-attack/attack-data-model, src/schemas (sdo/analytic, detection-strategy, data-component, technique,
sro/relationship, common/property-schemas), specification 3.3.0. Checked is what the comparison rests on; fields that
no schema of ATT&CK's has are named and otherwise left aside. A breach is a problem to be read, never an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from relaywatch.attack.provenance import RELEASE, StixObject, vendored_from
from relaywatch.attack.release import Release, dicts, texts

MOST_PROBLEMS: Final = 20
"""Problems of one object that are listed."""

STIX_FIELDS: Final = frozenset(
    {
        "aliases",
        "confidence",
        "created",
        "created_by_ref",
        "definition",
        "definition_type",
        "description",
        "extensions",
        "external_references",
        "first_seen",
        "granular_markings",
        "id",
        "identity_class",
        "is_family",
        "kill_chain_phases",
        "labels",
        "lang",
        "last_seen",
        "modified",
        "name",
        "object_marking_refs",
        "relationship_type",
        "revoked",
        "roles",
        "source_ref",
        "spec_version",
        "target_ref",
        "type",
    }
)
"""Fields of STIX 2.0 and 2.1 that ATT&CK's objects use; ATT&CK's own begin with x_mitre_."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Where an object is not as the data model says. object: its ATT&CK id, or what is known of it."""

    release: str
    object: str
    field: str
    reason: str


def of_attack(field: str) -> bool:
    """Whether a field belongs to STIX or ATT&CK; copies of ATT&CK carry others, such as translations."""
    return field in STIX_FIELDS or field.startswith("x_mitre_")


Text = Annotated[str, StringConstraints(min_length=1)]
_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
AnyId = Annotated[str, StringConstraints(pattern=rf"^[a-z][a-z0-9-]*--{_UUID}$")]
AnalyticId = Annotated[str, StringConstraints(pattern=rf"^x-mitre-analytic--{_UUID}$")]
ComponentId = Annotated[str, StringConstraints(pattern=rf"^x-mitre-data-component--{_UUID}$")]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]


def _unique(entries: list[Any]) -> list[Any]:
    again = [entry for entry, count in Counter(map(str, entries)).items() if count > 1]
    if again:
        raise ValueError(f"given more than once: {again[0][:200]}")
    return entries


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class LogSourceReference(_Strict):
    """One row of an analytic: which log source of which data component."""

    x_mitre_data_component_ref: ComponentId
    name: Text
    channel: Text


class MutableElement(_Strict):
    """One knob of an analytic."""

    field: Text
    description: Text


class LogSourceEntry(_Strict):
    """One log source of a data component."""

    name: Text
    channel: Text


class ExternalReference(_Strict):
    """Where an object is described; ATT&CK's own comes first and carries the id."""

    source_name: Text
    external_id: str | None = None


class KillChainPhase(_Strict):
    """One tactic of a technique."""

    kill_chain_name: Text
    phase_name: Text


class _StixObject(_Strict):
    id: AnyId
    type: Text
    created: Moment
    created_by_ref: AnyId
    object_marking_refs: Annotated[list[AnyId], Field(min_length=1)]
    revoked: bool = False
    x_mitre_deprecated: bool = False

    @model_validator(mode="after")
    def _id_of_its_type(self) -> _StixObject:
        if self.id.partition("--")[0] != self.type:
            raise ValueError(f"the STIX id does not begin with the type {self.type}")
        return self


class _AttackObject(_StixObject):
    modified: Moment
    name: Text
    x_mitre_version: Annotated[str, StringConstraints(pattern=r"^\d{1,2}\.\d{1,2}$")]
    # Objects without a specification version are of 2.0.0.
    x_mitre_attack_spec_version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")] = "2.0.0"
    x_mitre_domains: Annotated[list[Text], Field(min_length=1), AfterValidator(_unique)]
    external_references: Annotated[list[ExternalReference], Field(min_length=1)]

    @model_validator(mode="after")
    def _own_reference_first(self) -> _AttackObject:
        first, pattern = self.external_references[0], _NUMBERS[self.type]
        if first.source_name != "mitre-attack":
            raise ValueError("the first external reference is not ATT&CK's own")
        TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)]).validate_python(first.external_id)
        return self


class Analytic(_AttackObject):
    """An x-mitre-analytic."""

    description: Text
    x_mitre_platforms: Annotated[list[Text], Field(max_length=1)]
    x_mitre_log_source_references: (
        Annotated[list[LogSourceReference], Field(min_length=1), AfterValidator(_unique)] | None
    ) = None
    x_mitre_mutable_elements: Annotated[list[MutableElement], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _each_element_once(self) -> Analytic:
        _unique([element.field for element in self.x_mitre_mutable_elements or ()])
        return self


class DetectionStrategy(_AttackObject):
    """An x-mitre-detection-strategy."""

    x_mitre_analytic_refs: Annotated[list[AnalyticId], Field(min_length=1), AfterValidator(_unique)]


class DataComponent(_AttackObject):
    """An x-mitre-data-component."""

    description: Text
    x_mitre_log_sources: Annotated[list[LogSourceEntry], Field(min_length=1), AfterValidator(_unique)]


class Technique(_AttackObject):
    """An attack-pattern."""

    description: Text
    x_mitre_is_subtechnique: bool
    x_mitre_platforms: Annotated[list[Text], Field(min_length=1), AfterValidator(_unique)]
    kill_chain_phases: Annotated[list[KillChainPhase], Field(min_length=1)]


class Software(_AttackObject):
    """A malware or tool."""

    description: Text


class Relationship(_StixObject):
    """A relationship; which types may stand at its ends is ATT&CK's own table."""

    modified: Moment
    relationship_type: Literal["uses", "mitigates", "subtechnique-of", "detects", "targets", "revoked-by"]
    source_ref: AnyId
    target_ref: AnyId

    @model_validator(mode="after")
    def _ends(self) -> Relationship:
        source, target = (end.partition("--")[0] for end in (self.source_ref, self.target_ref))
        sources, targets = _ENDS.get(self.relationship_type, ({source}, {target}))
        if source not in sources or target not in targets:
            raise ValueError(f"{source} {self.relationship_type} {target} is no relation of ATT&CK's")
        if self.relationship_type == "revoked-by" and source != target:
            raise ValueError(f"{source} cannot be revoked by {target}")
        return self


_NUMBERS: Final = {
    "x-mitre-analytic": r"^AN\d{4}$",
    "x-mitre-detection-strategy": r"^DET\d{4}$",
    "x-mitre-data-component": r"^DC\d{4}$",
    "attack-pattern": r"^T\d{4}(\.\d{3})?$",
    "malware": r"^S\d{4}$",
    "tool": r"^S\d{4}$",
}
_ENDS: Final[dict[str, tuple[set[str], set[str]]]] = {
    "uses": ({"malware", "tool", "intrusion-set", "campaign"}, {"attack-pattern", "malware", "tool"}),
    "mitigates": ({"course-of-action"}, {"attack-pattern"}),
    "subtechnique-of": ({"attack-pattern"}, {"attack-pattern"}),
    "detects": ({"x-mitre-data-component", "x-mitre-detection-strategy"}, {"attack-pattern"}),
    "targets": ({"attack-pattern"}, {"x-mitre-asset"}),
}
_MODELS: Final[dict[str, type[_StixObject]]] = {
    "x-mitre-analytic": Analytic,
    "x-mitre-detection-strategy": DetectionStrategy,
    "x-mitre-data-component": DataComponent,
    "attack-pattern": Technique,
    "malware": Software,
    "tool": Software,
    "relationship": Relationship,
}


def problems(release: Release) -> list[Problem]:
    """Every breach of the data model by the release's objects, bounded for each object, in order of ids."""
    found = []
    for stix_id, stix in sorted(release.objects.items()):
        breaches = [*_breaches(stix), *_foreign(stix), *_unlisted(stix, release), *_missing(stix, release)]
        found += [Problem(release.name, release.label(stix_id), *breach) for breach in breaches[:MOST_PROBLEMS]]
    return found


def _breaches(stix: StixObject) -> Iterator[tuple[str, str]]:
    """(field, reason) of each rule that the object breaks; types without a model are free."""
    model = _MODELS.get(stix["type"])
    if model is None:
        return
    try:
        model.model_validate(stix)
    except ValidationError as fault:
        for error in fault.errors(include_url=False, include_input=False)[:MOST_PROBLEMS]:
            place = ".".join(str(part) for part in error["loc"])
            yield place, error["msg"].removeprefix("Value error, ")


def _foreign(stix: StixObject) -> Iterator[tuple[str, str]]:
    foreign = sorted(name[:80] for name in stix if not of_attack(name))
    if foreign:
        yield ", ".join(foreign[:MOST_PROBLEMS]), "no field of STIX or ATT&CK; not compared"


def _unlisted(stix: StixObject, release: Release) -> Iterator[tuple[str, str]]:
    """Rows of an analytic whose (name, channel) the data component, where it is at hand, does not list."""
    for row in dicts(stix, "x_mitre_log_source_references"):
        component_id = row.get("x_mitre_data_component_ref")
        component = release.objects.get(component_id) if isinstance(component_id, str) else None
        if component is None or _of_another_release(stix, component, release):
            continue
        if not _lists(component, row):
            place = f"x_mitre_log_source_references ({row.get('name')})"
            yield place, f"{release.label(component['id'])} here lists no such log source: {row.get('channel')}"


def _of_another_release(analytic: StixObject, component: StixObject, release: Release) -> bool:
    """Whether the two are vendored from different releases, in which no list can be expected to agree."""
    return not release.path and vendored_from(analytic["id"]) == RELEASE != vendored_from(component["id"])


def _lists(component: StixObject, row: dict[str, object]) -> bool:
    pair = (row.get("name"), row.get("channel"))
    return any((entry.get("name"), entry.get("channel")) == pair for entry in dicts(component, "x_mitre_log_sources"))


def _missing(stix: StixObject, release: Release) -> Iterator[tuple[str, str]]:
    """Analytics and data components that an object names and a whole release does not hold."""
    if not release.whole:
        return
    rows = [row.get("x_mitre_data_component_ref") for row in dicts(stix, "x_mitre_log_source_references")]
    for ref in (*texts(stix, "x_mitre_analytic_refs"), *rows):
        if isinstance(ref, str) and ref not in release.objects and ref not in release.names:
            yield ref[:80], "named here, and not in the release"
