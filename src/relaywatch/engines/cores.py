"""Work on all cores, by threads: kernels and columns let others run meanwhile. And what it leaves in memory."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

AHEAD: Final = 2

Given = TypeVar("Given")
Made = TypeVar("Made")


def on_all_cores(work: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """What `work` makes of each item, in their order; after an error or an interrupt no further one is begun.

    Work goes AHEAD a core ahead of whoever takes the results, so that few of them wait in memory.
    """
    cores = os.cpu_count() or 1
    pool, begun = ThreadPoolExecutor(cores), deque[Future[Made]]()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > AHEAD * cores:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def give_memory_back() -> None:
    """Let others have the memory that was freed here: glibc keeps what lies between pieces that are still in use.

    After 100 M flows that is a third of a GiB. See malloc_trim(3); elsewhere nothing is done.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
