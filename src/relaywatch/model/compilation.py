"""How numeric kernels are compiled to machine code: one way for every room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Compile `function` to machine code, kept on disk between runs where a place for it can be written.

    Numba notices a change of the kernel's own file only: after changing a kernel or a constant that other files use,
    empty their __pycache__.
    """
    try:
        return cast("Kernel", numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # Numba finds no writable place for its cache.
        return cast("Kernel", numba.njit(nogil=True)(function))
