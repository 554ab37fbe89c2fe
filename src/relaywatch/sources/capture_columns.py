"""The capture readers' packed columns: packets and flows as NumPy records."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Octets = NDArray[np.uint8]
Records = NDArray[Any]
"""Records of one of the layouts below."""
Record = Any
"""One record within a kernel, where Numba gives its fields as attributes; NumPy's types know no such thing."""
Integers = NDArray[Any]
"""64-bit integers; within a kernel one of them is an int."""


class Fault(IntEnum):
    """Why a packet carries no flow."""

    NONE = 0
    NOT_IP = 1
    CUT_LINK = 2
    UNKNOWN_LINK = 3
    CUT_IP = 4
    BAD_IP = 5
    CUT_TRANSPORT = 6
    BAD_TRANSPORT = 7
    NO_TIME = 8
    BAD_BLOCK = 9
    NO_INTERFACE = 10


class Label(IntEnum):
    """Layer 7 protocol as the first payload bytes show it."""

    NONE = 0
    TLS = 1
    DNS = 2
    HTTP = 3
    QUIC = 4


PACKET: Final = np.dtype(
    [
        ("time", "i8"),  # us since epoch
        ("src_high", "u8"),  # addresses as 128 bits, IPv4 mapped (::ffff:a.b.c.d)
        ("src_low", "u8"),
        ("dst_high", "u8"),
        ("dst_low", "u8"),
        ("data", "i8"),  # captured bytes: begin within the buffer (without such: number of the record), and end
        ("end", "i8"),
        ("payload", "i8"),  # transport payload within the buffer; not beyond `end`
        ("original", "i8"),  # length on the wire, link header included
        ("wire_bytes", "i8"),  # IP bytes
        ("payload_bytes", "i8"),
        ("sequence", "u4"),
        ("acknowledged", "u4"),
        ("uid", "i4"),  # -1: not known
        ("label_at", "i4"),  # begin of the trailer's app name, relative to `data`; 0: no trailer
        ("link", "i4"),
        ("packets", "u4"),  # that the row stands for: one in a capture
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("protocol", "u1"),
        ("flags", "u1"),  # TCP flags
        ("fault", "u1"),
        ("heading", "u1"),  # 1 received, 2 sent by the capturing device; 0 not told
        ("group", "u1"),  # sent to a link-layer group address
    ],
    align=True,
)
"""One packet. data, end, link, time, original, uid, heading come from the framing, the rest from decoding."""

FLOW: Final = np.dtype(
    [
        ("flow_id", "i8"),
        ("local_high", "u8"),
        ("local_low", "u8"),
        ("remote_high", "u8"),
        ("remote_low", "u8"),
        ("start", "i8"),  # us since epoch
        ("end", "i8"),
        ("position", "i8"),
        ("bytes_out", "i8"),
        ("bytes_in", "i8"),
        ("wire_out", "i8"),
        ("wire_in", "i8"),
        ("packets_out", "i8"),
        ("packets_in", "i8"),
        ("second", "i8"),  # the interval being filled, epoch s
        ("second_position", "i8"),
        ("second_out", "i8"),
        ("second_in", "i8"),
        ("second_packets_out", "i8"),
        ("second_packets_in", "i8"),
        ("uid", "i4"),
        ("chain", "i4"),  # next in the hash bucket
        ("older", "i4"),  # neighbours in order of last activity
        ("newer", "i4"),
        ("bucket", "i4"),
        ("isn", "u4"),  # the initiator's initial sequence number
        ("edge_out", "u4"),  # highest sequence number seen, per direction
        ("edge_in", "u4"),
        ("loose_out", "u4"),  # bytes of gaps no longer tracked one by one
        ("loose_in", "u4"),
        ("first", "u4"),  # sequence number of the initiator's first payload byte
        ("watch", "u4"),  # payload bytes from the first that may still name the host
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("protocol", "u1"),
        ("mirrored", "u1"),  # both ends are local: seen once more from the other end
        ("from_local", "u1"),  # the device initiated
        ("observed", "u1"),  # a SYN told who initiated
        ("accepted", "u1"),  # SYN-ACK seen
        ("isn_known", "u1"),
        ("edge_known", "u1"),  # bit 0 out, bit 1 in
        ("closed", "u1"),  # bit 0 FIN out, bit 1 FIN in, bit 2 RST
        ("queue", "u1"),  # 0 ends after a short silence, 1 an open TCP connection
        ("label", "u1"),
        ("asked", "u1"),  # pieces of the first payload handed out for naming
        ("settled", "u1"),  # the first payload byte was looked at
    ],
    align=True,
)
"""One flow, as the device's view."""

VOLUME: Final = np.dtype(
    [
        ("flow_id", "i8"),
        ("local_high", "u8"),
        ("local_low", "u8"),
        ("remote_high", "u8"),
        ("remote_low", "u8"),
        ("second", "i8"),
        ("bytes_out", "i8"),
        ("bytes_in", "i8"),
        ("packets_out", "i8"),
        ("packets_in", "i8"),
        ("position", "i8"),
        ("uid", "i4"),
        ("mirrored", "u1"),
    ],
    align=True,
)
"""One second of one flow."""

EVENT: Final = np.dtype(
    [("flow_id", "i8"), ("packet", "i4"), ("offset", "u4"), ("kind", "u1"), ("mirrored", "u1"), ("from_src", "u1")],
    align=True,
)
"""Something that naming must look at. packet: index in the batch; from_src: the packet's source is the device."""


class EventKind(IntEnum):
    """What naming is to look at."""

    FLOW_STARTED = 0
    DNS_MESSAGE = 1
    FIRST_PAYLOAD = 2
