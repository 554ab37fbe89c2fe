"""Flows, bouts and signals before they are canonical rows: numbers only, the time in us since the fleet's begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Drafts = npt.NDArray[Any]
"""Rows of DRAFT, BOUT or FACT."""

ORDINARY, LOOKUP, FAILED, ACCEPTED, DIALLED, LINK, TARGET, PIECE = range(8)
"""Kinds of drafts. The last is no flow: what one session put through a link, which only the link's volumes show."""

DRAFT: Final = np.dtype(
    [
        ("arrival", np.int64),
        ("start", np.int64),
        ("end", np.int64),
        ("busy", np.int64),
        ("idle", np.int64),
        ("bytes_out", np.int64),
        ("bytes_in", np.int64),
        ("flow", np.int64),
        ("pair", np.int32),
        ("remote", np.int32),
        ("asked", np.int32),
        ("local_port", np.uint16),
        ("remote_port", np.uint16),
        ("datagrams", np.uint8),
        ("kind", np.uint8),
    ],
    align=True,
)
"""A flow. arrival: of its record; busy, idle: between which it carries bytes; flow: its number from 0; asked: the
remote that a look-up asks for, else -1."""

BOUT: Final = np.dtype([("start", np.int64), ("end", np.int64), ("pair", np.int32), ("front", np.uint8)], align=True)
"""What an app does at one go. front: before the user's eyes."""

FACT: Final = np.dtype(
    [
        ("arrival", np.int64),
        ("start", np.int64),
        ("end", np.int64),
        ("device", np.int32),
        ("place", np.int16),
        ("port", np.int32),
        ("detail", np.int32),
        ("kind", np.uint8),
    ],
    align=True,
)
"""A signal. end: -1 where it is an instant; place: of the app on the device, -1 for the device's own; port: of a
listener, else 0; detail: number of its text, -1 where it has none."""


def joined(parts: Sequence[Drafts]) -> Drafts:
    """The drafts one after another: as np.concatenate, several times faster. All of one type, and at least one part."""
    kind = parts[0].dtype
    return np.concatenate([part.view(np.uint64) for part in parts]).view(kind)
