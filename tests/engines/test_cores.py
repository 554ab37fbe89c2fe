"""Work on all cores: results in order, few of them ahead of whoever takes them, none begun after an error."""

from __future__ import annotations

import os

import pytest

from relaywatch.engines.cores import AHEAD, on_all_cores


def test_results_come_in_the_order_of_the_items():
    assert list(on_all_cores(lambda item: item * item, range(100))) == [item * item for item in range(100)]


def test_only_some_items_are_begun_ahead_of_whoever_takes_the_results():
    begun = []
    results = on_all_cores(begun.append, range(1_000))
    next(results)
    assert len(begun) <= AHEAD * (os.cpu_count() or 1) + 1
    results.close()
    assert len(begun) <= AHEAD * (os.cpu_count() or 1) + 1


def test_an_error_comes_through_and_nothing_further_is_begun():
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 3:
            raise ValueError(item)

    with pytest.raises(ValueError, match="3"):
        list(on_all_cores(work, range(1_000)))
    assert len(begun) < 1_000
