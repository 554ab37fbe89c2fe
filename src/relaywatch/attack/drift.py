"""What changed between the vendored ATT&CK objects and other releases, and what of relaywatch each change touches.

Lists are compared by what their entries are about and not by position: log-source rows by data component and log
source, mutable elements by field, log sources of a component by (name, channel), references by source. What is absent,
empty or false is the same, for STIX 2.0 and 2.1 write it differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from relaywatch.attack.conformance import Problem, of_attack, problems
from relaywatch.attack.provenance import StixObject
from relaywatch.attack.release import Release, dicts, subject, texts
from relaywatch.attack.requirements import REQUIREMENTS, Requirement, TelemetryRequirement

LISTED: Final = "listed"
"""Value of an entry that has nothing to it but being there."""
PRESENT: Final = "present"
"""Value of a whole object that the other release does not have."""

_FORM: Final = frozenset({"id", "type", "spec_version"})
_PROVENANCE: Final = frozenset({"modified", "x_mitre_version", "x_mitre_attack_spec_version", "name"})
_LOGIC: Final = frozenset({"description", "x_mitre_platforms", "revoked", "x_mitre_deprecated", ""})

Entries = dict[str, object]
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Bearing:
    """What a change touches.

    settings: names of mutable elements, whether relaywatch has them or not; evidence: `Evidence.name` values; note:
    what it means for a reader.
    """

    settings: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    telemetry: tuple[TelemetryRequirement, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One place in one object where a release differs from the vendored objects.

    label: ATT&CK id, or kind of relation; subject: the object's name. field: empty for the whole object; key: which
    entry of a list, empty for the whole field. before, after: JSON values, None where absent.
    """

    stix_id: str
    label: str
    subject: str
    field: str
    key: str
    before: object
    after: object
    bearing: Bearing


@dataclass(frozen=True, slots=True)
class Drift:
    """How one release differs from the vendored objects. absent: of ours, not in a release that may be only a part."""

    release: Release
    changes: tuple[Change, ...]
    absent: tuple[str, ...]
    problems: tuple[Problem, ...]


def compare(vendored: Release, release: Release) -> Drift:
    """Every difference of the release, ours first in order of label, field and key."""
    pair = _Pair(vendored, release, _cited(vendored) | _cited(release))
    missing = sorted(vendored.objects.keys() - release.objects.keys(), key=pair.subject)
    changes = [change for stix_id in sorted(release.objects, key=pair.order) for change in pair.changes(stix_id)]
    if release.whole:
        changes = [pair.whole(stix_id, PRESENT, None) for stix_id in missing] + changes
    absent = () if release.whole else tuple(pair.subject(stix_id) for stix_id in missing)
    return Drift(release, tuple(changes), absent, tuple(problems(release)))


@dataclass(frozen=True, slots=True)
class _Pair:
    """The vendored objects beside one release. cited: log sources of components that an analytic of either cites."""

    vendored: Release
    release: Release
    cited: frozenset[Place]

    def label(self, stix_id: str) -> str:
        """ATT&CK id of an object that either knows, so that a key is the same on both sides."""
        known = self.vendored.label(stix_id)
        return self.release.label(stix_id) if known == stix_id else known

    def subject(self, stix_id: str) -> str:
        return subject(stix_id, (self.release, self.vendored))

    def order(self, stix_id: str) -> tuple[bool, str, str]:
        return stix_id not in self.vendored.objects, self.subject(stix_id), stix_id

    def whole(self, stix_id: str, before: object, after: object) -> Change:
        return self._change(stix_id, ("", ""), before, after)

    def changes(self, stix_id: str) -> Iterator[Change]:
        """Where the release's object differs from ours; one change where it is new."""
        ours, theirs = self.vendored.objects.get(stix_id), self.release.objects[stix_id]
        if ours is None:
            yield self.whole(stix_id, None, PRESENT)
            return
        before, after = self._places(ours), self._places(theirs)
        for place in sorted(before.keys() | after.keys()):
            if before.get(place) != after.get(place):
                yield self._change(stix_id, place, before.get(place), after.get(place))

    def _places(self, stix: StixObject) -> dict[Place, object]:
        fields = {name: value for name, value in stix.items() if name not in _FORM and of_attack(name)}
        return {
            (name, key): value for name in fields for key, value in self._entries(stix, name).items() if value
        }  # absent, empty and false are the same

    def _entries(self, stix: StixObject, name: str) -> Entries:
        """A field's entries by key. A field that is not of the expected form is one entry."""
        rows, whole = dicts(stix, name), stix[name]
        if isinstance(whole, list) and whole and len(texts(stix, name)) == len(whole):
            return dict.fromkeys(map(self._shown, whole), LISTED)
        if not isinstance(whole, list) or len(rows) != len(whole):
            return {"": whole}
        if name == "x_mitre_log_source_references":
            return _grouped((self._source(row), row.get("channel")) for row in rows)
        if name == "x_mitre_mutable_elements":
            return _grouped((str(row.get("field")), row.get("description")) for row in rows)
        if name == "x_mitre_log_sources":
            return dict.fromkeys((_pair(row) for row in rows), LISTED)
        if name == "external_references":
            return _grouped((str(row.pop("source_name", "")), row) for row in map(dict, rows))
        if name == "kill_chain_phases":
            return _grouped((str(row.get("kill_chain_name")), row.get("phase_name")) for row in rows)
        return {"": whole}

    def _shown(self, entry: str) -> str:
        return self.label(entry) if "--" in entry else entry

    def _source(self, row: dict[str, object]) -> str:
        return f"{self.label(str(row.get('x_mitre_data_component_ref')))} {row.get('name')}"

    def _change(self, stix_id: str, place: Place, before: object, after: object) -> Change:
        stix = self.release.objects.get(stix_id) or self.vendored.objects[stix_id]
        label = self.label(stix_id)
        cited = (stix_id, place[1]) in self.cited
        bearing = _bearing(stix, label, place, cited=cited, ours=before is not None)
        return Change(stix_id, label, self.subject(stix_id), *place, before, after, bearing)


def _cited(release: Release) -> frozenset[Place]:
    """(STIX id of the component, `_pair`) of each row of the release's analytics."""
    rows = (row for stix in release.objects.values() for row in dicts(stix, "x_mitre_log_source_references"))
    return frozenset((str(row.get("x_mitre_data_component_ref")), _pair(row)) for row in rows)


def _pair(row: Mapping[str, object]) -> str:
    return f"{row.get('name')} | {row.get('channel')}"


def _grouped(pairs: Iterator[tuple[str, object]]) -> Entries:
    """By key; several entries under one key become a list, in an order of their own."""
    groups: dict[str, list[object]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else sorted(values, key=str) for key, values in groups.items()}


def _bearing(stix: StixObject, label: str, place: Place, *, cited: bool, ours: bool) -> Bearing:
    kind, (name, key) = stix["type"], place
    if kind == "x-mitre-analytic":
        return _of_analytic(label, name, key, ours=ours)
    if kind == "x-mitre-data-component":
        return _of_component(label, name, cited=cited)
    if kind == "relationship":
        return Bearing(note=_RELATIONS.get(str(stix.get("relationship_type")), "a further relation of T1604"))
    return Bearing(note=_NOTES.get((kind, name), _NOTES.get((kind, ""), "")))


def _of_analytic(label: str, name: str, key: str, *, ours: bool) -> Bearing:
    if name == "x_mitre_mutable_elements":
        told = _touched([r for r in REQUIREMENTS if key in r.settings])
        return Bearing((key,), told.evidence, told.telemetry, f"what {key} means; its setting keeps the name")
    if name == "x_mitre_log_source_references":
        component = key.partition(" ")[0]
        rows = [r for r in REQUIREMENTS if r.data_component == component]
        if not rows:
            return Bearing(note=f"nothing here gives evidence for {component}: declare it in attack/requirements.py")
        if not any(row.analytic for row in rows):
            return _touched(rows, f"{component} is relaywatch's extension so far; this makes it a row of {label}")
        return _touched(rows, "the evidence must still be what this row asks for")
    if name == "" and not ours:
        return Bearing(note="a further analytic of DET0631, which nothing here implements")
    if name in _LOGIC:
        rows = [r for r in REQUIREMENTS if r.analytic or r.settings]
        return _touched(rows, "what the analytic asks for; read it against docs/detection.md")
    return Bearing(note="every finding states it" if name in _PROVENANCE else "")


def _of_component(label: str, name: str, *, cited: bool) -> Bearing:
    if name == "x_mitre_log_sources" and not cited:
        return Bearing(note="no analytic of DET0631 cites it")
    rows = [r for r in REQUIREMENTS if r.data_component == label]
    if name == "name":
        return _touched(rows, "findings and DeTT&CT files carry the name")
    if name in _LOGIC or name == "x_mitre_log_sources":
        return _touched(rows, "what counts as this telemetry")
    return Bearing()


def _touched(rows: Sequence[Requirement], note: str = "") -> Bearing:
    return Bearing(
        settings=tuple(dict.fromkeys(name for row in rows for name in row.settings)),
        evidence=tuple(dict.fromkeys(name for row in rows for name in row.evidence)),
        telemetry=tuple(requirement for row in rows for requirement in row.telemetry),
        note=note,
    )


_RELATIONS: Final = {
    "uses": "software that relays: compare with the indicators and the range",
    "mitigates": "what ATT&CK advises against relays: compare with governance/response.py",
    "detects": "which strategy detects T1604; every finding states it",
    "revoked-by": "the object has a successor: vendor that one",
}
_NOTES: Final = {
    ("x-mitre-detection-strategy", "x_mitre_analytic_refs"): "which analytics DET0631 has; AN1702 alone is implemented",
    ("x-mitre-detection-strategy", ""): "every finding states the strategy",
    ("attack-pattern", "kill_chain_phases"): "the tactic that every finding states",
    ("attack-pattern", ""): "every finding states the technique",
    ("marking-definition", ""): "the notice beside the vendored objects",
    ("identity", ""): "the author of the vendored objects",
}
