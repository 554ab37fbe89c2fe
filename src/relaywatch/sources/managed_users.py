"""Users and owners of a phone, and which apps Doze spares: dumpsys user, device_policy and deviceidle.

Formats: UserManagerService, DevicePolicyManagerService (OwnersData) and DeviceIdleController (frameworks/base). Rows
are inventory: of the device (no package) for users and owners, of the app for what Doze spares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import SectionFacts, package_name
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.lines import SHOWN_CHARACTERS
from relaywatch.sources.reading import Reading
from relaywatch.sources.vpn_state import always_on

_USER_INFO: Final = re.compile(r"\s*UserInfo\{(\d{1,9}):(.*):([0-9a-fA-F]{1,8})\}(.*)")
_USER_TYPE: Final = re.compile(r"\s+Type: (\S{1,100})")
_OWNER: Final = re.compile(r"\s*(Device|Profile) Owner(?: \(User (\d{1,4})\))?:\s*\Z")
_OWNER_FIELD: Final = re.compile(r"\s+(package|admin|isOrganizationOwnedDevice|User ID)[=:] ?(\S+)\s*\Z")
_ADMINS: Final = re.compile(r"\s*Enabled Device Admins \(User (\d{1,4})")
_ALWAYS_ON: Final = re.compile(r"\s*mAlwaysOnVpnPackage=(\S*)\s*\Z")
_SPARED: Final = re.compile(r"  (?:White|Allow)list (\(except idle\) )?(system|user|all) (apps|app ids):")
_TEMPORARY: Final = re.compile(r"  \S")
_MANAGED_PROFILE: Final = 0x20
"""UserInfo.FLAG_MANAGED_PROFILE."""
LAST_USER: Final = 21_473


@dataclass(slots=True)
class _Block:
    """A user's or owner's block."""

    line: int
    user: int
    what: str
    fields: dict[str, str] = field(default_factory=dict)


def users(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """One row a user, with its kind in detail."""
    facts = SectionFacts(section, context, reading)
    block: _Block | None = None
    for line, text in enumerate(section.lines):
        found = _USER_INFO.match(text)
        if found is not None:
            _give_user(block, facts)
            number, name, flags, _ = found.groups()
            label = "" if name in ("null", "") else f" {name[:SHOWN_CHARACTERS]!r}"
            block = _Block(line, int(number), f"{label}, flags 0x{flags.lower()}")
            block.fields["flags"] = flags
        elif block is not None and (kind := _USER_TYPE.match(text)) is not None:
            block.fields["type"] = kind[1]
    _give_user(block, facts)
    yield from facts.batches()


def _give_user(block: _Block | None, facts: SectionFacts) -> None:
    if block is None:
        return
    if block.user > LAST_USER:
        facts.damaged(block.line, "user", block.user)
        return
    kind = block.fields.get("type", "")
    managed = "MANAGED" in kind or int(block.fields["flags"], 16) & _MANAGED_PROFILE
    detail = f"{'work profile' if managed else 'user'}{block.what}" + (f", type {kind}" if kind else "")
    facts.inventory(block.line, user_id=block.user, detail=detail)


def device_policy(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Device and profile owners, and the VPN that a policy keeps on."""
    facts = SectionFacts(section, context, reading)
    block: _Block | None = None
    user = 0
    for line, text in enumerate(section.lines):
        if (owner := _OWNER.match(text)) is not None:
            _give_owner(block, facts)
            block = _Block(line, int(owner[2] or 0), f"{owner[1].lower()} owner")
        elif (admins := _ADMINS.match(text)) is not None:
            user = int(admins[1])
        elif (vpn := _ALWAYS_ON.match(text)) is not None:
            always_on(line, vpn[1], user, facts)
        elif block is not None and (stated := _OWNER_FIELD.match(text)) is not None:
            block.fields.setdefault(stated[1], stated[2])
    _give_owner(block, facts)
    yield from facts.batches()


def _give_owner(block: _Block | None, facts: SectionFacts) -> None:
    if block is None:
        return
    admin = re.match(r"ComponentInfo\{([^/}]+)/", block.fields.get("admin", ""))
    stated = block.fields.get("package") or (admin[1] if admin is not None else "")
    package = package_name(stated)
    of_user = block.fields.get("User ID", "")
    user = int(of_user) if of_user.isascii() and of_user.isdigit() and len(of_user) < 6 else block.user
    if package is None or user > LAST_USER:
        facts.damaged(block.line, block.what, stated)
        return
    owned = block.fields.get("isOrganizationOwnedDevice")
    detail = f"{block.what} {package}" + (f", organisation owns the device: {owned}"[:80] if owned else "")
    facts.inventory(block.line, user_id=user, detail=detail)


def device_idle(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Apps that Doze spares, each with the list that names it; lists by app id restate them."""
    facts = SectionFacts(section, context, reading)
    spared: tuple[str, bool] | None = None
    for line, text in enumerate(section.lines):
        heading = _SPARED.match(text)
        if heading is not None:
            reach = "while the phone is not idle" if heading[1] else "always"
            spared = (f"spared by Doze {reach}, {heading[2]} list", heading[3] == "app ids")
        elif _TEMPORARY.match(text) or not text.strip():
            spared = None
        elif spared is not None and spared[1]:
            facts.left(line, "an app id of apps that another list names")
        elif spared is not None:
            package = package_name(text.strip())
            if package is None:
                facts.damaged(line, "package", text.strip())
            else:
                facts.inventory(line, android_package=package, android_uid=facts.uid(package), detail=spared[0])
    yield from facts.batches()
