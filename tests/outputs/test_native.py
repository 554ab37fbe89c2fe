"""NDJSON: what a consumer is promised of every line, and what a reader says of a bad one."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from findings_examples import HOSTILE, example, examples, hostile
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.model.errors import SourceError
from relaywatch.model.finding import Finding, Topology, User
from relaywatch.outputs.native import finding_json_schema, read_ndjson, write_ndjson

DOCS = Path(__file__).parents[2] / "docs"


def _written(*findings: Finding) -> str:
    stream = io.StringIO()
    write_ndjson(findings, stream)
    return stream.getvalue()


def test_one_line_per_finding_and_the_same_findings_read_back() -> None:
    findings = [*examples(), hostile()]
    lines = _written(*findings)
    assert lines.count("\n") == len(findings)
    assert list(read_ndjson(io.StringIO(lines))) == findings


def test_same_findings_same_bytes() -> None:
    assert _written(*examples()) == _written(*examples())


def test_device_and_app_are_objects_at_the_top() -> None:
    record = json.loads(_written(examples()[0]))
    assert record["device"]["uid"] == "tab-warehouse-3"
    assert record["app"]["package"] == "com.example.earnapp"
    assert record["app"]["uid"] == 10_231


def test_what_is_not_known_is_null_and_every_key_is_there() -> None:
    plain = example(Topology.TUNNEL, sessions=1)
    record = json.loads(
        _written(plain.model_copy(update={"app": plain.app.model_copy(update={"package": None}), "exception": None}))
    )
    assert set(record) == set(Finding.model_fields)
    assert record["app"]["package"] is None
    assert record["exception"] is None


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(-14, 14))  # noqa: DTZ001
def test_times_are_utc_with_microseconds_and_z_from_any_zone(moment: datetime, hours: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    record = json.loads(_written(example(Topology.ACCEPTED, sessions=1).model_copy(update={"first_seen": aware})))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["first_seen"])
    assert datetime.fromisoformat(record["first_seen"]) == aware


def test_a_time_without_zone_is_utc_on_every_machine() -> None:
    naive = example(Topology.ACCEPTED, sessions=1).model_copy(update={"last_seen": datetime(2026, 1, 2, 3, 4, 5)})  # noqa: DTZ001
    assert json.loads(_written(naive))["last_seen"] == "2026-01-02T03:04:05.000000Z"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_name_stays_on_its_line_in_printable_ascii_and_reads_back(name: str) -> None:
    finding = example(Topology.ACCEPTED, sessions=1).model_copy(update={"user": User(name=name)})
    line = _written(finding)
    assert line.isascii()
    assert line[:-1].isprintable()
    assert next(read_ndjson(io.StringIO(line))).user.name == name


def test_hostile_names_cannot_move_a_terminal_that_shows_the_line() -> None:
    assert HOSTILE in json.loads(_written(hostile()))["app"]["package"]
    assert "\x1b" not in _written(hostile())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "schema_version is ''"),
        ('{"schema_version": "9.0.0"}', "schema_version is '9.0.0'"),
        ('{"schema_version": "1.0.0"}', "not a finding: finding_id"),
    ],
)
def test_a_bad_line_is_named_by_number_and_reason(line: str, reason: str) -> None:
    good = _written(examples()[0])
    reader = read_ndjson(io.StringIO(good + "\n" + line + "\n"))
    assert next(reader) == examples()[0]
    with pytest.raises(SourceError, match=re.escape(reason)) as raised:
        next(reader)
    assert raised.value.position == "line 3"


def test_an_endless_line_is_refused_before_it_fills_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaywatch.outputs.native.LINE_CHARACTERS", 100)
    with pytest.raises(SourceError, match="longer than 100 characters"):
        list(read_ndjson(io.StringIO('{"a": "' + "x" * 1000)))


def test_a_later_minor_version_still_reads() -> None:
    later = json.loads(_written(examples()[0])) | {"schema_version": "1.7.0"}
    assert next(read_ndjson(io.StringIO(json.dumps(later)))).schema_version == "1.7.0"


def test_findings_written_before_there_were_counts_count_what_they_list() -> None:
    older = json.loads(_written(examples()[0]))
    for row in older["destinations"]:
        del row["hostname_count"], row["address_count"]
    assert next(read_ndjson(io.StringIO(json.dumps(older)))) == examples()[0]


def test_the_published_json_schema_is_the_models() -> None:
    published = (DOCS / "finding.schema.json").read_text(encoding="utf-8")
    assert published == finding_json_schema(), "write finding_json_schema() to docs/finding.schema.json"


def test_the_schema_page_names_every_key_of_every_object() -> None:
    page = (DOCS / "finding-schema.md").read_text(encoding="utf-8")
    schema = json.loads(finding_json_schema())
    objects = {"Finding": schema, **schema["$defs"]}
    missing = [
        f"{name}.{key}"
        for name, part in objects.items()
        for key in part.get("properties", {})
        if f"`{key}`" not in page
    ]
    assert missing == []


def test_the_schema_pages_example_line_is_what_is_written() -> None:
    page = (DOCS / "finding-schema.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"```json\n(.*\n)```", page)
    assert line == _written(example(Topology.ACCEPTED, sessions=1))
    assert next(read_ndjson(io.StringIO(line))).first_seen.tzinfo == UTC
