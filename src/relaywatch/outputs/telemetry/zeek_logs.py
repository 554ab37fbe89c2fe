"""Zeek's conn.log and dns.log as a sensor on the devices' segment would write them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO

from relaywatch.model.schemas import Direction, Observability
from relaywatch.model.tables import Batch

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CONN: Final = (
    "ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "service", "duration",
    "orig_bytes", "resp_bytes", "conn_state", "local_orig", "local_resp", "missed_bytes", "history",
    "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes",
)  # fmt: skip
_CONN_TYPES: Final = (
    "time", "string", "addr", "port", "addr", "port", "enum", "string", "interval", "count", "count",
    "string", "bool", "bool", "count", "string", "count", "count", "count", "count",
)  # fmt: skip
_DNS: Final = ("ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "query", "answers")
_DNS_TYPES: Final = ("time", "string", "addr", "port", "addr", "port", "enum", "string", "vector[string]")
_PROTOCOLS: Final = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp"}
_BEFORE: Final = timedelta(milliseconds=2)
"""How long before its flow a name is answered."""


def write_zeek(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """conn.log, and dns.log where a flow has a name. Flows without addresses are left out."""
    conn, dns = folder / "conn.log", folder / "dns.log"
    named = 0
    with (
        conn.open("w", encoding="utf-8", newline="\n") as flows,
        dns.open("w", encoding="utf-8", newline="\n") as names,
    ):
        _begin(flows, "conn", _CONN, _CONN_TYPES)
        _begin(names, "dns", _DNS, _DNS_TYPES)
        for number, row in enumerate(_flows(batches), 1):
            flows.write("\t".join(_connection(row, f"C{number:017x}")) + "\n")
            if row["remote_hostname"] and row["direction_id"] != Direction.INBOUND:
                names.write("\t".join(_answer(row, f"D{number:017x}")) + "\n")
                named += 1
        for file in (flows, names):
            file.write("#close\t1970-01-01-00-00-00\n")
    if not named:
        dns.unlink()
        return [conn]
    return [conn, dns]


def _begin(file: TextIO, path: str, fields: Sequence[str], types: Sequence[str]) -> None:
    file.write("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n")
    file.write(f"#path\t{path}\n#open\t1970-01-01-00-00-00\n")
    file.write("\t".join(("#fields", *fields)) + "\n" + "\t".join(("#types", *types)) + "\n")


def _flows(batches: Iterable[Batch]) -> Iterator[dict[str, Any]]:
    for part in batches:
        if part.table == "flows":
            for row in part.rows.to_pylist():
                if row["local_ip"] and row["remote_ip"] and row["protocol_num"] in _PROTOCOLS:
                    yield row


def _connection(row: dict[str, Any], uid: str) -> Iterator[str]:
    inbound = row["direction_id"] == Direction.INBOUND
    orig, resp = ("remote", "local") if inbound else ("local", "remote")
    sent, received = ("in", "out") if inbound else ("out", "in")
    duration = None if row["end_time"] is None else _seconds(row["end_time"] - row["start_time"])
    values = (
        _seconds(row["start_time"] - _EPOCH), uid, row[f"{orig}_ip"], row[f"{orig}_port"] or 0, row[f"{resp}_ip"],
        row[f"{resp}_port"] or 0, _PROTOCOLS[row["protocol_num"]], row["app_protocol"], duration, row[f"bytes_{sent}"],
        row[f"bytes_{received}"], _state(row), "F" if inbound else "T", "T" if inbound else "F", 0, _history(row),
        row[f"packets_{sent}"], row[f"wire_bytes_{sent}"], row[f"packets_{received}"], row[f"wire_bytes_{received}"],
    )  # fmt: skip
    return (_field(value) for value in values)


def _state(row: dict[str, Any]) -> str:
    if row["protocol_num"] != 6:
        return "SF" if row["bytes_in"] and row["bytes_out"] else "S0"
    return {True: "SF", False: "S0", None: "OTH"}[row["established"]]


def _history(row: dict[str, Any]) -> str:
    """What was seen of the connection; without its SYN the direction is a guess."""
    if row["protocol_num"] != 6 or row["direction_observability"] != Observability.OBSERVED:
        return "Dd"
    return "S" if row["established"] is False else "ShADadFf"


def _answer(row: dict[str, Any], uid: str) -> Iterator[str]:
    resolver = "2001:db8::53" if ":" in row["local_ip"] else "192.0.2.53"
    time = _seconds(max(row["start_time"] - _BEFORE - _EPOCH, timedelta()))
    values = (time, uid, row["local_ip"], 53_000, resolver, 53, "udp", row["remote_hostname"], row["remote_ip"])
    return (_field(value) for value in values)


def _seconds(span: timedelta) -> str:
    whole, rest = divmod(span // timedelta(microseconds=1), 1_000_000)
    return f"{whole}.{rest:06d}"


def _field(value: object) -> str:
    """A value as Zeek's ASCII writer shows it: unset is -, control characters and backslashes are escaped."""
    if value is None or value == "":
        return "-"
    return "".join(
        c if c.isprintable() and c != "\\" else "".join(f"\\x{b:02x}" for b in c.encode()) for c in str(value)
    )
