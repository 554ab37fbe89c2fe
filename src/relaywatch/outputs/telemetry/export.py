"""Writes canonical batches in a telemetry format that relaywatch, and others, can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from relaywatch.model.errors import ExportError
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.dhcp_leases import write_dhcp_leases
from relaywatch.outputs.telemetry.flow_messages import write_ipfix, write_netflow_v9
from relaywatch.outputs.telemetry.flow_records import write_nfdump, write_vpc_flow_logs
from relaywatch.outputs.telemetry.intrusion_log_files import write_intrusion_logs
from relaywatch.outputs.telemetry.inventory_csv import write_inventory_csv
from relaywatch.outputs.telemetry.lake_events import write_ecs, write_ocsf_activity
from relaywatch.outputs.telemetry.management_logs import write_management_api
from relaywatch.outputs.telemetry.netstats_files import write_netstats_binary, write_netstats_text
from relaywatch.outputs.telemetry.pcapdroid_list import write_pcapdroid_csv
from relaywatch.outputs.telemetry.pcapdroid_pcap import write_pcapdroid_pcap
from relaywatch.outputs.telemetry.perfetto_trace import write_perfetto
from relaywatch.outputs.telemetry.plain_tables import write_ndjson, write_parquet
from relaywatch.outputs.telemetry.socket_polls import write_socket_polls
from relaywatch.outputs.telemetry.suricata_eve import write_suricata
from relaywatch.outputs.telemetry.usage_events import write_usagestats
from relaywatch.outputs.telemetry.zeek_logs import write_zeek


class ExportFormat(StrEnum):
    """A format, with what it carries."""

    PARQUET = "parquet"
    """The canonical tables, everything."""
    NDJSON = "ndjson"
    """The canonical tables as JSON lines, everything."""
    PCAPDROID_CSV = "pcapdroid-csv"
    """PCAPdroid's connection list, captured as root: app and IP bytes; not who opened a connection, no volumes."""
    PCAPDROID_PCAP = "pcapdroid-pcap"
    """PCAPdroid's capture with app trailer: synthetic packets that add up to each flow's volumes."""
    PERFETTO = "perfetto"
    """Perfetto's network packets by uid: synthetic packets that add up to each flow's volumes; no addresses."""
    ZEEK = "zeek"
    """conn.log and dns.log as a sensor beside the devices would write them: no apps, no inferred names of inbound."""
    INVENTORY_CSV = "inventory-csv"
    """A plain list of devices, apps and names: the inventory only, no flows, volumes or signals."""
    DHCP_LEASES = "dhcp-leases"
    """Kea's lease files: who had which address when, of devices with a MAC; nothing else."""
    INTRUSION_LOGS = "intrusion-logs"
    """Android's intrusion logs: dialled TCP connects and name look-ups with the app; no bytes, no accepted session."""
    MANAGEMENT_API = "management-api"
    """The Android Management API's usage logs: connects, name look-ups, process starts, keyguard; with the app."""
    SOCKET_POLLS = "socket-polls"
    """A phone's socket tables, one every five seconds: who owns and who listens; what falls between is not seen."""
    NETSTATS_BINARY = "netstats-binary"
    """The files that Android keeps of each uid's bytes in two hours: how much, in front or not; no connections."""
    NETSTATS_TEXT = "netstats-text"
    """The same as dumpsys netstats prints it."""
    USAGESTATS = "usagestats"
    """What dumpsys usagestats lists of the last 24 hours: what was in front, services, screen, keyguard, touches."""
    SURICATA = "suricata"
    """Suricata's EVE log as a sensor beside the devices would write it: frame bytes, no apps."""
    NFDUMP = "nfdump"
    """nfdump's JSON: NetFlow of a router beside the devices, one direction a record; no apps, no names."""
    NETFLOW_V9 = "netflow-v9"
    """NetFlow v9 messages of a router beside the devices, one direction a record; no apps, no names."""
    IPFIX = "ipfix"
    """IPFIX messages of a router beside the devices, one direction a record; no apps, no names."""
    VPC_FLOW_LOGS = "vpc-flow-logs"
    """AWS VPC flow logs, version 2: one direction a record, times in seconds."""
    OCSF = "ocsf"
    """OCSF Network Activity events, with the app in unmapped.android as far as it is known."""
    ECS = "ecs"
    """Network documents of the Elastic Common Schema, with the package as far as it is known."""


_WRITERS: Final[dict[ExportFormat, Callable[[Iterable[Batch], Path], list[Path]]]] = {
    ExportFormat.PARQUET: write_parquet,
    ExportFormat.NDJSON: write_ndjson,
    ExportFormat.PCAPDROID_CSV: write_pcapdroid_csv,
    ExportFormat.PCAPDROID_PCAP: write_pcapdroid_pcap,
    ExportFormat.PERFETTO: write_perfetto,
    ExportFormat.ZEEK: write_zeek,
    ExportFormat.INVENTORY_CSV: write_inventory_csv,
    ExportFormat.DHCP_LEASES: write_dhcp_leases,
    ExportFormat.MANAGEMENT_API: write_management_api,
    ExportFormat.SOCKET_POLLS: write_socket_polls,
    ExportFormat.NETSTATS_BINARY: write_netstats_binary,
    ExportFormat.NETSTATS_TEXT: write_netstats_text,
    ExportFormat.USAGESTATS: write_usagestats,
    ExportFormat.SURICATA: write_suricata,
    ExportFormat.NFDUMP: write_nfdump,
    ExportFormat.NETFLOW_V9: write_netflow_v9,
    ExportFormat.IPFIX: write_ipfix,
    ExportFormat.VPC_FLOW_LOGS: write_vpc_flow_logs,
    ExportFormat.OCSF: write_ocsf_activity,
    ExportFormat.ECS: write_ecs,
    ExportFormat.INTRUSION_LOGS: write_intrusion_logs,
}


_NEEDS: Final = {
    ExportFormat.PCAPDROID_CSV: "both addresses",
    ExportFormat.PCAPDROID_PCAP: "TCP or UDP with both addresses and both ports",
    ExportFormat.NETSTATS_BINARY: "the app's uid",
    ExportFormat.NETSTATS_TEXT: "the app's uid",
    ExportFormat.USAGESTATS: "signals beside it of what was in front, services, screen, keyguard or touches",
    ExportFormat.PERFETTO: "TCP or UDP with both ports and the app's uid",
}
"""What a flow needs to be carried by the formats that make a file only where a device has such a flow."""


def export(batches: Iterable[Batch], fmt: ExportFormat, folder: Path) -> list[Path]:
    """Write the batches into `folder` (made if missing; files of the same names are replaced); returns the files.

    What the format cannot carry is left out. Raises ExportError where that is every flow there is, and OSError where
    the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flows = _Counted(batches)
    written = _WRITERS[fmt](flows, folder)
    if flows.count and not written and fmt in _NEEDS:
        raise ExportError(
            f"nothing to write as {fmt}: none of the {flows.count} flows has what the format needs ({_NEEDS[fmt]}). "
            "Export telemetry that has them, or use --to ndjson or parquet, which carry everything."
        )
    return written


class _Counted:
    """The batches as a stream, with how many flows went by."""

    __slots__ = ("_batches", "count")

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        self.count = 0

    def __iter__(self) -> Iterator[Batch]:
        for part in self._batches:
            if part.table == "flows":
                self.count += part.rows.num_rows
            yield part
