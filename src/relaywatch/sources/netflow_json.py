"""NetFlow v5, v9 and IPFIX records as collectors write them in JSON, by the names of their fields.

Names: RFC 3954's (IPV4_SRC_ADDR, IN_BYTES …), v5's, IANA's for IPFIX (sourceIPv4Address, octetDeltaCount …), and
Logstash's lower-case ones inside `netflow`. Times that count from the exporter's start need the collector's own time
(@timestamp): the record then ended when it was received. Without it such a record is put aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.tables import Batch
from relaywatch.sources.columns import written_instants
from relaywatch.sources.flow_pairs import FlowPairs
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 60.0
"""A record is exported up to its timeout after its end, and stamped then."""
_TEXTS: Final[Mapping[str, Sequence[str]]] = {
    "src": ("IPV4_SRC_ADDR", "IPV6_SRC_ADDR", "sourceIPv4Address", "sourceIPv6Address"),
    "dst": ("IPV4_DST_ADDR", "IPV6_DST_ADDR", "destinationIPv4Address", "destinationIPv6Address"),
}
_NUMBERS: Final[Mapping[str, Sequence[str]]] = {
    "src_port": ("L4_SRC_PORT", "SRC_PORT", "sourceTransportPort"),
    "dst_port": ("L4_DST_PORT", "DST_PORT", "destinationTransportPort"),
    "protocol": ("PROTOCOL", "PROTO", "protocolIdentifier"),
    "bytes": ("IN_BYTES", "IN_OCTETS", "octetDeltaCount"),
    "packets": ("IN_PKTS", "IN_PACKETS", "packetDeltaCount"),
    "first_up": ("FIRST_SWITCHED", "flowStartSysUpTime"),
    "last_up": ("LAST_SWITCHED", "flowEndSysUpTime"),
    "first_ms": ("flowStartMilliseconds",),
    "last_ms": ("flowEndMilliseconds",),
    "sampling": ("SAMPLING_INTERVAL", "samplingInterval"),
}
_RECEIVED: Final = ("@timestamp", "timestamp", "time_received")
_LOGSTASH: Final = pa.struct(
    [
        *((name.lower(), pa.string()) for name in ("IPV4_SRC_ADDR", "IPV6_SRC_ADDR", "IPV4_DST_ADDR", "IPV6_DST_ADDR")),
        *((name.lower(), pa.int64()) for name in ("L4_SRC_PORT", "L4_DST_PORT", "PROTOCOL", "IN_BYTES", "IN_PKTS")),
        ("first_switched", pa.string()),
        ("last_switched", pa.string()),
    ]
)
_ALL_TEXTS: Final = [name for names in (*_TEXTS.values(), _RECEIVED) for name in names]
_ALL_NUMBERS: Final = [name for names in _NUMBERS.values() for name in names]
SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in _ALL_TEXTS),
        *((name, pa.int64()) for name in _ALL_NUMBERS),
        ("netflow", _LOGSTASH),
    ]
)


class NetflowJson:
    """One file of records. The device is named by --device, or is the local address."""

    name: ClassVar[str] = "netflow-json"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record with addresses under one of the names."""
        return any(_is_flow(record) for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows as they are complete, then what was watched."""
        pairs = FlowPairs(path, reading, SKEW_BOUND_S)
        for frame in frames(stream, path, SCHEMA, reading):
            records = _records(frame)
            undated = records["time"].is_null() & records["first_up"].is_not_null()
            for position in records.filter(undated)["position"].to_list():
                reading.quarantine.add(
                    str(path),
                    f"line {position}",
                    "its times count from the exporter's start, and nothing says when that was; "
                    "have the collector add the time of receipt as @timestamp",
                )
            yield from pairs.batches(records.filter(~undated))
        yield from pairs.rest()


def _is_flow(record: Mapping[str, Any]) -> bool:
    inner = record.get("netflow")
    if isinstance(inner, dict) and {"ipv4_src_addr", "ipv6_src_addr"} & inner.keys():
        return True
    return bool(set(_TEXTS["src"]) & record.keys() and set(_TEXTS["dst"]) & record.keys())


def _records(frame: pl.DataFrame) -> pl.DataFrame:
    """The records under one set of names."""
    inner = pl.col("netflow").struct
    shown = {name: pl.coalesce(*names) for name, names in {**_TEXTS, **_NUMBERS}.items()}
    own = {
        "src": pl.coalesce(inner.field("ipv4_src_addr"), inner.field("ipv6_src_addr")),
        "dst": pl.coalesce(inner.field("ipv4_dst_addr"), inner.field("ipv6_dst_addr")),
        "src_port": inner.field("l4_src_port"),
        "dst_port": inner.field("l4_dst_port"),
        "protocol": inner.field("protocol"),
        "bytes": inner.field("in_bytes"),
        "packets": inner.field("in_pkts"),
    }
    received = written_instants(pl.coalesce(*_RECEIVED))
    length = (shown["last_up"] - shown["first_up"]).clip(0) * 1000
    end = pl.coalesce(shown["last_ms"] * 1000, written_instants(inner.field("last_switched")), received)
    begin = pl.coalesce(shown["first_ms"] * 1000, written_instants(inner.field("first_switched")), received - length)
    whole = {name: pl.coalesce(value, own[name]) if name in own else value for name, value in shown.items()}
    return frame.select(
        "position",
        begin.alias("time"),
        end.alias("end"),
        whole["src"].alias("src_ip"),
        whole["dst"].alias("dst_ip"),
        *(whole[name].alias(name) for name in ("src_port", "dst_port", "protocol", "bytes", "packets", "first_up")),
        pl.when(whole["sampling"] > 1).then(whole["sampling"]).alias("sampling"),
    )
