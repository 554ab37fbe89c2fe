"""The sieve by itself: what outgrows memory comes to the same, and lakes are read by whole devices."""

import numpy as np
import pyarrow as pa

from relaywatch.detection.calibration import MEASURED
from relaywatch.detection.settings import Settings
from relaywatch.fleet import sieve as sieving
from relaywatch.fleet.sieve import AppDay, Told, sieve
from relaywatch.fleet.words import UNFIT, WORDS

DAY_US = 86_400_000_000


def words(devices=6, pairs=40, seed=1):
    """Each device's one app accepts sessions and sends on what it takes in; the even ones only."""
    rng, rows = np.random.default_rng(seed), []
    for device in range(devices):
        for number in range(pairs):
            at, sent, got = (
                DAY_US + number * 60_000_000,
                int(rng.integers(2_000, 60_000)),
                int(rng.integers(2_000, 60_000)),
            )
            who = (1_000 + device, 7, (10_050 << 32) | 1, 3)
            client = (
                *who,
                number * 2,
                number * 2,
                at,
                at + 2_000_000,
                got,
                sent,
                11,
                1 | 6 << 8 | 1080 << 16 | 4_000 << 32,
            )
            target = (sent, got) if device % 2 == 0 else (int(rng.integers(100, 900)), int(rng.integers(100, 900)))
            port = 40_000 + number
            out = (*who, number * 2 + 1, number * 2 + 1, at + 50_000, at + 1_900_000, *target, 20 + number, 2 | 6 << 8)
            rows += [client, (*out[:-1], out[-1] | port << 16 | 443 << 32)]
    return np.array(rows, np.int64)


def batches(rows, size):
    for begin in range(0, len(rows), size):
        part = rows[begin : begin + size]
        yield pa.RecordBatch.from_arrays([pa.array(part[:, k]) for k in range(len(WORDS))], names=list(WORDS))


def told(rows, size=100):
    (result,) = sieve(Settings(), MEASURED)(batches(rows, size))
    return result.to_pylist()


def test_apps_that_send_on_what_they_take_in_are_cases_and_all_are_counted():
    rows = told(words())
    cases = {AppDay(row["day"], row["device"], row["package"], row["uid"]) for row in rows if row["told"] == Told.CASE}
    assert {AppDay(1, 1_000 + device, 7, 10_050) for device in (0, 2, 4)} <= cases
    assert sum(row["number"] for row in rows if row["told"] == Told.JUDGED) == 6


def test_what_outgrows_memory_comes_to_the_same(monkeypatch):
    rows = np.random.default_rng(2).permutation(words(devices=30))
    whole = told(rows)
    monkeypatch.setattr(sieving, "AT_ONCE", 300)
    assert told(rows) == whole


def test_rows_that_do_not_fit_are_counted_and_not_judged():
    rows = words()
    bad = rows.copy()
    bad[:, WORDS.index("marks")] = UNFIT
    both = told(np.concatenate([rows, bad]))
    unfit = {row["told"]: row["number"] for row in both if row["told"] == Told.UNFIT}
    assert unfit == {Told.UNFIT: len(bad)}
    assert [row for row in both if row["told"] != Told.UNFIT] == told(rows)
