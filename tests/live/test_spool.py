"""The spool: what was on disk comes back, a torn end is cut, damage is told."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telemetry import piece

from relaywatch.live.spool import Spool
from relaywatch.live.taking import LiveError, Taken
from relaywatch.model.quarantine import Quarantined


def held(folder, after=0):
    """A spool, and what it gives after an entry: number, rows of each."""
    spool = Spool(folder, segment_bytes=4000)
    return spool, [(number, taken) for number, taken in spool.recover(after)]


def filled(folder, entries=6):
    spool, _ = held(folder)
    for number in range(entries):
        spool.append(piece(1 + 10 * number, 10))
        spool.commit()
    spool.close()


def test_rows_positions_and_quarantine_come_back_as_they_were(tmp_path):
    spool, _ = held(tmp_path)
    aside = [Quarantined("x", "line 3", "no record")]
    spool.append(Taken(piece(1, 50).batches, {"file:1-2": {"offset": 7}, "http-key:a": None}, aside, 1200, "zeek-conn"))
    spool.close()
    ((number, taken),) = held(tmp_path)[1]
    assert number == 1
    assert taken.batches[0].rows.equals(piece(1, 50).batches[0].rows, check_metadata=True)
    assert taken.positions == {"file:1-2": {"offset": 7}, "http-key:a": None}
    assert (taken.aside, taken.aside_total, taken.form) == (aside, 1200, "zeek-conn")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 20_000))
def test_a_torn_end_costs_only_what_was_torn(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("spool")
    filled(folder, 3)
    segment = sorted(folder.iterdir())[-1]
    size = segment.stat().st_size
    segment.write_bytes(segment.read_bytes()[: max(size - cut, 0)])
    spool, found = held(folder)
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert len(found) < 3
    assert spool.append(piece(500, 1)) == len(found) + 1
    spool.close()
    assert len(held(folder)[1]) == len(found) + 1


def test_zeros_after_the_end_as_a_power_cut_leaves_them_are_cut(tmp_path):
    filled(tmp_path, 2)
    segment = sorted(tmp_path.iterdir())[-1]
    segment.write_bytes(segment.read_bytes() + bytes(5000))
    assert [number for number, _ in held(tmp_path)[1]] == [1, 2]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), segment=st.integers(0, 1))
def test_a_changed_byte_before_the_last_entry_is_told_with_file_and_offset(tmp_path_factory, where, segment):
    folder = tmp_path_factory.mktemp("spool")
    filled(folder, 4)
    segments = sorted(folder.iterdir())
    path = segments[min(segment, len(segments) - 1)]
    content = bytearray(path.read_bytes())
    last = content.rindex(b"RwE\x01") if path == segments[-1] else len(content)
    if not last:
        return
    content[int(where * last)] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(LiveError, match=f"{path.name}, byte [0-9]+: entry [0-9]+ of the spool is damaged"):
        held(folder)


def test_a_missing_segment_is_told(tmp_path):
    filled(tmp_path)
    sorted(tmp_path.iterdir())[1].unlink()
    with pytest.raises(LiveError, match=r"entries \d+ to \d+ before it are missing"):
        held(tmp_path)


def test_segments_that_a_checkpoint_covers_are_removed_and_the_rest_is_replayed(tmp_path):
    filled(tmp_path)
    spool, found = held(tmp_path)
    before = spool.size_bytes
    spool.forget(4)
    assert spool.size_bytes < before
    spool.close()
    assert [number for number, _ in held(tmp_path, after=4)[1]] == [5, 6]
    assert len(found) == 6
