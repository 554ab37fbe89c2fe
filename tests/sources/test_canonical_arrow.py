"""Canonical tables as Arrow IPC: rows as they were; damage and bombs are told."""

import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.tables import batch
from relaywatch.sources.canonical_arrow import CanonicalArrow
from relaywatch.sources.reading import Head, Reading


def flows(first, count):
    columns = {
        "device_uid": [f"phone-{number % 3}" for number in range(count)], "flow_id": list(range(first, first + count)),
        "position": list(range(first, first + count)), "start_time": 1_772_528_400_000_000, "protocol_num": 6,
        "direction_id": 2, "direction_observability": 1, "bytes_observability": 1, "source": "x", "clock": "device",
    }  # fmt: skip
    return batch("flows", columns, length=count).rows


def written(*rows, new=pa.ipc.new_stream, **options):
    sink = io.BytesIO()
    with new(sink, rows[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for part in rows:
            writer.write_batch(part)
    return sink.getvalue()


def read(content):
    reading = Reading(Quarantine())
    return [part.rows for part in CanonicalArrow().read(Path("x"), io.BytesIO(content), reading)], reading


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_streams_and_files_come_back_as_they_were(new):
    parts = [flows(1, 10), flows(11, 10)] if new is pa.ipc.new_stream else [flows(1, 10)]
    content = written(*parts, new=new)
    assert CanonicalArrow.fits(Head(Path("x"), content[:65_536]))
    found, reading = read(content)
    assert all(one.equals(other) for one, other in zip(found, parts, strict=True))
    assert reading.tally.records == reading.tally.with_rows == sum(part.num_rows for part in parts)


def test_rows_that_do_not_fit_go_to_quarantine():
    rows = flows(1, 3)
    index = rows.schema.get_field_index("direction_id")
    rows = rows.set_column(index, "direction_id", pa.array([2, 9, 1], pa.uint8()))
    (found,), reading = read(written(rows))
    assert found["position"].to_pylist() == [1, 3]
    assert [record.position for record in reading.quarantine.records] == ["row 2"]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_bodies_are_refused_before_they_are_expanded(compression):
    content = written(flows(1, 10_000), compression=compression)
    assert CanonicalArrow.fits(Head(Path("x"), content))
    with pytest.raises(SourceError, match="compressed Arrow data"):
        read(content)


@given(st.data())
def test_damage_is_told_or_put_aside_and_never_anything_else(data):
    content = bytearray(written(flows(1, 50), flows(51, 50)))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] ^= data.draw(st.integers(1, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    CanonicalArrow.fits(Head(Path("x"), cut))
    try:
        found, _ = read(cut)
    except SourceError:
        return
    assert sum(rows.num_rows for rows in found) <= 100


def test_other_arrow_data_is_not_taken():
    content = written(pa.record_batch({"a": [1]}))
    assert not CanonicalArrow.fits(Head(Path("x"), content))
