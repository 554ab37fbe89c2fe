"""Sections of context reach the tables through every wrapping of a dump, and one fact is told once."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mutations
import pytest
import test_battery_history
import test_event_log
import test_managed_users
import test_package_state
import test_proxy_settings
import test_usage_stats
import test_vpn_state
from unit_reads import shared

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch

PROPERTIES = "[ro.serialno]: [FA69P]\n[persist.sys.timezone]: [Europe/Stockholm]\n"
SERVICES = {
    "usagestats": test_usage_stats.PRETTY,
    "batterystats": test_battery_history.PRETTY,
    "vpn_management": test_vpn_state.MANAGEMENT,
    "connectivity": test_vpn_state.NETWORKS,
    "appops": test_vpn_state.OPS,
    "settings": test_proxy_settings.DUMPED,
    "package": test_package_state.DUMPED,
    "user": test_managed_users.USERS,
    "device_policy": test_managed_users.POLICY,
    "deviceidle": test_managed_users.IDLE,
}
DUMPSYS = "== dumpstate: 2026-10-01 10:00:00\n" + "".join(
    f"{'-' * 79}\nDUMP OF SERVICE {name}:\n{text}" for name, text in SERVICES.items()
)
EVENTS = "------ EVENT LOG (logcat -b events) ------\n" + test_event_log.LOG


def counted(rows: list[Batch]) -> Counter[str]:
    """Rows by table, signals by kind."""
    found: Counter[str] = Counter()
    for part in rows:
        if part.table == "signals":
            found.update(SignalKind(kind).name for kind in part.rows["kind"].to_pylist())
        else:
            found[part.table] += part.rows.num_rows
    return found


@pytest.fixture
def wrapped(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the same dump as a folder of adb output, one text or a bug report."""

    def write(how: str) -> Path:
        if how == "folder":
            (tmp_path / "getprop.txt").write_text(PROPERTIES)
            (tmp_path / "dumpsys.txt").write_text(DUMPSYS)
            (tmp_path / "events.txt").write_text(EVENTS)
            return tmp_path
        whole = DUMPSYS + EVENTS + "------ SYSTEM PROPERTIES (getprop) ------\n" + PROPERTIES
        if how == "text":
            (tmp_path / "dump.txt").write_text(whole)
            return tmp_path / "dump.txt"
        with zipfile.ZipFile(tmp_path / "bugreport.zip", "w") as archive:
            archive.writestr("bugreport-phone.txt", whole)
        return tmp_path / "bugreport.zip"

    return write


@pytest.mark.parametrize("how", ["folder", "text", "zip"])
def test_every_section_gives_its_facts(wrapped: Callable[[str], Path], how: str) -> None:
    rows, quarantine, tally, unread = mutations.read_path(wrapped(how))
    mutations.assert_accounted(quarantine, tally)
    assert (quarantine.total, unread) == (0, [])
    assert {uid for part in rows for uid in part.rows["device_uid"].to_pylist()} == {"FA69P"}
    found = counted(rows)
    assert found["VPN"] == 9
    assert found["PROXY_SETTING"] == 3
    assert found["PROCESS_START"] == 1
    assert found["USER_INTERACTION"] == 1
    assert found["CAPTURE"] == 4
    assert found["inventory"] == 11


CHECKIN = """------ CHECKIN USAGESTATS (dumpsys -T 30000 usagestats -c) ------
user=0
  Last 24 hour events (beginTime=1790752800000 endTime=1790841600000)
    time=1790840460250 type=ACTIVITY_RESUMED package=org.proxy class=org.proxy.Main instanceId=1
    time=1790840520250 type=ACTIVITY_PAUSED package=org.proxy class=org.proxy.Main instanceId=1
"""


def test_the_checkin_form_beside_the_other_tells_nothing_new(tmp_path: Path) -> None:
    text = f"== dumpstate: 2026-10-01 10:00:00\n{PROPERTIES}DUMP OF SERVICE usagestats:\n{test_usage_stats.PRETTY}"
    (tmp_path / "one.txt").write_text(text)
    (tmp_path / "both.txt").write_text(text + CHECKIN)
    one, _, _, _ = mutations.read_path(tmp_path / "one.txt")
    both, _, tally, _ = mutations.read_path(tmp_path / "both.txt")
    assert counted(both)["FOREGROUND_UI"] == counted(one)["FOREGROUND_UI"]
    assert tally.unused["told elsewhere in the same dump"] >= 1


def test_a_real_bug_report_is_read_whole() -> None:
    rows, quarantine, tally, unread = mutations.read_path(shared("samples", "android_bugreport"))
    mutations.assert_accounted(quarantine, tally)
    assert (quarantine.total, unread) == (0, [])
    found = counted(rows)
    assert found["inventory"] >= 280
    assert found["FOREGROUND_UI"] >= 9
    assert found["SCREEN_ON"] >= 4
    assert found["VPN"] == 0
