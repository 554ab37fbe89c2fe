"""Proxies of the whole device: Android's global settings, and what networks are configured with.

Forms of settings: `settings list global` (key=value), `settings get global http_proxy` (the value alone), dumpsys
settings ("_id:43 name:http_proxy … value:…"). Keys: android.provider.Settings.Global (http_proxy, global_http_proxy_*,
global_proxy_pac_url); always_on_vpn_app stands in Settings.Secure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import SectionFacts, package_name
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.reading import Reading

_KEYS: Final = (
    "http_proxy",
    "global_http_proxy_host",
    "global_http_proxy_port",
    "global_http_proxy_exclusion_list",
    "global_proxy_pac_url",
    "global_http_proxy_pac_url",
    "always_on_vpn_app",
    "always_on_vpn_lockdown",
)
_LISTED: Final = re.compile(rf"\s*({'|'.join(_KEYS)})=(.*)")
_DUMPED: Final = re.compile(rf"_id:\S+ name:({'|'.join(_KEYS)}) pkg:\S+ value:(.*?)(?: default:.*)?\Z")
_ASKED: Final = re.compile(rf"settings\s+(?:--user \S+ )?get\s+(?:global|secure)\s+({'|'.join(_KEYS)})\s*\Z")
_NETWORK_PROXY: Final = re.compile(
    r"\bHttpProxy:\s*(?:\[(?P<host>[^\]\s]{1,253})\]\s*(?P<port>\d{1,5})|(?P<pac>PAC[^\]}]{0,300}))"
)
_OF_USER: Final = re.compile(r"[A-Z]+ SETTINGS \(user (\d{1,4})\)")
_PROXY: Final = re.compile(r"\[?([A-Za-z0-9._:-]{1,253}?)\]?:(\d{1,5})\Z")
_NONE: Final = {"", "null", "{null}", ":0", ":", "0", "-1"}
EXPLAINS: Final = "restates or explains another setting"
LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class _Setting:
    line: int
    value: str


def proxy_settings(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """PROXY_SETTING signals at the dump's time, and VPN for an always-on VPN. Other settings are no records."""
    facts = SectionFacts(section, context, reading)
    asked = _ASKED.search(section.command)
    found: dict[str, _Setting] = {}
    user = 0
    for line, text in enumerate(section.lines):
        if (heading := _OF_USER.match(text)) is not None:
            user = int(heading[1])
        setting = _LISTED.match(text) or _DUMPED.match(text)
        if setting is not None:
            key, value = setting[1], setting[2].strip()
        elif asked is not None and text.strip():
            key, value = asked[1], text.strip()
        else:
            continue
        if value in _NONE:
            facts.left(line, "no proxy or VPN is set")
        elif key == "http_proxy":
            _give_http_proxy(line, value, facts)
        elif key == "always_on_vpn_app":
            _give_always_on(line, value, user, facts)
        elif key in found or key == "always_on_vpn_lockdown":
            facts.left(line, EXPLAINS)
        else:
            found[key] = _Setting(line, value)
    _give_global_proxy(found, facts)
    yield from facts.batches()


def _give_http_proxy(line: int, value: str, facts: SectionFacts) -> None:
    proxy = _PROXY.match(value)
    if proxy is None or not 0 < int(proxy[2]) <= LAST_PORT:
        facts.damaged(line, "http_proxy", value)
        return
    _give(line, f"http_proxy {proxy[1].lower()}:{proxy[2]}", facts)


def _give_global_proxy(found: dict[str, _Setting], facts: SectionFacts) -> None:
    """The proxy that the policy or a command set: its host and port stand in settings of their own."""
    port, excluded = found.get("global_http_proxy_port"), found.get("global_http_proxy_exclusion_list")
    host = found.get("global_http_proxy_host")
    if host is not None:
        parts = [f"global_http_proxy {host.value.lower()}:{port.value if port else '?'}"]
        parts += [f"except {excluded.value}"] if excluded else []
        _give(host.line, " ".join(parts), facts)
    for setting in (port, excluded):
        if setting is not None:
            facts.left(setting.line, EXPLAINS)
    for key in ("global_proxy_pac_url", "global_http_proxy_pac_url"):
        if key in found:
            _give(found[key].line, f"{key} {found[key].value}", facts)


def _give_always_on(line: int, value: str, user: int, facts: SectionFacts) -> None:
    package = package_name(value)
    if package is None:
        facts.damaged(line, "always_on_vpn_app", value)
        return
    detail, uid = "always-on VPN in the settings", facts.uid(package, user)
    facts.signal(line, SignalKind.VPN, facts.context.taken, package=package, uid=uid, detail=detail)


def network_proxy(line: int, text: str, facts: SectionFacts) -> None:
    """A network's own proxy in a line of dumpsys connectivity. That of a mobile carrier's access point is benign."""
    found = _NETWORK_PROXY.search(text)
    if found is None:
        return
    proxy = f"{found['host'].lower()}:{found['port']}" if found["host"] else found["pac"].strip()
    if "CELLULAR" in text or "MOBILE" in text:
        detail = f"the carrier's proxy on a cellular network, benign: {proxy}"
    else:
        detail = f"proxy of a network: {proxy}"
    _give(line, detail, facts)


def _give(line: int, detail: str, facts: SectionFacts) -> None:
    facts.signal(line, SignalKind.PROXY_SETTING, facts.context.taken, detail=detail)
