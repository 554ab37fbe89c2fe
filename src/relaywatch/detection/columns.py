"""The columns that detection sees: flows and volumes of whole (device, app) groups, sorted.

Times are float seconds from a common origin that the caller chooses (so that 64-bit floats keep microseconds);
bytes are float payload bytes, -1 where not known. Nothing here knows names, files or clocks.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from relaywatch.model.compilation import compiled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

OVERHEAD: Final = 40.0
"""Bytes added to both sides before a ratio is taken, so that tolerance widens as bytes shrink."""
NOT_KNOWN: Final = -1.0
"""Bytes that the telemetry does not show."""
INBOUND_KEY: Final = np.uint64(1 << 62)
"""Client sides of accepted sessions are keyed by local port above this bit, gateways by remote address below it."""
_REMOTE_MASK: Final = INBOUND_KEY - np.uint64(1)


class FlowColumns(NamedTuple):
    """Flows sorted by (group, start). Group g is rows offsets[g] to offsets[g + 1].

    side: the client side that the flow would belong to (client_sides); lookup: a name lookup, which accompanies a
    target leg but is none; end: equals start where it is not known.
    """

    offsets: Ints
    start: Floats
    end: Floats
    bytes_out: Floats
    bytes_in: Floats
    inbound: Flags
    side: Keys
    lookup: Flags
    protocol: Ints


class VolumeColumns(NamedTuple):
    """Volumes sorted by (group, flow, time). Group g is rows offsets[g] to offsets[g + 1].

    flow: row of the flow in FlowColumns; time: begin of the interval.
    """

    offsets: Ints
    flow: Ints
    time: Floats
    bytes_out: Floats
    bytes_in: Floats


class Group(NamedTuple):
    """One (device, app)'s flows, rows counted from 0, with the order of their ends.

    log_out, log_in: natural log of the bytes and OVERHEAD.
    """

    start: Floats
    end: Floats
    bytes_out: Floats
    bytes_in: Floats
    inbound: Flags
    side: Keys
    lookup: Flags
    protocol: Ints
    by_end: Ints
    ends: Floats
    log_out: Floats
    log_in: Floats


@compiled
def group_of(flows: FlowColumns, number: int) -> Group:
    """The flows of one group; the group must not be empty."""
    a, b = flows.offsets[number], flows.offsets[number + 1]
    end = flows.end[a:b]
    by_end = np.argsort(end, kind="mergesort")
    return Group(
        flows.start[a:b],
        end,
        flows.bytes_out[a:b],
        flows.bytes_in[a:b],
        flows.inbound[a:b],
        flows.side[a:b],
        flows.lookup[a:b],
        flows.protocol[a:b],
        by_end,
        end[by_end],
        np.log(flows.bytes_out[a:b] + OVERHEAD),
        np.log(flows.bytes_in[a:b] + OVERHEAD),
    )


def client_sides(
    inbound: Flags, local_port: npt.NDArray[np.uint16], protocol: npt.NDArray[np.uint8], remote: Keys
) -> Keys:
    """Key of the client side that each flow would belong to.

    An accepted flow belongs to the local port that accepted it; a dialled one to the address that it dialled.
    """
    ports = INBOUND_KEY | (protocol.astype(np.uint64) << np.uint64(16)) | local_port.astype(np.uint64)
    return np.where(inbound, ports, remote & _REMOTE_MASK)
