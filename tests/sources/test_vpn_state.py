"""Which app runs a VPN, from four services; placeholders are no VPN."""

from __future__ import annotations

import random
from pathlib import Path

import mutations
from android_sections import assert_linear, assert_parser_survives, brief, context, parsed

from relaywatch.sources.vpn_state import app_ops, connectivity, system_ui, vpn_management

MANAGEMENT = """VPNs:
  0: org.proxy
     Active package name: org.proxy
     Active vpn type: 1
     NetworkCapabilities: [ Transports: VPN Capabilities: NOT_METERED ]
     mEventChanges (most recent first):
       2026-09-08T03:29:30 - [LockdownAlwaysOn] Mode changed: lockdown=true alwaysOn=true calling from 1000
  10: [Legacy VPN]
     Active package name: [Legacy VPN]
     Active vpn type: -1
  11: null
     Active package name: null
     Active vpn type: 1
  12: [Legacy VPN]
     Active package name: [Legacy VPN]
     Active vpn type: 3
"""
NETWORKS = (
    "Current Networks:\n"
    "  NetworkAgentInfo{network{445}  handle{1} ni{VPN CONNECTED extra: VPN:org.proxy} lp{{InterfaceName: tun0 "
    "LinkAddresses: [ 172.19.0.1/30 ]}} nc{[ Transports: WIFI|VPN Capabilities: INTERNET VpnTransportInfo{type=1, "
    "sessionId=sing-box, bypassable=false} Uids: <{0-10098}> OwnerUid: 10098 AdminUids: [10098]]}}\n"
    "  NetworkAgentInfo [VPN () - 101] ni{[type: VPN[], state: CONNECTED/CONNECTED, reason: (unspecified)]} "
    "lp{{InterfaceName: tun1}} nc{[ Transports: CELLULAR|VPN Capabilities: INTERNET EstablishingAppUid: 10050]}\n"
    "  NetworkAgentInfo{network{100} ni{MOBILE[LTE] CONNECTED} lp{{InterfaceName: rmnet0 HttpProxy: [Cmwap] 8080 }} "
    "nc{[ Transports: CELLULAR Capabilities: INTERNET&NOT_VPN]}}\n"
    "  NetworkAgentInfo{network{101} ni{WIFI CONNECTED} lp{{InterfaceName: wlan0 HttpProxy: [10.0.0.1] 3128 }} "
    "nc{[ Transports: WIFI Capabilities: INTERNET&NOT_VPN]}}\n"
    "  NetworkAgentInfo{network{99} ni{VPN DISCONNECTED extra: VPN:com.news} nc{[ Transports: WIFI|VPN ]}}\n"
    "  uid/pid:1000/929 NetworkRequest [ REQUEST id=1, [ Capabilities: INTERNET&NOT_VPN] ]\n"
)
OPS = """  Uid u0a98:
    state=fg
    Package org.proxy:
      COARSE_LOCATION (allow):
        null=[
          Access: [fg-s] 2026-10-01 09:00:00.000 (-1h)
        ]
      ACTIVATE_VPN (allow):
        null=[
          Access: [fg-s] 2026-10-01 09:44:44.374 (-15m15s) duration=+1m10s
          Access: [top-s] 2026-10-01 09:50:00.000 (-10m)
          Reject: [bg-s] 2026-10-01 09:51:00.000 (-9m)
        ]
  Uid u10a50:
    Package com.news:
      ACTIVATE_VPN: mode=0; time=+1h0m0s0ms ago
"""
FUZZ_SEEDS = [
    ("vpn.txt", b"DUMP OF SERVICE vpn_management:\n" + MANAGEMENT.encode()),
    ("connectivity.txt", b"DUMP OF SERVICE connectivity:\n" + NETWORKS.encode()),
    ("appops.txt", b"DUMP OF SERVICE appops:\n" + OPS.encode()),
    ("statusbar.txt", b"DUMP OF SERVICE statusbar:\n  mCurrentVpns={0=org.proxy, 10=com.news}\n  mCurrentVpns={}\n"),
]


def test_the_vpn_of_each_user_and_no_placeholder() -> None:
    rows, reading = parsed(vpn_management, MANAGEMENT)
    assert [(row["android_package"], row["android_uid"], row["detail"]) for row in rows] == [
        ("org.proxy", 10_098, "app, type 1"),
        (None, None, "Android itself, type 3"),
    ]
    assert reading.tally.unused["a placeholder: no VPN runs"] == 2


def test_vpn_networks_of_new_and_old_phones_and_networks_proxies() -> None:
    rows, reading = parsed(connectivity, NETWORKS)
    assert [(kind, package) for kind, package, _, _ in brief(rows)] == [
        ("VPN", "org.proxy"),
        ("VPN", "com.news"),
        ("PROXY_SETTING", None),
        ("PROXY_SETTING", None),
    ]
    assert [row["android_uid"] for row in rows[:2]] == [10_098, 10_050]
    assert rows[0]["detail"] == "interface tun0, session sing-box"
    assert rows[2]["detail"] == "the carrier's proxy on a cellular network, benign: cmwap:8080"
    assert rows[3]["detail"] == "proxy of a network: 10.0.0.1:3128"
    assert reading.tally.records == 5


def test_uses_of_the_vpn_operation_are_dated() -> None:
    rows, reading = parsed(app_ops, OPS)
    assert brief(rows) == [
        ("VPN", "org.proxy", "07:44:44", "07:45:54"),
        ("VPN", "org.proxy", "07:50:00", None),
        ("VPN", "com.news", "07:00:00", None),
    ]
    assert rows[2]["android_uid"] == 1_010_050
    assert reading.tally.unused["refused to set up a VPN"] == 1


def test_system_uis_list() -> None:
    rows, reading = parsed(system_ui, "  mCurrentVpns={0=org.proxy, 10=com.news}\n  mCurrentVpns={}\n")
    assert [(row["android_package"], row["android_uid"]) for row in rows] == [
        ("org.proxy", 10_098),
        ("com.news", 1_010_050),
    ]
    assert reading.tally.records == 2


def test_damage_goes_to_quarantine_and_an_undated_dump_keeps_dated_uses() -> None:
    _, reading = parsed(vpn_management, MANAGEMENT.replace("org.proxy", "../x"))
    assert reading.quarantine.total == 1
    _, reading = parsed(app_ops, OPS.replace("2026-10-01 09:44", "2026-13-01 09:44"))
    assert reading.quarantine.total == 1
    rows, _ = parsed(app_ops, OPS, within=context(taken=None))
    assert len(rows) == 2


def test_hostile_variants_are_survived(tmp_path: Path) -> None:
    rng = random.Random(15)  # noqa: S311 - seeded, so that it repeats
    parsers = (vpn_management, connectivity, app_ops, system_ui)
    for (name, content), parser in zip(FUZZ_SEEDS, parsers, strict=True):
        assert_parser_survives(parser, content)
        for _ in range(200):
            mutations.assert_survives(tmp_path, name, mutations.mutate(content, rng))


def test_long_lines_are_read_in_linear_time() -> None:
    assert_linear(vpn_management, ["VPNs:\n  0: ", "VPNs:\n  0: a\n   Active vpn type: "])
    assert_linear(connectivity, ["  NetworkAgentInfo{ Transports: ", "  NetworkAgentInfo{ HttpProxy: ["])
    assert_linear(
        app_ops,
        [
            "  Uid ",
            "    Package a.b:\n      ACTIVATE_VPN: ",
            "    Package a.b:\n      ACTIVATE_VPN (\n   Access: [x] 2026-10-01 09:00:00 (",
        ],
    )
    assert_linear(system_ui, ["  mCurrentVpns={"])
