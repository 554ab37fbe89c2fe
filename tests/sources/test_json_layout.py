"""JSON however it was saved reaches readers as one record a line."""

import json
import random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from relaywatch.model.errors import SourceError
from relaywatch.sources.compression import open_content
from relaywatch.sources.json_layout import DEEPEST

RECORDS = [{"a": 1, "b": {"c": [1.5, "ü", None, True]}}, {"a": 2**70, "b": {}}, {"a": -3}]
LINES = [json.dumps(record, separators=(",", ":")) for record in RECORDS]


def content(tmp_path, data):
    path = tmp_path / "content"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with open_content(path) as stream:
        return stream.read().decode("utf-8", "replace")


def records(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "saved",
    [
        "\n".join(LINES) + "\n",
        "\n".join(LINES),
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=4),
        "\n".join(json.dumps(record, indent=2) for record in RECORDS),
        json.dumps({"@odata.count": 3, "value": RECORDS}),
        json.dumps({"items": RECORDS}, indent=1),
        json.dumps([{"input": {"message": line}, "expected": {}} for line in LINES]),
        "\n".join(json.dumps({"message": line, "@timestamp": "x"}) for line in LINES),
        "\n".join(json.dumps({"preview": False, "result": {"_raw": line}}) for line in LINES),
        "\n".join(json.dumps({"_index": "i", "_source": record}) for record in RECORDS),
        "\ufeff" + json.dumps(RECORDS),
        "\n\n  " + json.dumps(RECORDS),
    ],
)
def test_every_layout_gives_the_records_in_order(tmp_path, saved):
    assert records(content(tmp_path, saved)) == RECORDS


def test_one_printed_object_is_one_record(tmp_path):
    assert records(content(tmp_path, json.dumps(RECORDS[0], indent=2))) == RECORDS[:1]


@pytest.mark.parametrize(
    "plain", ["1 2 3\n", "[ro.serialno]: [X]\n", '{"a":1}\n{"a"\n', "#fields\ta\n", "[\n", "{}\n", ""]
)
def test_what_is_no_document_passes_untouched(tmp_path, plain):
    assert content(tmp_path, plain) == plain


def test_json_lines_whose_first_is_damaged_stay_lines(tmp_path):
    saved = '{"a": broken\n' + "\n".join(LINES) + "\n"
    assert content(tmp_path, saved) == saved


def test_a_record_that_lists_things_of_its_own_stays_one(tmp_path):
    record = {"usageLogEvents": [{"eventId": "1"}], "device": "d"}
    assert records(content(tmp_path, json.dumps(record, indent=1))) == [record]
    assert records(content(tmp_path, json.dumps(record))) == [record]


def test_what_comes_before_the_damage_still_counts(tmp_path):
    path = tmp_path / "cut.json"
    path.write_text(json.dumps(RECORDS, indent=1)[:-12])
    with open_content(path) as stream:
        text = stream.read()
        with pytest.raises(SourceError, match="damaged JSON"):
            stream.read()
    assert records(text.decode()) == RECORDS[:2]


def test_endless_nesting_is_refused(tmp_path):
    deep = json.dumps([{"a": 1}])[:-1] + ',{"b":' + "[" * (DEEPEST + 5) + "]" * (DEEPEST + 5) + "}]"
    path = tmp_path / "deep.json"
    path.write_text(deep)
    with open_content(path) as stream:
        assert records(stream.read().decode()) == [{"a": 1}]
        with pytest.raises(SourceError, match="nested more than"):
            stream.read()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(found=st.lists(st.dictionaries(st.sampled_from("abcd"), JSON_VALUES, min_size=1), min_size=1, max_size=5))
@hypothesis_settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_records_survive_any_layout(tmp_path, found):
    for saved in (json.dumps(found), json.dumps(found, indent=2), json.dumps({"Records": found})):
        assert records(content(tmp_path, saved)) == json.loads(json.dumps(found))


def test_hostile_variants_end_in_lines_or_a_clear_error(tmp_path):
    rng = random.Random(3)  # noqa: S311  mutations, no secret
    whole = json.dumps({"value": RECORDS}, indent=1).encode()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            content(tmp_path, bytes(data))
        except SourceError as error:
            assert "JSON" in error.reason
