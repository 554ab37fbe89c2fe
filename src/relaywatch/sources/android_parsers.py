"""Which parser reads which section of an Android dump. A new kind of section is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from relaywatch.sources.activity_state import activity_state, network_policy
from relaywatch.sources.android_section import SectionParser
from relaywatch.sources.battery_history import battery_history
from relaywatch.sources.event_log import event_log
from relaywatch.sources.managed_users import device_idle, device_policy, users
from relaywatch.sources.netstats_text import netstats
from relaywatch.sources.package_state import package_state
from relaywatch.sources.proxy_settings import proxy_settings
from relaywatch.sources.socket_tables import parse_sockets
from relaywatch.sources.usage_stats import usage_stats
from relaywatch.sources.vpn_state import app_ops, connectivity, system_ui, vpn_management

PARSERS: Final[Mapping[str, SectionParser]] = {
    "netstats": netstats,
    "netstat": parse_sockets,
    "ss": parse_sockets,
    "tcp": parse_sockets,
    "tcp6": parse_sockets,
    "udp": parse_sockets,
    "udp6": parse_sockets,
    "raw": parse_sockets,
    "raw6": parse_sockets,
    "usagestats": usage_stats,
    "deviceidle": device_idle,
    "device_policy": device_policy,
    "user": users,
    "pm": package_state,
    "package": package_state,
    "settings": proxy_settings,
    "statusbar": system_ui,
    "appops": app_ops,
    "connectivity": connectivity,
    "vpn_management": vpn_management,
    "netpolicy": network_policy,
    "activity_task": activity_state,
    "activity": activity_state,
    "batterystats": battery_history,
    "logcat events": event_log,
    "logcat": event_log,
}
"""By the section's name: a dumpsys service, a command's word, or a file of /proc/net."""
