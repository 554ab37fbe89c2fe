"""One ATT&CK release, as far as it concerns AN1702: read from STIX bundles and folders, streamed, in bounded memory.

Read are bundles (`mobile-attack-19.1.json` of mitre-attack/attack-stix-data), folders with one object a file
(mitre/cti), and files that hold an object by itself. Kept are the objects that are vendored, by STIX id or ATT&CK id,
and what stands in a relation to them: analytics of DET0631, data components, relationships of T1604. Of all else only
ids and names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

import ijson

from relaywatch.attack.provenance import RELEASE, StixObject, vendored_objects
from relaywatch.model.errors import SourceError

LARGEST_FILE: Final = 512 << 20
OBJECT_BYTES: Final = 16 << 20
"""An object of more text is none of ATT&CK's: the largest, a collection with its table of contents, has some 5 MB."""
DEEPEST: Final = 32
MOST_FILES: Final = 200_000
MOST_KEPT: Final = 1_000_000
"""Keys, values and pieces of PIECE characters of all kept objects; Mobile ATT&CK has some tens of thousands."""
PIECE: Final = 64
MOST_NAMES: Final = 200_000
MOST_COLLECTIONS: Final = 1_000
MOST_REMARKS: Final = 50
LONGEST_ID: Final = 200
WHOLE_OBJECTS: Final = 200
"""Objects from which on a release without a collection object is taken for whole; Mobile ATT&CK has over 2,000."""

_NAMED: Final = frozenset(
    {
        "attack-pattern",
        "campaign",
        "course-of-action",
        "intrusion-set",
        "malware",
        "tool",
        "x-mitre-analytic",
        "x-mitre-data-component",
        "x-mitre-detection-strategy",
    }
)
_REMEDY: Final = "Give a bundle such as mobile-attack-19.1.json, or a folder of ATT&CK's STIX objects."


@dataclass(frozen=True, slots=True)
class Release:
    """What one release says of the objects that concern us.

    name: the collection's version, or the path's name. objects: by STIX id. names: "S0522 Exobot" by STIX id, of what
    relations name. whole: whether an object that is not here is not in ATT&CK any more. remarks: what the reader left
    out or chose among.
    """

    name: str
    path: str
    objects: Mapping[str, StixObject]
    names: Mapping[str, str]
    whole: bool
    remarks: tuple[str, ...] = ()

    def label(self, stix_id: str) -> str:
        """Return the object's ATT&CK id, or its type where it has none, or the STIX id where nothing is known of it."""
        stix = self.objects.get(stix_id)
        if stix is not None:
            return attack_id(stix) or _kind_of(stix)
        name = self.names.get(stix_id)
        return stix_id if name is None else name.partition(" ")[0]


def subject(stix_id: str, releases: Sequence[Release]) -> str:
    """What a person calls an object: its id and name, or for a relation its two ends. The first release that knows."""
    stix = next((release.objects[stix_id] for release in releases if stix_id in release.objects), {})
    if stix.get("type") == "relationship":
        source, target = (_called(str(stix.get(end)), releases) for end in ("source_ref", "target_ref"))
        return f"{source} {stix.get('relationship_type')} {target}"
    return _called(stix_id, releases)


def _called(stix_id: str, releases: Sequence[Release]) -> str:
    for release in releases:
        if stix_id in release.names:
            return release.names[stix_id]
        stix = release.objects.get(stix_id)
        if stix is not None and isinstance(stix.get("name"), str):
            return _name(stix) or f"{stix['type']} {stix['name']}"
    return stix_id


def attack_id(stix: StixObject) -> str | None:
    """Return the ATT&CK id (AN1702, T1604, ...) of an object in any state; None where it has none."""
    for reference in dicts(stix, "external_references"):
        if reference.get("source_name") == "mitre-attack" and isinstance(reference.get("external_id"), str):
            return str(reference["external_id"])
    return None


def dicts(stix: StixObject, name: str) -> list[dict[str, object]]:
    """Return the objects that a field lists; empty where it is no list."""
    entries = stix.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def texts(stix: StixObject, name: str) -> list[str]:
    """Return the strings that a field lists; empty where it is no list."""
    entries = stix.get(name)
    return [entry for entry in entries if isinstance(entry, str)] if isinstance(entries, list) else []


def _kind_of(stix: StixObject) -> str:
    relation = stix.get("relationship_type")
    return str(relation if isinstance(relation, str) else stix["type"])


def vendored_release() -> Release:
    """The vendored objects as a release."""
    objects = vendored_objects()
    return Release(f"vendored {RELEASE}", "", objects, _names(objects.values()), whole=True)


def _names(objects: Iterable[StixObject]) -> dict[str, str]:
    return {stix["id"]: name for stix in objects if (name := _name(stix)) is not None}


def _name(stix: StixObject) -> str | None:
    number, name = attack_id(stix), stix.get("name")
    return f"{number} {name}" if number is not None and isinstance(name, str) else None


def read_release(path: Path) -> Release:
    """Read a bundle, an object's file, or a folder of either.

    Of several versions of an object the last modified one is kept. Raises SourceError where the path cannot be read,
    is damaged, or holds no object that concerns AN1702.
    """
    sieve = _Sieve()
    if path.is_dir():
        _sift_folder(path, sieve)
    else:
        _sift_file(path, sieve)
    return sieve.release(path)


def _sift_folder(folder: Path, sieve: _Sieve) -> None:
    """A damaged file of a folder costs itself; what is not there then proves nothing."""
    for count, path in enumerate(_json_files(folder), start=1):
        if count > MOST_FILES:
            raise SourceError(folder, f"holds more than {MOST_FILES:,} JSON files.", remedy=_REMEDY)
        try:
            _sift_file(path, sieve)
        except SourceError as damage:
            sieve.damaged = True
            sieve.remark(str(damage))


def _json_files(folder: Path) -> Iterator[Path]:
    """The folder's JSON files in order of their names; links are not followed, so that nothing goes round."""
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            if name.endswith(".json") and not path.is_symlink():
                yield path


def _sift_file(path: Path, sieve: _Sieve) -> None:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SourceError(path, "is no regular file.", remedy=_REMEDY)
        if size > LARGEST_FILE:
            raise SourceError(path, f"has {size:,} bytes, more than any release of ATT&CK.", remedy=_REMEDY)
        with path.open("rb") as file:
            met = sum(1 for stix in _bundled(file, path) if sieve.take(stix))
            if not met and size <= OBJECT_BYTES:
                file.seek(0)
                sieve.take(_lone(file.read(), path))
    except OSError as error:
        raise SourceError(path, f"cannot be read: {error.strerror or error}.") from error


def _bundled(file: BinaryIO, path: Path) -> Iterator[object]:
    """The objects of a bundle, one by one; none where the document is no bundle."""
    fed = _Fed(file, path)
    try:
        for stix in _listed(ijson.basic_parse(fed, use_float=True), path):
            fed.since_object = 0
            yield stix
    except (ijson.JSONError, ValueError) as fault:
        raise SourceError(
            path,
            f"is no sound JSON: {str(fault).splitlines()[0].strip()}.",
            position=f"byte {fed.consumed} or before",
            remedy="Fetch the file again.",
        ) from fault


def _listed(events: Iterator[tuple[str, Any]], path: Path) -> Iterator[object]:
    """The values that the document's own key `objects` lists.

    Not ijson.items: that one spells out the path to every value, which takes the square of the depth in memory.
    """
    depth, key, listing = 0, None, False
    builder: ijson.ObjectBuilder | None = None
    for event, value in events:
        starts, ends = event in ("start_map", "start_array"), event in ("end_map", "end_array")
        depth -= ends
        if depth == 1:
            key = value if event == "map_key" else key
            listing = event == "start_array" and key == "objects"
        elif listing:
            builder = builder or ijson.ObjectBuilder()
            builder.event(event, value)
            if depth == 2 and not starts:
                yield builder.value
                builder = None
        depth += starts
        if depth > DEEPEST:
            raise SourceError(path, f"nests deeper than {DEEPEST} levels, as no object of ATT&CK's does.")


class _Fed:
    """The file as the parser reads it: stops it inside an object that grows past all bounds."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.consumed = 0
        self.since_object = 0
        self._file = file
        self._path = path

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.consumed += len(data)
        self.since_object += len(data)
        if self.since_object > OBJECT_BYTES:
            raise SourceError(
                self._path,
                f"{OBJECT_BYTES:,} bytes without an object of a bundle.",
                position=f"byte {self.consumed}",
                remedy=_REMEDY,
            )
        return data


def _lone(content: bytes, path: Path) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise SourceError(path, "is no sound JSON.", remedy="Fetch the file again.") from fault


@dataclass(slots=True)
class _Sieve:
    """Keeps what concerns AN1702 of all objects that it is shown."""

    damaged: bool = False
    _kept: dict[str, StixObject] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _collections: set[tuple[str, str]] = field(default_factory=set)
    _remarks: list[str] = field(default_factory=list)
    _met: int = 0
    _size: int = 0

    def remark(self, text: str) -> None:
        if len(self._remarks) < MOST_REMARKS and text not in self._remarks:
            self._remarks.append(text)

    def take(self, stix: object) -> bool:
        """Look at one object; false where it is no STIX object."""
        if not isinstance(stix, dict):
            return False
        kind, stix_id = stix.get("type"), stix.get("id")
        if not isinstance(kind, str) or not isinstance(stix_id, str) or len(stix_id) > LONGEST_ID or kind == "bundle":
            return False
        self._met += 1
        if kind == "x-mitre-collection":
            if len(self._collections) < MOST_COLLECTIONS:
                self._collections.add((str(stix.get("modified"))[:40], str(stix.get("x_mitre_version"))[:20]))
            return True
        if kind in _NAMED and len(self._names) < MOST_NAMES and (name := _name(stix)) is not None:
            self._names[stix_id] = name[:LONGEST_ID]
        if _concerns(stix, kind, stix_id):
            self._keep(stix, stix_id)
        return True

    def _keep(self, stix: StixObject, stix_id: str) -> None:
        size = _size(stix)
        if self._size + size > MOST_KEPT:
            self.damaged = True
            self.remark(f"{stix_id} is too large beside all else here, and was left out")
            return
        self._size += size
        before = self._kept.get(stix_id)
        if before is not None and before != stix:
            self.remark(f"{attack_id(stix) or stix_id} is here in several versions; the last modified is compared")
        if before is None or str(before.get("modified")) <= str(stix.get("modified")):
            self._kept[stix_id] = stix

    def release(self, path: Path) -> Release:
        """What was kept, as a release. Raises SourceError where it says nothing of AN1702."""
        rows = (row for stix in self._kept.values() for row in dicts(stix, "x_mitre_log_source_references"))
        cited = vendored_objects().keys() | {str(row.get("x_mitre_data_component_ref")) for row in rows}
        objects = {i: s for i, s in self._kept.items() if s["type"] != "x-mitre-data-component" or i in cited}
        whole = not self.damaged and (bool(self._collections) or self._met >= WHOLE_OBJECTS)
        if not objects or (whole and not _core_ids() & objects.keys()):
            what = "none of AN1702, DET0631 and T1604" if objects else "no object that concerns AN1702"
            raise SourceError(path, f"holds {what} among {self._met:,} STIX objects.", remedy=_REMEDY)
        versions = [version for _, version in sorted(self._collections)]
        if len(versions) > 1:
            self.remark(f"several releases are here ({', '.join(versions[:9])}): give one path each to part them")
        name = versions[-1] if versions else path.resolve().name.removesuffix(".json")
        return Release(name, str(path), objects, self._names, whole, tuple(self._remarks))


@cache
def _core_ids() -> frozenset[str]:
    kinds = {"x-mitre-analytic", "x-mitre-detection-strategy", "attack-pattern"}
    return frozenset(i for i, stix in vendored_objects().items() if stix["type"] in kinds)


@cache
def _attack_ids() -> Mapping[str, str]:
    """ATT&CK id to STIX type of the vendored objects: an object may come back under another STIX id."""
    numbers = ((attack_id(stix), stix["type"]) for stix in vendored_objects().values())
    return {number: kind for number, kind in numbers if number is not None}


@cache
def _technique_and_strategy() -> tuple[str, str]:
    """STIX id of T1604, and the address of DET0631's page, which its analytics share."""
    objects = vendored_objects().values()
    technique = next(stix["id"] for stix in objects if stix["type"] == "attack-pattern")
    strategy = next(stix for stix in objects if stix["type"] == "x-mitre-detection-strategy")
    return technique, next(reference["url"] for reference in strategy["external_references"])


def _concerns(stix: StixObject, kind: str, stix_id: str) -> bool:
    if stix_id in vendored_objects() or kind == "x-mitre-data-component":
        return True
    technique, page = _technique_and_strategy()
    if kind == "relationship":
        ends = {end for end in (stix.get("source_ref"), stix.get("target_ref")) if isinstance(end, str)}
        revoked = stix.get("relationship_type") == "revoked-by" and bool(ends & _core_ids())
        return technique in ends or revoked
    number = attack_id(stix)
    if number is not None and _attack_ids().get(number) == kind:
        return True
    urls = (reference.get("url") for reference in dicts(stix, "external_references"))
    return kind == "x-mitre-analytic" and any(isinstance(url, str) and url.partition("#")[0] == page for url in urls)


def _size(stix: StixObject) -> int:
    """How much an object holds: its keys and values, those within, and their text by pieces of PIECE characters."""
    count = 0
    layer: list[object] = [stix]
    while layer:
        inner: list[object] = []
        for value in layer:
            if isinstance(value, dict):
                inner.extend(value)
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
            elif isinstance(value, str):
                count += len(value) // PIECE
        count += len(inner)
        layer = inner
    return count
