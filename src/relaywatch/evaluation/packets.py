"""One app's packets, where a labelled trace has them: lab-dev's packets.parquet, or the range's shortened capture.

Only rules that need packets read them; relaywatch's detection never does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.capture_columns import Fault, Records
from relaywatch.sources.capture_decode import FRAGMENT, FRAGMENTS, TCP, decode
from relaywatch.sources.capture_framing import Frames
from relaywatch.sources.capture_rows import address_text
from relaywatch.sources.compression import open_content

PACKET_SCHEMA: Final = {"flow_id": pl.Int64, "time": pl.Float64, "sent": pl.Boolean, "payload": pl.Int64}
"""time: epoch s; sent: by the app; payload: bytes not sent before (a retransmission has 0). Sorted by flow, time."""
MOST_PACKETS: Final = 5_000_000
CLOCK_S: Final = 2e-6
"""Flow tables may round a start by this much."""
_PROTOCOLS: Final = {6: "tcp", 17: "udp"}
_ENDS: Final = ("protocol", "local_port", "remote", "remote_port")


def read_packets(folder: Path, flows: pl.DataFrame) -> pl.DataFrame | None:
    """Packets of a trace folder as PACKET_SCHEMA; None where the trace has none.

    flows: the trace's flows (see baseline.Traffic), by which captured packets find their flow. A packet of none is
    left out. Raises SourceError where a file is damaged or holds more than MOST_PACKETS.
    """
    if (folder / "packets.parquet").is_file():
        return _from_table(folder)
    if (folder / "trace.pcap.zst").is_file():
        return _from_capture(folder / "trace.pcap.zst", flows)
    return None


def _from_table(folder: Path) -> pl.DataFrame:
    path = folder / "packets.parquet"
    try:
        begin = float(json.loads((folder / "context.json").read_text(encoding="utf-8"))["packets_t0"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(folder / "context.json", f"does not say packets_t0 ({error}).") from error
    try:
        rows = pl.scan_parquet(path).head(MOST_PACKETS + 1).select("flow_id", "t_us", "len", "tx").collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(path, f"cannot be read as a packet table ({error}).") from error
    return _ordered(
        _bounded(rows, path).select(
            pl.col("flow_id").cast(pl.Int64),
            (begin + pl.col("t_us") / 1e6).alias("time"),
            (pl.col("tx") == 1).alias("sent"),
            pl.col("len").cast(pl.Int64).abs().alias("payload"),
        )
    )


def _from_capture(path: Path, flows: pl.DataFrame) -> pl.DataFrame:
    fragments, quarantine = np.zeros(FRAGMENTS, FRAGMENT), Quarantine()
    parts: list[pl.DataFrame] = []
    count = 0
    with open_content(path) as stream:
        frames = Frames(path, stream, quarantine)
        for batch in frames:
            decode(batch.octets, batch.packets, fragments)
            parts.append(_columns(batch.packets[batch.packets["fault"] == int(Fault.NONE)]))
            count += parts[-1].height
            if count > MOST_PACKETS:
                break
    if frames.damage is not None:
        raise frames.damage
    if quarantine.records:
        first = quarantine.records[0]
        raise SourceError(path, first.reason, position=first.position, remedy="Write the trace anew.")
    if not parts:
        return pl.DataFrame(schema=PACKET_SCHEMA)
    return _ordered(_new_payload(_with_flow(_bounded(pl.concat(parts), path), flows)))


def _bounded(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    if rows.height > MOST_PACKETS:
        raise SourceError(path, f"holds more than {MOST_PACKETS:,} packets.", remedy="Cut the trace into shorter ones.")
    return rows


def _columns(packets: Records) -> pl.DataFrame:
    """TCP and UDP packets with the ends as text."""
    packets = packets[np.isin(packets["protocol"], list(_PROTOCOLS))]
    return pl.DataFrame(
        {
            "time": packets["time"] / 1e6,
            "protocol": packets["protocol"].astype(np.int64),
            "src": _addresses(packets, "src"),
            "dst": _addresses(packets, "dst"),
            "src_port": packets["src_port"].astype(np.int64),
            "dst_port": packets["dst_port"].astype(np.int64),
            "sequence": packets["sequence"].astype(np.int64),
            "bytes": packets["payload_bytes"],
        }
    )


def _addresses(packets: Records, end: str) -> pl.Series:
    pairs = np.empty(len(packets), np.dtype([("high", "u8"), ("low", "u8")]))
    pairs["high"], pairs["low"] = packets[f"{end}_high"], packets[f"{end}_low"]
    distinct, places = np.unique(pairs, return_inverse=True)
    texts: Any = np.array([address_text(high, low) for high, low in distinct.tolist()], dtype=object)
    return pl.Series(texts[places], dtype=pl.String)


def _with_flow(packets: pl.DataFrame, flows: pl.DataFrame) -> pl.DataFrame:
    """Packets with the flow of their ends that began last before them, sent or received."""
    begun = flows.select("flow_id", *_ENDS, time=pl.col("start") - CLOCK_S).sort("time")
    named = packets.with_columns(pl.col("protocol").replace_strict(_PROTOCOLS, return_dtype=pl.String)).sort("time")
    sides = []
    for sent, (local, remote) in ((True, ("src", "dst")), (False, ("dst", "src"))):
        seen = named.rename({f"{local}_port": "local_port", remote: "remote", f"{remote}_port": "remote_port"})
        sides.append(
            seen.join_asof(begun, on="time", by=list(_ENDS), strategy="backward", check_sortedness=False)
            .filter(pl.col("flow_id").is_not_null())
            .select("flow_id", "time", "sequence", "bytes", "protocol", sent=pl.lit(value=sent))
        )
    return pl.concat(sides)


def _new_payload(packets: pl.DataFrame) -> pl.DataFrame:
    """Payload that TCP had not sent before: what lies beyond the highest sequence number so far of its direction."""
    one = ("flow_id", "sent")
    ahead = (pl.col("sequence") - pl.col("sequence").first()).over(one) % 2**32
    top = pl.when(ahead < 2**31).then(ahead).otherwise(ahead - 2**32) + pl.col("bytes")
    tops = packets.sort("time", maintain_order=True).with_columns(top.alias("top"))
    before = pl.col("top").cum_max().shift(1).over(one)
    new = (pl.col("top") - before).clip(0, pl.col("bytes")).fill_null(pl.col("bytes"))
    payload = pl.when(pl.col("protocol") == _PROTOCOLS[TCP]).then(new).otherwise(pl.col("bytes"))
    return tops.with_columns(payload.alias("payload"))


def _ordered(packets: pl.DataFrame) -> pl.DataFrame:
    return packets.select(*PACKET_SCHEMA).cast(PACKET_SCHEMA).sort("flow_id", "time", maintain_order=True)  # type: ignore[arg-type]
