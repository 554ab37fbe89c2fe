"""The first run compiles for a while: the user is told so once."""

import numba

from relaywatch.model.compilation import before_compiling


def test_compiling_is_told_once_and_what_is_compiled_already_is_not():
    told = []
    first, second = (numba.njit(lambda number, added=added: number + added) for added in (1, 2))
    first(1)
    before_compiling(lambda: told.append("compiling"))
    first(2)
    assert told == []
    second(1)
    second(1.0)
    assert told == ["compiling"]
