"""Global settings say which proxy or always-on VPN the whole device uses."""

from __future__ import annotations

import random
from pathlib import Path

import mutations
import pytest
from android_sections import assert_linear, assert_parser_survives, brief, context, parsed

from relaywatch.sources.proxy_settings import proxy_settings

LISTED = """adb_enabled=1
http_proxy=192.0.2.7:8080
global_http_proxy_host=Proxy.Example
global_http_proxy_port=3128
global_http_proxy_exclusion_list=*.lan
global_proxy_pac_url=https://pac.example/p.pac
always_on_vpn_app=org.proxy
always_on_vpn_lockdown=1
"""
DUMPED = """GLOBAL SETTINGS (user 0)
_id:43 name:low_battery_sound_timeout pkg:android value:0 default:0 defaultSystemSet:true
_id:44 name:http_proxy pkg:com.android.shell value:127.0.0.1:9050 default::0 defaultSystemSet:true
SECURE SETTINGS (user 10)
_id:45 name:always_on_vpn_app pkg:android value:org.proxy default:null
"""
FUZZ_SEEDS = [
    ("settings_global.txt", b"DUMP OF SERVICE settings:\n" + LISTED.encode()),
    ("settings.txt", b"DUMP OF SERVICE settings:\n" + DUMPED.encode()),
]


def test_listed_settings_become_proxies_and_an_always_on_vpn() -> None:
    rows, reading = parsed(proxy_settings, LISTED)
    assert [(kind, package) for kind, package, _, _ in brief(rows)] == [
        ("PROXY_SETTING", None),
        ("PROXY_SETTING", None),
        ("PROXY_SETTING", None),
        ("VPN", "org.proxy"),
    ]
    assert [row["detail"] for row in rows[:2]] == [
        "http_proxy 192.0.2.7:8080",
        "global_http_proxy proxy.example:3128 except *.lan",
    ]
    assert reading.tally.records == 7


def test_dumped_settings_are_of_a_user() -> None:
    rows, _ = parsed(proxy_settings, DUMPED)
    assert rows[0]["detail"] == "http_proxy 127.0.0.1:9050"
    assert (rows[1]["android_package"], rows[1]["android_uid"]) == ("org.proxy", 1_010_098)


@pytest.mark.parametrize("value", ["null", ":0", ""])
def test_no_proxy_is_no_signal(value: str) -> None:
    rows, reading = parsed(proxy_settings, f"http_proxy={value}\nglobal_http_proxy_host=\nhttp_proxy_x=1.2.3.4:5")
    assert not rows
    assert reading.tally.unused == {"no proxy or VPN is set": 2}


def test_a_value_that_was_asked_for_by_itself() -> None:
    rows, _ = parsed(proxy_settings, "10.0.0.1:8888\n", command="settings get global http_proxy")
    assert rows[0]["detail"] == "http_proxy 10.0.0.1:8888"
    none, reading = parsed(proxy_settings, "null\n", command="settings get global http_proxy")
    assert (none, reading.tally.records) == ([], 1)


def test_damage_goes_to_quarantine_and_an_undated_dump_gives_nothing() -> None:
    _, reading = parsed(proxy_settings, "http_proxy=10.0.0.1:99999\nalways_on_vpn_app=../x")
    assert reading.quarantine.total == 2
    rows, _ = parsed(proxy_settings, LISTED, within=context(taken=None))
    assert not rows


def test_hostile_variants_are_survived(tmp_path: Path) -> None:
    rng = random.Random(13)  # noqa: S311 - seeded, so that it repeats
    for name, content in FUZZ_SEEDS:
        assert_parser_survives(proxy_settings, content)
        for _ in range(200):
            mutations.assert_survives(tmp_path, name, mutations.mutate(content, rng))


def test_long_lines_are_read_in_linear_time() -> None:
    assert_linear(
        proxy_settings,
        ["http_proxy=", "_id:1 name:http_proxy pkg:a value:", "global_http_proxy_host=", "always_on_vpn_app="],
    )
