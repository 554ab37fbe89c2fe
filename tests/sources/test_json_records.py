from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaywatch.model.quarantine import Quarantine
from relaywatch.sources import json_records
from relaywatch.sources.json_records import frames
from relaywatch.sources.reading import Reading

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("count", pa.int64()),
        ("share", pa.float64()),
        ("open", pa.bool_()),
        ("who", pa.struct([("id", pa.string()), ("ports", pa.list_(pa.int64()))])),
    ]
)
GOOD = b'{"name":"a","count":1,"share":0.5,"open":true,"who":{"id":"x","ports":[80,443]},"more":[{}]}'


def read(content: bytes):
    reading = Reading(Quarantine())
    rows = [row for frame in frames(io.BytesIO(content), Path("x.json"), SCHEMA, reading) for row in frame.to_dicts()]
    reading.tally.with_rows += len(rows)
    return rows, [(entry.position, entry.reason) for entry in reading.quarantine.records], reading


def line_by_line(content: bytes, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(json_records, "_regular", lambda _block: 0)
        patch.setattr(json_records, "FEWEST_AT_ONCE", 1 << 30)
        return read(content)


LINES = st.one_of(
    st.just(GOOD),
    st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=2)).map(
        lambda at: (GOOD[: at[0]] + at[1] + GOOD[at[0] + 1 :]).replace(b"\n", b" ")
    ),
    st.sampled_from(
        [
            *(b"", b" ", b"{}", b"null", b"{}{}", b'{"name":', b'{}}{"name":1}', b'{"who":{"id":1}}', b'{"name":7}'),
            *(
                b'{"count":1.0}',
                b'{"count" : 5}',
                b'{"c\\u006funt":5}',
                b'{"who":{"id":"y"}}',
                b'{"who":null,"more":[]}',
                b'{"who":{"other":1}}',
                b'{"count":"9"}',
                b'{"count":1e999}',
                b'{"share":1}',
                b'{"share":NaN}',
                b'{"name":NaN}',
                b'{"other":NaN,"share":-Infinity}',
                b'{"other":NaN}',
                b"\xef\xbb\xbf{}",
            ),
            *(b'{"name":"\xff"}', b'{"name":"\\ud800"}', b'{"other":"\xed\xa0\x80"}', b'{"name":"\xc3\xa9"}', b"{}\r"),
            *(b'{"count":1,"count":2}', b'{"count":9223372036854775808}', b'{"open":1}', b'{"who":[]}', b"[" * 3000),
        ]
    ),
)


@given(lines=st.lists(LINES, max_size=8), copies=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_whole_blocks_give_what_single_lines_give(lines, copies):
    content = b"".join(line + b"\n" for line in [*lines, *[GOOD] * copies, *lines])
    with pytest.MonkeyPatch.context() as patch:
        rows, aside, reading = read(content)
        slow_rows, slow_aside, _ = line_by_line(content, patch)
        patch.setattr(json_records, "FEWEST_AT_ONCE", 2)
        halved_rows, halved_aside, _ = read(content)
    assert (rows, aside) == (slow_rows, slow_aside)
    assert (rows, aside) == (halved_rows, halved_aside)
    assert reading.tally.records == len(rows) + len(aside)


def test_bad_lines_among_thousands_cost_only_themselves():
    lines = [GOOD] * 5_000
    lines[17], lines[4_321] = b'{"name":"\xff"}', b"nonsense"
    rows, aside, reading = read(b"\n".join(lines))
    assert len(rows) == 4_998
    assert [position for position, _ in aside] == ["line 18", "line 4322"]
    assert [row["position"] for row in rows] == [n for n in range(1, 5_001) if n not in (18, 4_322)]
    assert reading.tally.records == 5_000


def test_what_converts_without_loss_is_taken():
    record = {"name": 7, "count": "12", "share": "0.25", "open": None, "who": {"id": True, "ports": ["80", 443.0]}}
    rows, aside, _ = read(json.dumps(record).encode())
    assert not aside
    assert rows[0] == {
        "name": "7",
        "count": 12,
        "share": 0.25,
        "open": None,
        "who": {"id": "true", "ports": [80, 443]},
        "position": 1,
    }


@pytest.mark.parametrize("spelt", ['"count":5', '"count" : 5', '"count"\t:5', '"c\\u006funt":5'])
def test_a_name_is_found_however_it_is_spelt_among_records_without_it(spelt):
    rows, aside, _ = read(b'{"name":"a"}\n' * 50 + b"{" + spelt.encode() + b"}\n" + b'{"name":"b"}\n' * 50)
    assert not aside
    assert [row["count"] for row in rows] == [None] * 50 + [5] + [None] * 50


def test_an_object_has_all_fields_of_its_schema_whichever_occur():
    rows, _, _ = read(b'{"who":{"id":"x"}}\n{"who":null}\n{}\n')
    assert [row["who"] for row in rows] == [{"id": "x", "ports": None}, None, None]
