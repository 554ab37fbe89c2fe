"""How numeric kernels are compiled to machine code: one way for every room."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
from numba.core import config, event

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


KERNELS: Final = (
    "detection/*.py",
    "engines/pairs.py",
    "engines/promise.py",
    "engines/records.py",
    "simulation/*.py",
    "sources/capture_*.py",
    "sources/perfetto_*.py",
)
"""Modules with kernels, below the package."""


def _kernel_cache() -> Path:
    """Where compiled kernels are kept: a folder named after the sources of all modules.

    A kernel's machine code holds the constants and the kernels of other modules, whose changes Numba does not notice.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for source in sorted(path for pattern in KERNELS for path in package.glob(pattern)):
        digest.update(source.read_bytes())
    beside = package / "__pycache__"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relaywatch"
    place = beside if os.access(package, os.W_OK) else home
    return place / f"kernels-{digest.hexdigest()[:16]}"


if not os.environ.get("NUMBA_CACHE_DIR"):
    setattr(config, "CACHE_DIR", str(_kernel_cache()))  # noqa: B010  Numba makes its settings at run time


def compiled(function: Kernel) -> Kernel:
    """Compile `function` to machine code, kept on disk between runs where a place for it can be written."""
    try:
        return cast("Kernel", numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # Numba finds no writable place for its cache.
        return cast("Kernel", numba.njit(nogil=True)(function))


def before_compiling(tell: Callable[[], None]) -> None:
    """Call `tell` once, before the first kernel that has to be compiled because the cache does not hold it."""
    event.register("numba:compile", _Once(tell))  # type: ignore[no-untyped-call]


class _Once(event.Listener):
    """Numba does not ask the cache under this event, only the compiler."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def on_start(self, started: event.Event) -> None:
        """Compilation begins."""
        del started
        if (tell := self._tell) is not None:
            self._tell = None
            tell()

    def on_end(self, ended: event.Event) -> None:
        """It is done."""
