"""The wire format of protocol buffers in compiled code: numbers and fields, never beyond the given end."""

from __future__ import annotations

from typing import Any

import numpy as np

from relaywatch.model.compilation import compiled
from relaywatch.sources.capture_columns import Octets
from relaywatch.sources.perfetto_messages import FIXED32, FIXED64, LENGTH, VARINT

Number = Any
"""A 64-bit integer within a kernel; NumPy's types tell signed and unsigned ones apart where Numba converts."""


@compiled
def varint(octets: Octets, at: Number, end: Number) -> tuple[np.uint64, Number]:
    """The number at `at`, and where it ends; -1 where it has no end."""
    value = np.uint64(0)
    shift = np.uint64(0)
    for i in range(at, min(end, at + 10)):
        byte = np.uint64(octets[i])
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return value, i + 1
        shift += np.uint64(7)
    return np.uint64(0), -1


@compiled
def field(octets: Octets, at: Number, end: Number) -> tuple[Number, Number, np.uint64, Number, Number]:
    """Number, wire type, value, and where the content begins and ends; number -1: damaged."""
    tag, at = varint(octets, at, end)
    number, wire = np.int64(tag >> np.uint64(3)), np.int64(tag & np.uint64(7))
    if at < 0 or number < 1 or number >= 1 << 29:
        return -1, 0, np.uint64(0), 0, 0
    value, begin, after = np.uint64(0), at, at
    if wire == VARINT:
        value, after = varint(octets, at, end)
    elif wire == LENGTH:
        value, begin = varint(octets, at, end)
        if begin < 0 or value > np.uint64(end - begin):
            return -1, 0, np.uint64(0), 0, 0
        after = begin + np.int64(value)
    elif wire == FIXED64:
        after = at + 8
    elif wire == FIXED32:
        after = at + 4
    else:
        after = -1
    if after < 0 or after > end:
        return -1, 0, np.uint64(0), 0, 0
    return number, wire, value, begin, after
