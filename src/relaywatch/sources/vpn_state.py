"""Which apps run a VPN: dumpsys vpn_management, connectivity and appops, SystemUI's list, and always-on by policy.

Formats: VpnManagerService, ConnectivityService (NetworkAgentInfo), AppOpsService and SecurityControllerImpl
(frameworks/base and packages/modules/Connectivity). A placeholder without a package or type is no VPN.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import (
    LAST_UID,
    USER_UIDS,
    SectionFacts,
    local_us,
    package_name,
    span_us,
    uid_number,
)
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.proxy_settings import network_proxy
from relaywatch.sources.reading import Reading

_USER: Final = re.compile(r"\s{1,4}(\d{1,4}): (\S.*)")
_ACTIVE: Final = re.compile(r"\s+Active (package name|vpn type): (.*)")
_DATED: Final = re.compile(r"\s+\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* - ")
_CURRENT: Final = re.compile(r"\s*mCurrentVpns[=:]\s*\{(.{0,4000})\}")
_CURRENT_ONE: Final = re.compile(r"(\d{1,4})=(?:VpnConfig\S*|\[?([A-Za-z0-9_.]+)\]?)")
_NETWORK: Final = re.compile(r"\s*NetworkAgentInfo\s*[\[{]")
_EXTRA: Final = re.compile(r"extra: VPN:([A-Za-z0-9_.]+)")
_OWNER: Final = re.compile(r"\b(?:OwnerUid|EstablishingAppUid|EstablishingVpnAppUid): (\d{1,10})")
_INTERFACE: Final = re.compile(r"InterfaceName: (\w{1,16})")
_SESSION: Final = re.compile(r"sessionId=([^,}]{1,100})")
_OP_UID: Final = re.compile(r"\s*Uid (\S+):\s*\Z")
_OP_PACKAGE: Final = re.compile(r"\s*Package (\S+):\s*\Z")
_OP: Final = re.compile(r"\s+([A-Z][A-Z_0-9]+)(?: \(|:)(.*)")
_VPN_OPS: Final = {"ACTIVATE_VPN", "ESTABLISH_VPN_SERVICE", "ESTABLISH_VPN_MANAGER"}
_ACCESS: Final = re.compile(
    r"\s+(Access|Reject): \[\S+\] (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) \([^)]*\)(?: duration=(\S+))?"
)
_OLD_USE: Final = re.compile(r"\btime=(\+\S{1,40}) ago")
_BUILT_IN: Final = "[Legacy VPN]"
PLACEHOLDER: Final = "a placeholder: no VPN runs"
ACCESS_STAMP_S: Final = 0.001


@dataclass(slots=True)
class _UserVpn:
    """vpn_management's block of one user."""

    line: int
    user: int
    package: str
    kind: str = "-1"


def vpn_management(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """The VPN of each user at the dump's time."""
    facts = SectionFacts(section, context, reading)
    block: _UserVpn | None = None
    within = False
    for line, text in enumerate(section.lines):
        if text.strip() == "VPNs:":
            within = True
        elif within and (found := _USER.match(text)) is not None:
            _give_user(block, facts)
            block = _UserVpn(line, int(found[1]), found[2].strip(), "")
        elif block is not None and (active := _ACTIVE.match(text)) is not None:
            if active[1] == "vpn type":
                block.kind = active[2].strip()
            else:
                block.package = active[2].strip()
        elif block is not None and _DATED.match(text):
            facts.left(line, "a VPN's past events do not say that it ran")
    _give_user(block, facts)
    yield from facts.batches()


def _give_user(block: _UserVpn | None, facts: SectionFacts) -> None:
    if block is None:
        return
    if block.package in ("null", "", "none") or block.kind == "-1" or (block.package == _BUILT_IN and not block.kind):
        facts.left(block.line, PLACEHOLDER)
        return
    package = package_name(block.package)
    if package is None and block.package != _BUILT_IN:
        facts.damaged(block.line, "package", block.package)
        return
    detail = f"{'Android itself' if package is None else 'app'}, type {block.kind or 'not stated'}"
    _give(block.line, facts, package=package, user=block.user, detail=detail[:100])


def _give(line: int, facts: SectionFacts, *, package: str | None, user: int, detail: str) -> None:
    uid = facts.uid(package, user) if user < LAST_UID // USER_UIDS else None
    facts.signal(line, SignalKind.VPN, facts.context.taken, package=package, uid=uid, detail=detail)


def connectivity(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Connected networks that are VPNs, with the app that owns them, and networks' own proxies."""
    facts = SectionFacts(section, context, reading)
    for line, text in enumerate(section.lines):
        if _NETWORK.match(text) is None:
            continue
        network_proxy(line, text, facts)
        is_vpn = re.search(r"Transports: [A-Z|&_]*VPN", text) is not None or "ni{VPN " in text
        if not is_vpn or "CONNECTED" not in text.replace("DISCONNECTED", ""):
            facts.left(line, "a network that is no connected VPN")
            continue
        owner, extra = _OWNER.search(text), _EXTRA.search(text)
        uid = int(owner[1]) if owner is not None and int(owner[1]) <= LAST_UID else None
        named = package_name(extra[1]) if extra is not None else None
        package = named or (context.package(uid) if uid is not None else None)
        parts = [f"{word} {found[1]}" for word, found in (
            ("interface", _INTERFACE.search(text)), ("session", _SESSION.search(text))
        ) if found is not None]  # fmt: skip
        facts.signal(line, SignalKind.VPN, context.taken, package=package, uid=uid, detail=", ".join(parts) or None)
    yield from facts.batches()


def app_ops(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """When apps set up VPNs: accesses of ACTIVATE_VPN and its successors. Other operations are no records."""
    facts = SectionFacts(section, context, reading)
    uid: int | None = None
    package: str | None = None
    operation = ""
    for line, text in enumerate(section.lines):
        if (found := _OP_UID.match(text)) is not None:
            uid, package, operation = uid_number(found[1]), None, ""
        elif (found := _OP_PACKAGE.match(text)) is not None:
            package, operation = package_name(found[1]), ""
        elif (found := _OP.match(text)) is not None:
            operation = found[1] if found[1] in _VPN_OPS and package is not None else ""
            if operation:
                _give_old_use(line, text, facts, package=package, uid=uid, operation=operation)
        elif operation and (found := _ACCESS.match(text)) is not None:
            _give_access(line, found, facts, package=package, uid=uid, operation=operation)
    yield from facts.batches()


def _give_access(
    line: int, found: re.Match[str], facts: SectionFacts, *, package: str | None, uid: int | None, operation: str
) -> None:
    """Access: [fg-s] 2020-01-08 15:29:44.374 (-2m5s) duration=+1m; a local time."""
    verb, stamp, length = found.groups()
    layout = "%Y-%m-%d %H:%M:%S.%f" if "." in stamp else "%Y-%m-%d %H:%M:%S"
    start = local_us(stamp, layout, facts.context)
    if start is None:
        facts.damaged(line, operation, stamp)
    elif verb == "Reject":
        facts.left(line, "refused to set up a VPN")
    else:
        span = span_us(length) if length else None
        facts.signal(
            line, SignalKind.VPN, start, end=None if span is None else start + span, package=package, uid=uid,
            detail=operation, skew_s=facts.local_skew_s(ACCESS_STAMP_S),
        )  # fmt: skip


def _give_old_use(
    line: int, text: str, facts: SectionFacts, *, package: str | None, uid: int | None, operation: str
) -> None:
    """Until Android 9: "ACTIVATE_VPN: mode=0; time=+2h3m ago", relative to the dump's time."""
    used = _OLD_USE.search(text)
    ago = span_us(used[1]) if used is not None else None
    if ago is None:
        facts.left(line, "may set up a VPN; its uses stand in lines of their own")
        return
    start = None if facts.context.taken is None else facts.context.taken - ago
    if start is not None and start < 0:
        facts.damaged(line, "time", text.strip())
        return
    facts.signal(
        line, SignalKind.VPN, start, package=package, uid=uid, detail=operation,
        observability=Observability.OBSERVED, skew_s=facts.local_skew_s(60.0),
    )  # fmt: skip


def system_ui(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """SystemUI's own list: mCurrentVpns={0=com.example.vpn}."""
    facts = SectionFacts(section, context, reading)
    for line, text in enumerate(section.lines):
        current_vpns(line, text, facts)
    yield from facts.batches()


def current_vpns(line: int, text: str, facts: SectionFacts) -> None:
    """A line that is SystemUI's list; others are no records."""
    found = _CURRENT.match(text) if "mCurrentVpns" in text else None
    if found is None:
        return
    named = [(int(one[1]), package_name(one[2])) for one in _CURRENT_ONE.finditer(found[1])]
    if not any(package for _, package in named):
        facts.left(line, PLACEHOLDER)
    for user, package in named:
        if package is not None:
            _give(line, facts, package=package, user=user, detail="shown by SystemUI")


def always_on(line: int, value: str, user: int, facts: SectionFacts) -> None:
    """MAlwaysOnVpnPackage of dumpsys device_policy."""
    package = package_name(value)
    if package is None:
        facts.left(line, "no VPN is set to be always on")
    else:
        _give(line, facts, package=package, user=user, detail="always-on VPN set by policy")
