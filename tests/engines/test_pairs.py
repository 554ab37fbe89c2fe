"""What the store of records by pair promises: it gives back what was put in, whatever was let go and restored."""

from __future__ import annotations

import errno
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywatch.engines.pairs import PairStore
from relaywatch.engines.records import FLOW

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 9), min_size=1, max_size=60)),
        st.tuples(st.just("clear"), st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)),
        st.tuples(st.just("read"), st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)),
        st.tuples(st.just("restart"), st.just([])),
    ),
    max_size=30,
)


@given(STEPS)
def test_records_come_back_whatever_was_let_go_and_restored(steps):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "blocks"
        store, expected, number = PairStore(FLOW, path), defaultdict(list), 0
        for kind, slots in steps:
            if kind == "append":
                records = np.zeros(len(slots), FLOW)
                records["start"] = np.arange(number, number + len(slots))
                number += len(slots)
                store.append(np.array(slots, np.int64), records)
                for slot, start in zip(slots, records["start"].tolist(), strict=True):
                    expected[slot].append(start)
            elif kind == "clear":
                store.clear(np.array(slots, np.int64))
                for slot in slots:
                    expected.pop(slot, None)
            elif kind == "read":
                records, of = store.read(np.array(slots, np.int64))
                for slot in slots:
                    assert sorted(records["start"][of == slot].tolist()) == expected.get(slot, [])
            else:
                columns = store.checkpoint()
                store.close()
                store = PairStore(FLOW, path)
                store.restore(columns)
        records, of = store.read(np.arange(10))
        for slot in range(10):
            assert sorted(records["start"][of == slot].tolist()) == expected.get(slot, [])
        store.close()


def interleaved(slots: int, each: int, begin: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Slots by turns, and a record for each place with its number as start."""
    records = np.zeros(slots * each, FLOW)
    records["start"] = np.arange(begin, begin + len(records))
    return np.arange(len(records)) % slots, records


def test_what_was_scattered_is_read_again_whole_after_it_was_written_together(tmp_path):
    store, (of, records) = PairStore(FLOW, tmp_path / "blocks"), interleaved(5, 400)
    store.append(of, records)
    wanted = np.array([3, 1])
    expected = sorted(records["start"][np.isin(of, wanted)].tolist())
    for _ in range(3):
        assert sorted(store.read(wanted)[0]["start"].tolist()) == expected
    further, more = interleaved(5, 100, begin=len(records))
    store.append(further, more)
    everything = sorted([*records["start"].tolist(), *more["start"].tolist()])
    assert sorted(store.read(np.arange(5))[0]["start"].tolist()) == everything
    store.close()


def test_a_checkpoint_is_as_the_store_was_whatever_came_after_it(tmp_path):
    store, (of, records) = PairStore(FLOW, tmp_path / "blocks"), interleaved(5, 100)
    store.append(of, records)
    before = store.checkpoint()
    further, more = interleaved(5, 300, begin=len(records))
    store.append(further, more)
    store.read(np.arange(5))
    store.clear(np.array([2]))
    store.sync()
    store.close()
    again = PairStore(FLOW, tmp_path / "blocks")
    again.restore(before)
    assert sorted(again.read(np.arange(5))[0]["start"].tolist()) == records["start"].tolist()
    again.close()


def test_the_older_checkpoint_holds_after_a_restart_from_the_newer_one(tmp_path):
    store, (of, records) = PairStore(FLOW, tmp_path / "blocks"), interleaved(2, 200)
    store.append(of, records)
    older = store.checkpoint()
    store.clear(np.array([0]))
    newer = store.checkpoint()
    store.close()
    again = PairStore(FLOW, tmp_path / "blocks")
    again.restore(newer)
    again.append(*interleaved(3, 300, begin=5_000))
    again.close()
    back = PairStore(FLOW, tmp_path / "blocks")
    back.restore(older)
    assert sorted(back.read(np.arange(2))[0]["start"].tolist()) == records["start"].tolist()
    back.close()


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    store, (of, records) = PairStore(FLOW, tmp_path / "blocks"), interleaved(1, 100)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(OSError, match="No space left") as told:
        store.append(of, records)
    assert told.value.filename == str(tmp_path / "blocks")
    store.close()


def test_blocks_that_a_checkpoint_refers_to_are_not_used_again(tmp_path):
    store, slot = PairStore(FLOW, tmp_path / "blocks"), np.array([0])
    records = np.zeros(200, FLOW)
    records["start"] = np.arange(200)
    store.append(np.zeros(200, np.int64), records)
    columns = store.checkpoint()
    store.clear(slot)
    records["start"] += 1_000
    for _ in range(5):
        store.append(np.ones(200, np.int64), records)
    store.close()
    again = PairStore(FLOW, tmp_path / "blocks")
    again.restore(columns)
    assert sorted(again.read(slot)[0]["start"].tolist()) == list(range(200))
    again.close()
