"""dumpsys activity and netpolicy: what was in front, or ran a foreground service or a VPN, when the dump was taken.

Formats: ActivityManagerService, ProcessList and ActiveServices (frameworks/base, services/core, server/am) and
NetworkPolicyManagerService (server/net). Process states: ProcessList.makeProcStateString.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import LAST_UID, USER_UIDS, SectionFacts, package_name, uid_number
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.reading import Reading
from relaywatch.sources.vpn_state import current_vpns

_RESUMED: Final = re.compile(
    r"\s*(?:m?(?:Focused|Last)?ResumedActivity|topResumedActivity|mTopResumedActivity)\s*[:=]\s*"
    r"(?:ActivityRecord\{\S+ u(\d{1,4}) ([^\s/]+)/(\S+)|null)"
)
_PROCESS: Final = re.compile(
    r" {0,16}(?:(?:Proc|PERS) {0,4})?# {0,4}\d{1,5}: {1,8}\S{1,16}(?: ?\+? {0,3}\d{1,4})? {1,16}\S ?/(.)/(\S{1,16}) "
    r".{0,200}?\b\d{1,10}:([^\s/]{1,255})/(\w{1,32})(?: \((.{0,100})\))?"
)
_UID: Final = re.compile(r"\s*UID \S+: UidRecord\{\S+ (\S+) (\S+) ")
_SERVICE: Final = re.compile(r"(\s*)\* ServiceRecord\{\S+ u(\d{1,4}) ([^\s/]+)/([^\s}]+)")
_VPN_INTENT: Final = "act=android.net.VpnService"
_POLICY: Final = re.compile(r"\s*UID=(-?\d{1,10}) state=(?:(\d+) \(([^)]*)\)|\{procState=([A-Z_]{1,40})[^}]*\})")
_IN_FRONT: Final = {"TOP"}
_SERVING: Final = {"FGS", "FGSL", "FOREGROUND_SERVICE", "FOREGROUND_SERVICE_LOCATION"}
_TOP_STATE: Final = 2
"""PROCESS_STATE_TOP since Android 6; the numbers of services have changed since, their labels have not."""
NEITHER: Final = "neither in front nor a foreground service"


@dataclass(slots=True)
class _Service:
    """One ServiceRecord's block."""

    line: int
    user: int
    package: str
    name: str
    foreground: bool = False
    vpn: bool = False


def activity_state(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Resumed activities, processes and uids by their state, and services, as instants at the dump's time."""
    facts = SectionFacts(section, context, reading)
    service: _Service | None = None
    for line, text in enumerate(section.lines):
        block = _SERVICE.match(text)
        if block is not None:
            _give_service(service, facts)
            service = _Service(line, int(block[2]), block[3], block[4])
        elif service is not None and text.strip():
            if text.lstrip().startswith(("isForeground=true", "isForegroundService=true")):
                service.foreground = True
            elif _VPN_INTENT in text and text.lstrip().startswith("intent="):
                service.vpn = True
            elif not text.startswith("  "):
                _give_service(service, facts)
                service = None
        if block is None and (service is None or text.lstrip().startswith(("Proc", "PERS", "UID ", "#"))):
            _state_line(line, text, facts)
    _give_service(service, facts)
    yield from facts.batches()


def _state_line(line: int, text: str, facts: SectionFacts) -> None:
    current_vpns(line, text, facts)
    if "esumedActivity" in text and (found := _RESUMED.match(text)) is not None:
        _give_resumed(line, found, facts)
    elif "UidRecord{" in text and (found := _UID.match(text)) is not None:
        uid = uid_number(found[1])
        if uid is None:
            facts.damaged(line, "uid", found[1])
        else:
            _give_state(line, facts, state=found[2], uid=uid, package=None)
    elif "#" in text and (found := _PROCESS.match(text)) is not None:
        activities, state, process, owner, why = found.groups()
        uid = uid_number(owner)
        if uid is None:
            facts.damaged(line, "uid", owner)
        else:
            package = package_name(process.split(":")[0])
            _give_state(line, facts, state="TOP" if activities == "A" else state, uid=uid, package=package, why=why)


def _give_resumed(line: int, found: re.Match[str], facts: SectionFacts) -> None:
    if found[2] is None:
        facts.left(line, "no activity is resumed")
        return
    package = package_name(found[2])
    if package is None:
        facts.damaged(line, "package", found[2])
        return
    uid = facts.uid(package, int(found[1]))
    _give_moment(line, facts, SignalKind.FOREGROUND_UI, package=package, uid=uid)


def _give_state(
    line: int,
    facts: SectionFacts,
    *,
    state: str,
    uid: int,
    package: str | None,
    why: str | None = None,
    observability: Observability = Observability.OBSERVED,
) -> None:
    """A process's or uid's state. A uid's package is known only where it has one."""
    kind = (
        SignalKind.FOREGROUND_UI if state in _IN_FRONT else SignalKind.FOREGROUND_SERVICE if state in _SERVING else None
    )
    if kind is None:
        facts.left(line, NEITHER)
        return
    only = facts.context.package(uid)
    _give_moment(line, facts, kind, package=only or package, uid=uid, detail=why, observability=observability)


def _give_moment(
    line: int,
    facts: SectionFacts,
    kind: SignalKind,
    *,
    package: str | None,
    uid: int | None,
    detail: str | None = None,
    observability: Observability = Observability.OBSERVED,
) -> None:
    """So it was at the moment of the dump, and nothing says how long it stayed so: the end is that moment."""
    taken = facts.context.taken
    facts.signal(line, kind, taken, end=taken, package=package, uid=uid, detail=detail, observability=observability)


def _give_service(service: _Service | None, facts: SectionFacts) -> None:
    if service is None:
        return
    package = package_name(service.package)
    if package is None:
        facts.damaged(service.line, "package", service.package)
        return
    uid = facts.uid(package, service.user) if service.user < LAST_UID // USER_UIDS else None
    detail = f"{service.package}/{service.name}"
    if not service.foreground and not service.vpn:
        facts.left(service.line, "a service that is neither in the foreground nor a VPN")
    if service.foreground:
        _give_moment(service.line, facts, SignalKind.FOREGROUND_SERVICE, package=package, uid=uid, detail=detail)
    if service.vpn:
        facts.signal(service.line, SignalKind.VPN, facts.context.taken, package=package, uid=uid, detail=detail)


def network_policy(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """State of each uid by netpolicy: "state=2 (fg)" until Android 10, "state={procState=TOP,…}" since.

    The older label "fg svc" holds for a service that another app's foreground service binds, too: inferred.
    """
    facts = SectionFacts(section, context, reading)
    for line, text in enumerate(section.lines):
        found = _POLICY.match(text)
        if found is None:
            continue
        number, state, label, named = int(found[1]), found[2], found[3], found[4]
        if not 0 <= number <= LAST_UID:
            facts.damaged(line, "UID", found[1])
        elif named is not None:
            _give_state(line, facts, state=named, uid=number, package=None)
        elif label == "fg svc":
            _give_state(line, facts, state="FGS", uid=number, package=None, observability=Observability.INFERRED)
        else:
            top = state.lstrip("0") == str(_TOP_STATE)
            _give_state(line, facts, state="TOP" if top else "", uid=number, package=None)
    yield from facts.batches()
