"""PCAPdroid's connection list (CSV as of 1.7.4, capturing as root). Nothing is quoted: the format has no way to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO

from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.device_files import device_file

HEADER: Final = (
    "IPProto,SrcIP,SrcPort,DstIp,DstPort,UID,App,PackageName,Proto,Status,Info,"
    "BytesSent,BytesRcvd,PktsSent,PktsRcvd,FirstSeen,LastSeen"
)
SEGMENT_BYTES: Final = 1_400
OPEN_FILES: Final = 128
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OVERHEAD: Final = {6: 40, 17: 28}
"""IPv4 and TCP or UDP headers without options; 20 more with IPv6."""
_LAYER7: Final = {6: "TCP", 17: "UDP"}


def write_pcapdroid_csv(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """A `<device>.csv` per device, with the connections that its apps dialled and accepted.

    Src is the device's side of both, as PCAPdroid writes them when it captures as root; without root it would not see
    accepted ones. Flows without addresses are left out.
    """
    labels: dict[tuple[str, str | None, int | None], str] = {}
    paths: list[Path] = []
    for part in batches:
        if part.table == "inventory":
            for row in part.rows.select(["device_uid", "android_package", "android_uid", "app_label"]).to_pylist():
                if row["app_label"]:
                    labels[row["device_uid"], row["android_package"], row["android_uid"]] = row["app_label"]
        elif part.table == "flows":
            rows = sorted(_addressed(part), key=lambda row: str(row["device_uid"]))
            for device, flows in itertools.groupby(rows, key=lambda row: str(row["device_uid"])):
                path = device_file(folder, device, ".csv")
                with ExitStack() as stack:
                    file = stack.enter_context(_opened(path, paths))
                    file.writelines(_line(row, labels) + "\n" for row in flows)
    return paths


def _opened(path: Path, known: list[Path]) -> TextIO:
    """The device's file: begun with the header when it is new, else continued."""
    if path in known:
        return path.open("a", encoding="utf-8", newline="\n")
    known.append(path)
    file = path.open("w", encoding="utf-8", newline="\n")
    file.write(HEADER + "\n")
    return file


def _addressed(part: Batch) -> Iterator[dict[str, Any]]:
    for row in part.rows.to_pylist():
        if row["local_ip"] and row["remote_ip"]:
            yield row


def _line(row: dict[str, Any], labels: dict[tuple[str, str | None, int | None], str]) -> str:
    package, uid = row["android_package"], row["android_uid"]
    label = labels.get((row["device_uid"], package, uid)) or package or "Unknown"
    sent, packets_sent = _wire(row, "out")
    received, packets_received = _wire(row, "in")
    layer7 = row["app_protocol"] or _LAYER7.get(row["protocol_num"], "Unknown")
    fields = (
        row["protocol_num"], row["local_ip"], row["local_port"] or 0, row["remote_ip"], row["remote_port"] or 0,
        -1 if uid is None else uid, label, package or "", layer7,
        "Closed", row["remote_hostname"] or "", sent, received, packets_sent, packets_received,
        _stamp(row["start_time"]), _stamp(row["end_time"] or row["start_time"]),
    )  # fmt: skip
    return ",".join(" ".join(str(field).splitlines()) for field in fields)


def _wire(row: dict[str, Any], way: str) -> tuple[int, int]:
    """IP bytes and packets in one direction; estimated from the payload where the source had none."""
    payload, wire, packets = row[f"bytes_{way}"], row[f"wire_bytes_{way}"], row[f"packets_{way}"]
    overhead = _OVERHEAD.get(row["protocol_num"], 28) + (20 if ":" in row["remote_ip"] else 0)
    if packets is None:
        packets = -(-(payload or wire or 0) // SEGMENT_BYTES)
    return (wire if wire is not None else (payload or 0) + packets * overhead), packets


def _stamp(moment: datetime) -> str:
    """yyyy-MM-dd'T'HH:mm:ss.SSSXXX, cut to the millisecond as PCAPdroid does."""
    cut = _EPOCH + timedelta(milliseconds=(moment - _EPOCH) // timedelta(milliseconds=1))
    return cut.isoformat(timespec="milliseconds").replace("+00:00", "Z")
