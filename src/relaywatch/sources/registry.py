"""Every reader there is, in the order in which they are asked. A new format is one file and one line here."""

from __future__ import annotations

from typing import Final

from relaywatch.sources.address_leases import DnsmasqLeases, KeaLeases, WindowsDhcp
from relaywatch.sources.address_sessions import AssignmentsCsv, RadiusDetail
from relaywatch.sources.android_dump import AndroidFolder, AndroidText, AndroidZip
from relaywatch.sources.androidqf import AndroidQfPackages
from relaywatch.sources.canonical import CanonicalParquet
from relaywatch.sources.canonical_arrow import CanonicalArrow
from relaywatch.sources.canonical_ndjson import CanonicalNdjson
from relaywatch.sources.conntrack import Conntrack
from relaywatch.sources.defender import Defender, DefenderCsv
from relaywatch.sources.device_owner_logs import OwnDroidLogs, TestDpcLogs
from relaywatch.sources.dhcpd_leases import DhcpdLeases
from relaywatch.sources.ecs_events import EcsEvents
from relaywatch.sources.intrusion_logs import IntrusionLogs
from relaywatch.sources.intune import Intune
from relaywatch.sources.inventory_csv import InventoryCsv
from relaywatch.sources.lab import LabFleet, LabTrace
from relaywatch.sources.management_api import ManagementUsageLogs
from relaywatch.sources.management_inventory import ManagementInventory
from relaywatch.sources.mvt_output import MvtOutput
from relaywatch.sources.mvt_timeline import MvtTimeline
from relaywatch.sources.netflow_export import NetflowExport
from relaywatch.sources.netflow_json import NetflowJson
from relaywatch.sources.netstats_binary import NetstatsBinary
from relaywatch.sources.netstats_csv import NetstatsCsv
from relaywatch.sources.nfdump_json import NfdumpJson
from relaywatch.sources.ocsf_events import OcsfNdjson, OcsfParquet
from relaywatch.sources.pcap import Pcap
from relaywatch.sources.pcapdroid_csv import PcapdroidCsv
from relaywatch.sources.perfetto import Perfetto
from relaywatch.sources.reading import FileReader, FolderReader
from relaywatch.sources.suricata_eve import SuricataEve
from relaywatch.sources.threat_crowdstrike import FalconMobile
from relaywatch.sources.threat_lookout import Lookout
from relaywatch.sources.threat_products import HarmonyMobile, Pradeo, Zimperium
from relaywatch.sources.vpc_flow_logs import VpcFlowLogs, VpcFlowLogsJson
from relaywatch.sources.zeek import ZeekConn, ZeekFolder, ZeekNames
from relaywatch.sources.zeek_dhcp import ZeekDhcp
from relaywatch.sources.zeek_http import ZeekHttp
from relaywatch.sources.zeek_tunnel import ZeekSocks, ZeekTunnel

FOLDER_READERS: Final[tuple[FolderReader, ...]] = (LabTrace(), LabFleet(), ZeekFolder(), MvtOutput(), AndroidFolder())
"""Formats of several files that belong together; asked first, each claims its files."""

FILE_READERS: Final[tuple[FileReader, ...]] = (
    Pcap(),
    Perfetto(),
    AndroidZip(),
    OcsfParquet(),
    CanonicalParquet(),
    CanonicalArrow(),
    NetflowExport(),
    NetstatsBinary(),
    CanonicalNdjson(),
    SuricataEve(),
    OcsfNdjson(),
    EcsEvents(),
    NfdumpJson(),
    NetflowJson(),
    VpcFlowLogsJson(),
    VpcFlowLogs(),
    Conntrack(),
    IntrusionLogs(),
    OwnDroidLogs(),
    TestDpcLogs(),
    ManagementUsageLogs(),
    ManagementInventory(),
    NetstatsCsv(),
    PcapdroidCsv(),
    ZeekConn(),
    ZeekSocks(),
    ZeekTunnel(),
    ZeekHttp(),
    ZeekDhcp(),
    ZeekNames(),
    Defender(),
    DefenderCsv(),
    FalconMobile(),
    Lookout(),
    Zimperium(),
    Pradeo(),
    HarmonyMobile(),
    Intune(),
    KeaLeases(),
    DhcpdLeases(),
    DnsmasqLeases(),
    WindowsDhcp(),
    RadiusDetail(),
    MvtTimeline(),
    AssignmentsCsv(),
    AndroidQfPackages(),
    AndroidText(),
    InventoryCsv(),
)
"""Formats of one file. Binary magic first, then the text formats, each with a header or key set of its own."""
