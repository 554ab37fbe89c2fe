"""Which apps a phone has: dumpsys package and `pm list packages -U`, one inventory row for each app of each user.

Format: Settings.dumpPackagesLPr and PackageManagerShellCommand (frameworks/base, services/core, server/pm). The uid
stands as userId= until Android 13 and appId= since; apps that share one are stated as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import LAST_UID, USER_UIDS, SectionFacts, package_name
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.reading import Reading

_PACKAGE: Final = re.compile(r"  Package \[([^\]]*)\] \(\w+\):")
_SHARED: Final = re.compile(r"  SharedUser \[([^\]]*)\] \(\w+\):")
_USER: Final = re.compile(r"    User (\d{1,4}): (.*)")
_FIELD: Final = re.compile(
    r"    (?:  )?(userId|appId|sharedUser|versionCode|versionName|firstInstallTime|lastUpdateTime|installerPackageName|"
    r"installInitiatingPackageName|initiatingPackageName|originatingPackageName|signatures)=(.*)"
)
_SHARED_NAME: Final = re.compile(r"SharedUserSetting\{\w+ ([\w.]{1,255})/\d+\}")
_MEMBER: Final = re.compile(r"      PackageSetting\{\w+ ([\w.]{1,255})/\d+\}")
_GRANTED: Final = re.compile(r"\s+android\.permission\.(\w{1,100}): granted=true")
_DIGEST: Final = re.compile(r"signatures:\[([0-9a-fA-F]{64})[\],]")
_ACTION: Final = re.compile(r"      android\.net\.VpnService:")
_VPN_SERVICE: Final = re.compile(r"        [0-9a-f]+ ([\w.]{1,255})/(\S+)")
_LISTED: Final = re.compile(r"\s*package:(?:\S*=)?([^\s=]+)(.*)")
_LISTED_UIDS: Final = re.compile(r" uid:(\d{1,10}(?:,\d{1,10})*)")
_LISTED_INSTALLER: Final = re.compile(r" installer=(\S+)")
_LISTED_VERSION: Final = re.compile(r" versionCode:(\d{1,18})")
_PERMISSIONS: Final = {
    "INTERNET",
    "CHANGE_NETWORK_STATE",
    "CHANGE_WIFI_STATE",
    "CHANGE_WIFI_MULTICAST_STATE",
    "CONTROL_VPN",
    "CONTROL_ALWAYS_ON_VPN",
    "NETWORK_STACK",
    "FOREGROUND_SERVICE",
    "RECEIVE_BOOT_COMPLETED",
    "REQUEST_IGNORE_BATTERY_OPTIMIZATIONS",
    "WAKE_LOCK",
}
"""Permissions without which an app can hardly relay for long; others are not listed."""
_VALUE_CHARACTERS: Final = 100
MOST_USERS: Final = 100
"""Users of one phone, at the most."""


@dataclass(slots=True)
class _App:
    """One package's block. users: those for which it is installed."""

    line: int
    name: str
    fields: dict[str, str] = field(default_factory=dict)
    users: list[int] = field(default_factory=list)
    users_stated: bool = False
    granted: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Shared:
    """A shared uid's block: its packages hold its permissions together."""

    line: int
    members: list[str] = field(default_factory=list)
    granted: set[str] = field(default_factory=set)


def package_state(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Apps with uid, installer and, in detail, versions, times, granted permissions and VPN services."""
    facts = SectionFacts(section, context, reading)
    apps: dict[str, _App] = {}
    shared: list[_Shared] = []
    services: dict[str, str] = {}
    block: _App | _Shared | None = None
    within_vpn = False
    for line, text in enumerate(section.lines):
        if (listed := _LISTED.match(text)) is not None and "uid:" in text:
            _give_listed(line, listed, facts)
        elif (heading := _PACKAGE.match(text)) is not None:
            block = _App(line, heading[1])
            if heading[1] in apps:
                facts.left(line, "the copy on the system image of an app that was updated")
            elif package_name(heading[1]) is None:
                facts.damaged(line, "package", heading[1])
            else:
                apps[heading[1]] = block
        elif _SHARED.match(text):
            block = _Shared(line)
            shared.append(block)
            facts.left(line, "a shared uid, stated by its packages")
        elif block is not None and text[:4].strip():
            block = None
        elif block is not None:
            _take(block, text)
        elif text.startswith("      ") and text[6:7].strip():
            within_vpn = _ACTION.match(text) is not None
        elif within_vpn and (service := _VPN_SERVICE.match(text)) is not None:
            services[service[1]] = service[2]
    granted = {member: one.granted for one in shared for member in one.members}
    for app in apps.values():
        _give(app, app.granted | granted.get(app.name, set()), services.get(app.name), facts)
    yield from facts.batches()


def _take(block: _App | _Shared, text: str) -> None:
    """One line of a block."""
    if (permission := _GRANTED.match(text)) is not None:
        if permission[1] in _PERMISSIONS or permission[1].startswith("FOREGROUND_SERVICE_"):
            block.granted.add(permission[1])
    elif isinstance(block, _Shared):
        if (member := _MEMBER.match(text)) is not None:
            block.members.append(member[1])
    elif (user := _USER.match(text)) is not None:
        block.users_stated = True
        if "installed=false" not in user[2]:
            block.users.append(int(user[1]))
    elif (found := _FIELD.match(text)) is not None:
        # The first value counts: since Android 12 firstInstallTime stands with each user, too.
        block.fields.setdefault(found[1], found[2].strip())


def _give(app: _App, granted: set[str], service: str | None, facts: SectionFacts) -> None:
    """The rows of one app."""
    stated = app.fields.get("appId") or app.fields.get("userId") or ""
    if not (stated.isascii() and stated.isdigit()) or len(stated) > 5:
        facts.damaged(app.line, "appId", stated or "nothing")
        return
    users = app.users if app.users_stated else [0]
    users = [user for user in dict.fromkeys(users) if user < LAST_UID // USER_UIDS][:MOST_USERS]
    if not users:
        facts.left(app.line, "installed for no user")
    digest = _DIGEST.search(app.fields.get("signatures", ""))
    detail = _detail(app, granted, service)
    for user in users:
        facts.inventory(
            app.line,
            android_package=app.name,
            android_uid=user * USER_UIDS + int(stated),
            user_id=user,
            installer=package_name(app.fields.get("installerPackageName")),
            signing_digest=digest[1].lower() if digest is not None else None,
            detail=detail,
        )


def _detail(app: _App, granted: set[str], service: str | None) -> str | None:
    """Version, local times, sharing, who asked for the install, permissions and a VPN service, as text."""
    parts = []
    version = app.fields.get("versionCode", "").split(" ")[0]
    for name, value in (
        ("versionCode", version),
        ("firstInstallTime", app.fields.get("firstInstallTime", "")),
        ("lastUpdateTime", app.fields.get("lastUpdateTime", "")),
        ("initiating", app.fields.get("installInitiatingPackageName") or app.fields.get("initiatingPackageName") or ""),
        ("originating", app.fields.get("originatingPackageName", "")),
    ):
        if value and value != "null":
            parts.append(f"{name} {value[:_VALUE_CHARACTERS]}")
    shared = _SHARED_NAME.match(app.fields.get("sharedUser", ""))
    if shared is not None:
        parts.append(f"shared uid {shared[1]}")
    if granted:
        parts.append(f"granted {' '.join(sorted(granted))}")
    if service is not None:
        parts.append(f"VPN service {service[:_VALUE_CHARACTERS]}")
    return "; ".join(parts) or None


def _give_listed(line: int, found: re.Match[str], facts: SectionFacts) -> None:
    """package:/data/app/…/base.apk=com.example versionCode:3 installer=com.android.vending uid:10050,1010050."""
    package, uids = package_name(found[1]), _LISTED_UIDS.search(found[2])
    if package is None or uids is None:
        facts.damaged(line, "package", found[0])
        return
    numbers = [int(uid) for uid in uids[1].split(",")]
    if len(numbers) > MOST_USERS or any(uid > LAST_UID for uid in numbers):
        facts.damaged(line, "uid", uids[1])
        return
    installer, version = _LISTED_INSTALLER.search(found[2]), _LISTED_VERSION.search(found[2])
    for uid in dict.fromkeys(numbers):
        facts.inventory(
            line,
            android_package=package,
            android_uid=uid,
            user_id=uid // USER_UIDS,
            installer=package_name(installer[1]) if installer is not None else None,
            detail=f"versionCode {version[1]}" if version is not None else None,
        )
