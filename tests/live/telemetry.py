"""Small telemetry for the engine's tests: flows as canonical batches and as lines of formats that are followed."""

from __future__ import annotations

import json

from relaywatch.live.taking import Taken
from relaywatch.model.tables import Batch, batch

FIELDS = "ts,uid,id.orig_h,id.orig_p,id.resp_h,id.resp_p,proto,conn_state,orig_bytes,resp_bytes"
ZEEK_HEAD = (
    "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
    "#fields\t" + FIELDS.replace(",", "\t") + "\n"
)  # fmt: skip
PCAPDROID_HEAD = (
    "IPProto,SrcIP,SrcPort,DstIp,DstPort,UID,App,PackageName,Proto,Status,Info,BytesSent,BytesRcvd,PktsSent,PktsRcvd,"
    "FirstSeen,LastSeen\n"
)


def flows(first: int, count: int, *, source: str = "made", devices: int = 3) -> Batch:
    """Flows of some devices, whose records are numbered on."""
    numbers = list(range(first, first + count))
    columns = {
        "device_uid": [f"phone-{number % devices}" for number in numbers], "flow_id": numbers, "position": numbers,
        "start_time": [1_772_528_400_000_000 + number for number in numbers], "protocol_num": 6, "direction_id": 2,
        "direction_observability": 1, "bytes_observability": 1, "source": source, "clock": "device",
    }  # fmt: skip
    return batch("flows", columns, length=count)


def piece(first: int, count: int, **more) -> Taken:
    """A piece of an input whose position is the number of the next record."""
    return Taken([flows(first, count, **more)], {"made:x": {"next": first + count}})


def zeek_line(number: int) -> str:
    """One connection of conn.log."""
    return f"{1772528400 + number}.5\tC{number}\t10.0.0.{number % 3 + 1}\t40000\t198.51.100.7\t443\ttcp\tSF\t10\t20\n"


def canonical_line(number: int) -> str:
    """One flow as a canonical JSON line."""
    record = {
        "table": "flows", "device_uid": f"phone-{number % 3}", "flow_id": number, "position": number,
        "start_time": 1_772_528_400_000_000 + number, "protocol_num": 6, "direction_id": 2,
        "direction_observability": 1, "bytes_observability": 1, "source": "made", "clock": "device",
        "remote_hostname": "exämple.org",
    }  # fmt: skip
    return json.dumps(record, ensure_ascii=False) + "\n"


def suricata_line(number: int) -> str:
    """One flow event of an EVE log."""
    flow = {"pkts_toserver": 5, "pkts_toclient": 5, "bytes_toserver": 500, "bytes_toclient": 900, "state": "closed",
            "start": "2026-03-03T09:00:00.000000+0000", "end": "2026-03-03T09:00:09.000000+0000"}  # fmt: skip
    record = {
        "timestamp": "2026-03-03T09:00:10.000000+0000", "flow_id": number, "event_type": "flow", "proto": "TCP",
        "src_ip": "10.0.0.1", "src_port": 40000, "dest_ip": "198.51.100.7", "dest_port": 443, "flow": flow,
    }  # fmt: skip
    return json.dumps(record) + "\n"


def pcapdroid_line(number: int) -> str:
    """One connection of PCAPdroid's list."""
    return (
        f"6,10.215.173.1,{40000 + number},198.51.100.7,443,10150,Example,com.example.app,TLS,Closed,example.org,"
        "10,20,3,4,1772528400000,1772528401000\n"
    )
