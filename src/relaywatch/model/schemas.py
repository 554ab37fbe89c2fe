"""The four canonical tables as Arrow schemas, each column with its meaning and unit.

Byte directions are the device's: out left the device, in came to it. Names follow OCSF where OCSF has the
thing; what Android adds (package, uid, process state) stands in the android_* columns. A null is "not known";
columns ending in _observability say for guessable fields whether the value was observed, inferred or cannot be
observed by that source.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final

import pyarrow as pa


class Observability(IntEnum):
    """How a field's value came to be known."""

    NOT_OBSERVABLE = 0
    OBSERVED = 1
    INFERRED = 2


class Direction(IntEnum):
    """OCSF connection_info.direction_id, seen from the device."""

    UNKNOWN = 0
    INBOUND = 1
    OUTBOUND = 2


TEXT: Final = pa.dictionary(pa.int32(), pa.string())
"""Repeated text: dictionary-encoded so that a column costs four bytes a row."""
INSTANT: Final = pa.timestamp("us", tz="UTC")


def _field(name: str, kind: pa.DataType, doc: str, unit: str = "", *, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required, metadata={"doc": doc, "unit": unit})


_WHO: Final = (
    _field("device_uid", TEXT, "The phone, as the source names it (OCSF device.uid)", required=True),
    _field("android_package", TEXT, "Application package; null where the source cannot see the app"),
    _field("android_uid", pa.int32(), "Linux uid: user_id * 100000 + app_id; null where not seen"),
)
_PROVENANCE: Final = (
    _field("source", TEXT, "File that the record was read from", required=True),
    _field("position", pa.int64(), "Line, record or packet number within the file, from 1", "ordinal", required=True),
    _field("clock", TEXT, "Whose clock stamped the record: device or sensor", required=True),
    _field("clock_skew_bound_s", pa.float32(), "Largest error that the source's clock and stamping can have", "s"),
)

FLOWS: Final = pa.schema(
    [
        *_WHO,
        _field(
            "flow_id", pa.int64(), "Number of the flow, unique within its source; volumes refer to it", required=True
        ),
        _field("start_time", INSTANT, "First packet, or connect time", "us since epoch", required=True),
        _field("end_time", INSTANT, "Last packet or close; null where the source cannot tell", "us since epoch"),
        _field(
            "start_observability",
            pa.uint8(),
            "Inferred: start_time is when the connection was first seen open, as in a socket table; null is observed",
        ),
        _field("protocol_num", pa.uint8(), "IANA protocol: 6 TCP, 17 UDP", required=True),
        _field("direction_id", pa.uint8(), "Direction: 0 unknown, 1 inbound (accepted), 2 outbound", required=True),
        _field("direction_observability", pa.uint8(), "Observability of direction_id", required=True),
        _field("local_ip", TEXT, "The device's address"),
        _field("local_port", pa.uint16(), "The device's port"),
        _field("remote_ip", TEXT, "The other side's address"),
        _field("remote_port", pa.uint16(), "The other side's port"),
        _field("remote_hostname", TEXT, "Name of the other side"),
        _field(
            "hostname_observability",
            pa.uint8(),
            "Observed: from the flow itself (SNI). Inferred: from an earlier DNS answer",
        ),
        _field("bytes_out", pa.int64(), "Transport payload sent by the device, without retransmissions", "bytes"),
        _field("bytes_in", pa.int64(), "Transport payload received by the device", "bytes"),
        _field(
            "bytes_observability", pa.uint8(), "Inferred: payload estimated from wire bytes and packets", required=True
        ),
        _field("wire_bytes_out", pa.int64(), "IP bytes sent, headers included", "bytes"),
        _field("wire_bytes_in", pa.int64(), "IP bytes received, headers included", "bytes"),
        _field("packets_out", pa.int64(), "Packets sent", "packets"),
        _field("packets_in", pa.int64(), "Packets received", "packets"),
        _field("established", pa.bool_(), "The connection was accepted by the other side; null where not seen"),
        _field("app_protocol", TEXT, "Layer 7 protocol as the source labels it: explains, never convicts"),
        *_PROVENANCE,
    ]
)
"""One row a flow: one transport connection or UDP association as one sensor saw it."""

VOLUMES: Final = pa.schema(
    [
        *_WHO,
        _field("flow_id", pa.int64(), "The flow of the same source; null for a whole uid's volume"),
        _field("start_time", INSTANT, "Begin of the interval", "us since epoch", required=True),
        _field("duration_us", pa.int64(), "Length of the interval", "us", required=True),
        _field("bytes_out", pa.int64(), "Transport payload sent in the interval", "bytes", required=True),
        _field("bytes_in", pa.int64(), "Transport payload received in the interval", "bytes", required=True),
        _field("packets_out", pa.int64(), "Packets sent", "packets"),
        _field("packets_in", pa.int64(), "Packets received", "packets"),
        _field(
            "android_set",
            TEXT,
            "Of a whole uid's volume: background, foreground, vpn_in, vpn_out; null where not parted",
        ),
        *_PROVENANCE,
    ]
)
"""One row an interval that carried bytes, of one flow (or one uid)."""


class SignalKind(IntEnum):
    """Dated facts that are no flows."""

    LISTENER = 1
    RAW_SOCKET = 2
    VPN = 3
    PROXY_SETTING = 4
    FOREGROUND_UI = 5
    FOREGROUND_SERVICE = 6
    SCREEN_ON = 7
    KEYGUARD_LOCKED = 8
    USER_INTERACTION = 9
    PROCESS_START = 10
    LOGGING_GAP = 11
    CAPTURE = 12
    SOCKS_REQUEST = 13
    HTTP_CONNECT = 14
    NAME_LOOKUP = 15
    PACKAGE_CHANGE = 16
    THREAT_VERDICT = 17
    TRANSLATION = 18


SIGNALS: Final = pa.schema(
    [
        *_WHO,
        _field("kind", pa.uint8(), "SignalKind", required=True),
        _field("start_time", INSTANT, "When it was, or began", "us since epoch", required=True),
        _field("end_time", INSTANT, "When it ended; null: an instant, or still so", "us since epoch"),
        _field("observability", pa.uint8(), "Observed or inferred", required=True),
        _field("local_port", pa.uint16(), "Port of a listener"),
        _field("detail", TEXT, "What the source said of it, as text"),
        *_PROVENANCE,
    ]
)
"""One row a signal. LOGGING_GAP and CAPTURE state when a source was blind or watching;
a CAPTURE's detail lists, space-separated, the SignalKind names that the source would have shown. SOCKS_REQUEST and
HTTP_CONNECT are proxy requests that the device answered; a NAME_LOOKUP's detail is the host name, then the addresses
answered, space-separated; a THREAT_VERDICT is another product's judgement and only corroborates; a TRANSLATION is of
the device with local_port inside a translator (NAT), its detail the protocol, outside address and outside port."""


class IdentifierKind(StrEnum):
    """Names under which sources know one device."""

    SERIAL = "serial"
    IMEI = "imei"
    ANDROID_ID = "android_id"
    MDM_ID = "mdm_id"
    SENSOR_ID = "sensor_id"
    MAC = "mac"
    HOSTNAME = "hostname"
    IP = "ip"


INVENTORY: Final = pa.schema(
    [
        *_WHO,
        _field("user_id", pa.int32(), "Android user: 0 owner, 10 and up secondary or work profile"),
        _field("user_name", TEXT, "The person, where the source knows"),
        _field("device_group", TEXT, "Population or department of the device"),
        _field("app_label", TEXT, "Display name"),
        _field("signing_digest", TEXT, "SHA-256 of the signing certificate, lower-case hex"),
        _field("installer", TEXT, "Package that installed the app"),
        _field("detail", TEXT, "Anything else the source said, as text"),
        _field("identifier_kind", TEXT, "IdentifierKind of identifier; null where the row names none"),
        _field(
            "identifier",
            TEXT,
            "Another name of the device: serial, IMEI, id of an MDM or security product (prefixed with its name), "
            "MAC (lower case, colons), IP address (canonical)",
        ),
        _field("valid_from", INSTANT, "Begin of the time for which the identifier is the device's", "us since epoch"),
        _field("valid_to", INSTANT, "Its end; null: until another source says otherwise", "us since epoch"),
        *_PROVENANCE,
    ]
)
"""One row an app on a device, or a device (null package), or one identifier of a device, valid for a time (a lease)."""

TABLES: Final = {"flows": FLOWS, "volumes": VOLUMES, "signals": SIGNALS, "inventory": INVENTORY}
