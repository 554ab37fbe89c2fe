"""Findings as NDJSON: one JSON object a line, as docs/finding-schema.md says; same findings, same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final, TextIO

from pydantic import BaseModel, ValidationError

from relaywatch.model.errors import SourceError
from relaywatch.model.finding import FINDING_SCHEMA_VERSION, Finding
from relaywatch.outputs.text import utc

LINE_CHARACTERS: Final = 16 * 1024 * 1024
"""Longest line that is read back: far above any finding, whose lists are bounded."""


def finding_object(finding: Finding) -> dict[str, Any]:
    """Return the finding as JSON values.

    Times are RFC 3339 in UTC with microseconds and Z; what is not known is null, never missing.
    """
    return plain_object(finding)


def plain_object(record: BaseModel) -> dict[str, Any]:
    """Return any record as JSON values, times as in a finding."""
    return {name: _plain(value) for name, value in record.model_dump().items()}


def json_line(record: dict[str, Any] | BaseModel) -> str:
    """Return one NDJSON line in printable ASCII, so that hostile names stay escaped on a terminal too."""
    return _encoded(record).replace("\x7f", "\\u007f") + "\n"


def write_ndjson(findings: Iterable[Finding], stream: TextIO) -> None:
    """Write one line per finding."""
    stream.writelines(map(json_line, findings))


def read_ndjson(stream: TextIO) -> Iterator[Finding]:
    """Yield the findings of NDJSON; empty lines are skipped.

    Raises SourceError with the line number where a line is no finding of this schema's major version.
    """
    name = str(getattr(stream, "name", "NDJSON"))
    number = 0
    while line := stream.readline(LINE_CHARACTERS + 1):
        number += 1
        if line.strip():
            yield _finding(line, name, f"line {number}")


def _finding(line: str, name: str, position: str) -> Finding:
    if len(line) > LINE_CHARACTERS:
        raise SourceError(name, f"line is longer than {LINE_CHARACTERS} characters.", position=position)
    remedy = "Give a file that relaywatch wrote as NDJSON findings."
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(name, f"not JSON: {error}.", position=position, remedy=remedy) from error
    version = str(record.get("schema_version", "")) if isinstance(record, dict) else ""
    if version.split(".")[0] != FINDING_SCHEMA_VERSION.split(".")[0]:
        reason = f"schema_version is {version[:40]!r}, this reads {FINDING_SCHEMA_VERSION}."
        raise SourceError(name, reason, position=position, remedy=remedy)
    try:
        return Finding.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        reason = f"not a finding: {key}: {first['msg']}."
        raise SourceError(name, reason, position=position, remedy=remedy) from error


def _member(value: object) -> object:
    """A record as its members, a time as text, for the encoder, which goes on into what it is given."""
    if isinstance(value, BaseModel):
        return value.__dict__
    if isinstance(value, datetime):
        return _time(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


# Records hold no record that holds them: nothing has to look out for circles.
_encoded: Final = json.JSONEncoder(
    ensure_ascii=True, separators=(",", ":"), allow_nan=False, check_circular=False, default=_member
).encode


def _time(moment: datetime) -> str:
    return utc(moment).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def finding_json_schema() -> str:
    """Return docs/finding.schema.json: the JSON Schema (2020-12) of one line, generated from the models."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Finding.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
