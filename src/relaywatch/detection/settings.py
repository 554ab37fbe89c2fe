"""The analytic's settings, each declared once: name, type, unit, range, default and the reason for the default.

The eight mutable elements of AN1702 keep ATT&CK's names and text; what relaywatch adds is marked as its own. Error
messages, `relaywatch settings` and docs/settings.md are made from these declarations. Detection sees only `Settings`.
"""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import annotated_types
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from relaywatch.attack.provenance import mutable_elements
from relaywatch.model.destination_list import DestinationList
from relaywatch.model.errors import SettingError
from relaywatch.model.finding import SettingUse
from relaywatch.model.toml_document import read_toml

_APP_ENTRY: Final = re.compile(r"(?P<package>[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)(?:@(?P<digest>[0-9A-Fa-f:]+))?")
_SHA256_HEX_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Declared:
    """What a setting's type does not say.

    reason: why the default is what it is. allowed: the range in words, where it is not numeric.
    description: what the setting means; empty for AN1702's mutable elements, which have ATT&CK's text.
    """

    name: str
    reason: str
    unit: str = ""
    allowed: str = ""
    description: str = ""


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "a number is needed, not true or false")
    return value


def _entries(value: object) -> object:
    if isinstance(value, str):
        return tuple(entry.strip() for entry in value.strip("[] ").split(",") if entry.strip())
    return value


def _apps(entries: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_app, entries))


def _app(entry: str) -> str:
    match = _APP_ENTRY.fullmatch(entry.strip())
    if match is None:
        raise ValueError(f"{entry!r} is neither a package nor package@signing_digest")
    package, digest = match["package"], match["digest"]
    if digest is None:
        return package
    digest = digest.replace(":", "").lower()
    if len(digest) != _SHA256_HEX_DIGITS:
        raise ValueError(f"{entry!r}: a signing digest is a SHA-256, {_SHA256_HEX_DIGITS} hexadecimal digits")
    return f"{package}@{digest}"


def _destinations(entries: tuple[str, ...]) -> tuple[str, ...]:
    DestinationList.parse(entries)
    return entries


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_number)]
Entries = Annotated[tuple[str, ...], BeforeValidator(_entries)]


class Settings(BaseModel):
    """The settings of one hunt. `origins`: by each setting's name, where its value comes from ("argument": the caller).

    Raises pydantic.ValidationError where a value is outside its range; `load` turns that into a SettingError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_window_s: Annotated[
        Real,
        Field(gt=0, le=3600),
        Declared(
            "TimeWindow",
            unit="s",
            reason="Relay agents dial the target within some seconds of the client's request, a slow mobile link and a "
            "name look-up included; pairs further apart score nothing.",
        ),
    ] = 10.0
    allowed_app_list: Annotated[
        Entries,
        AfterValidator(_apps),
        Declared(
            "AllowedAppList",
            allowed="package, or package@SHA-256 of the signing certificate",
            reason="No app is trusted by name until the site says so; prefer entries with a signing digest, because a "
            "package name alone can be copied.",
        ),
    ] = ()
    allowed_destination_list: Annotated[
        Entries,
        AfterValidator(_destinations),
        Declared(
            "AllowedDestinationList",
            allowed="registrable domain, or address prefix",
            reason="No destination is trusted until the site says so; bridges to a listed one are not counted.",
        ),
    ] = ()
    foreground_state_required: Annotated[
        bool,
        Declared(
            "ForegroundStateRequired",
            reason="Legitimate tunnels are mostly used by the person at the phone, so relaying without a foreground "
            "screen or interaction raises the odds; false leaves the app's state out of the judgement.",
        ),
    ] = True
    relay_session_threshold: Annotated[
        Count,
        Field(ge=3, le=1_000_000),
        Declared(
            "RelaySessionThreshold",
            unit="bridges",
            reason="Low-and-slow relays carry four to six requests in a quarter of an hour; with fewer bridges than "
            "this an episode is at most a suspected relay.",
        ),
    ] = 4
    byte_symmetry_tolerance: Annotated[
        Real,
        Field(ge=0, le=10),
        Declared(
            "ByteSymmetryTolerance",
            unit="relative deviation",
            reason="Framing adds a few per cent to what a relay passes on; a bridge within this deviation is called "
            "conserved and counts towards RelaySessionThreshold, and the tolerance widens as bytes shrink.",
        ),
    ] = 0.10
    concurrent_destination_threshold: Annotated[
        Count,
        Field(ge=1, le=1_000_000),
        Declared(
            "ConcurrentDestinationThreshold",
            unit="destinations",
            reason="Ordinary apps touch a median of 14 distinct endpoints in five minutes, so more unrelated ones at "
            "a time speak for a relay.",
        ),
    ] = 14
    uplink_bytes_threshold: Annotated[
        Count,
        Field(ge=0, le=1 << 50),
        Declared(
            "UplinkBytesThreshold",
            unit="bytes",
            reason="A relay that answered even four small requests sent this much back to its client; less over the "
            "whole episode is too little to judge volumes by.",
        ),
    ] = 4096
    recent_user_interaction_window_s: Annotated[
        Real,
        Field(ge=0, le=86_400),
        Declared(
            "RecentUserInteractionWindow",
            unit="s",
            reason="A tap or a swipe explains the traffic of about the next minute, not more.",
            description="Longest time since the last user interaction for traffic to count as driven by the user",
        ),
    ] = 60.0
    false_alarms_per_app_day: Annotated[
        Real,
        Field(gt=0, le=1),
        Declared(
            "FalseAlarmsPerAppDay",
            unit="false alarms per app and day",
            reason="A fleet of 1,000 phones with 100 apps each that use the network then raises one false alarm a day.",
            description="Rate of false alarms for which the relay verdict is calibrated",
        ),
    ] = 1e-5
    false_discovery_rate: Annotated[
        Real,
        Field(gt=0, le=1),
        Declared(
            "FalseDiscoveryRate",
            unit="share of relay verdicts",
            reason="Of twenty relays that a fleet hunt names, one may be none. It asks for more than "
            "FalseAlarmsPerAppDay only where thousands of apps are hunted for each relay there is.",
            description="Share of false ones among the relay verdicts of one hunt, over all apps judged",
        ),
    ] = 0.05
    suspicion_threshold: Annotated[
        Real,
        Field(gt=0, lt=1),
        Declared(
            "SuspicionThreshold",
            unit="probability",
            reason="From even odds upward a relay is the likelier explanation of what was seen.",
            description="Least probability at which an episode is reported as a suspected relay",
        ),
    ] = 0.5
    origins: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _complete_origins(cls, values: dict[str, object]) -> dict[str, object]:
        given = values.get("origins")
        origins = {s.name: "argument" if s.attribute in values else "default" for s in SETTINGS}
        return values | {"origins": origins | (given if isinstance(given, dict) else {})}

    @property
    def allowed_destinations(self) -> DestinationList:
        """AllowedDestinationList, ready to be asked."""
        return DestinationList.parse(self.allowed_destination_list)

    def allows_app(self, package: str | None, signing_digest: str | None) -> bool:
        """Whether AllowedAppList names the app; an entry with a digest asks for that digest to be seen."""
        return package in self.allowed_app_list or f"{package}@{signing_digest}" in self.allowed_app_list


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting's declaration. attribute: its name in `Settings`. allowed: its range, in words; empty: the type's."""

    name: str
    attribute: str
    type: str
    unit: str
    allowed: str
    default: str
    reason: str
    attack: bool
    description: str


_TYPES: Final[dict[Any, str]] = {
    float: "number",
    int: "whole number",
    bool: "true or false",
    tuple[str, ...]: "list of text",
}
_BOUNDS: Final[dict[type, tuple[str, str]]] = {
    annotated_types.Gt: ("gt", "above"),
    annotated_types.Ge: ("ge", "from"),
    annotated_types.Lt: ("lt", "below"),
    annotated_types.Le: ("le", "to"),
}


def _declaration(attribute: str) -> Setting:
    field = Settings.model_fields[attribute]
    declared = next(item for item in field.metadata if isinstance(item, Declared))
    bounds = [
        f"{word} {getattr(item, bound):,}"
        for item in field.metadata
        for kind, (bound, word) in _BOUNDS.items()
        if isinstance(item, kind)
    ]
    return Setting(
        name=declared.name,
        attribute=attribute,
        type=_TYPES[field.annotation],
        unit=declared.unit,
        allowed=declared.allowed or " ".join(bounds),
        default=_text(field.default),
        reason=declared.reason,
        attack=not declared.description,
        description=declared.description or mutable_elements()[declared.name],
    )


def _text(value: object) -> str:
    """Write a value as TOML has it."""
    return json.dumps(value, ensure_ascii=False)


SETTINGS: Final = tuple(_declaration(attribute) for attribute in Settings.model_fields if attribute != "origins")
"""Every setting: AN1702's mutable elements in ATT&CK's order, then relaywatch's own."""
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


def load(path: Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Take settings from the defaults, then the [settings] table of a TOML file, then overrides "Name=value".

    A later override of the same setting wins. Raises SettingError naming the place, the setting, the value and what
    is allowed.
    """
    settings = Settings()
    if path is not None:
        settings = _applied(settings, _file_values(path), f"file {path}")
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise SettingError(f"--set {override}: write it as Name=value.")
        settings = _applied(settings, {name.strip(): value.strip()}, "flag --set")
    return settings


def _file_values(path: Path) -> dict[str, Any]:
    document = read_toml(path, SettingError)
    for table in document:
        if table != "settings":
            raise SettingError(f"{path}: {table!r} is not known here. Put settings under [settings].")
    values = document.get("settings", {})
    if not isinstance(values, dict):
        raise SettingError(f"{path}: settings must be a table, [settings].")
    return values


def _applied(settings: Settings, values: dict[str, Any], origin: str) -> Settings:
    unknown = next((name for name in values if name not in _BY_NAME), None)
    if unknown is not None:
        raise SettingError(f"{origin}: there is no setting {unknown!r}. {_suggestion(unknown)}")
    merged: dict[str, Any] = {s.attribute: getattr(settings, s.attribute) for s in SETTINGS}
    merged |= {_BY_NAME[name].attribute: value for name, value in values.items()}
    try:
        return Settings(**merged, origins=settings.origins | dict.fromkeys(values, origin))
    except ValidationError as fault:
        raise SettingError(_message(fault, values, origin)) from fault


def _suggestion(unknown: str) -> str:
    names = {name.lower(): name for name in _BY_NAME}
    near = difflib.get_close_matches(unknown.lower(), names, n=2, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(names[match] for match in near)}?"
    return f"Settings are: {', '.join(_BY_NAME)}."


def _message(fault: ValidationError, values: dict[str, Any], origin: str) -> str:
    first = fault.errors()[0]
    setting = next(s for s in SETTINGS if s.attribute == first["loc"][0])
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    allowed = ", ".join(part for part in (setting.type, setting.allowed, setting.unit) if part)
    return f"{origin}: {setting.name} = {reprlib.repr(values[setting.name])}: {reason}. Allowed: {allowed}."


def describe(settings: Settings) -> list[SettingUse]:
    """Every setting as it stands, with its default and origin, for the finding."""
    return [
        SettingUse(
            name=setting.name,
            value=_text(getattr(settings, setting.attribute)),
            default=setting.default,
            origin=settings.origins[setting.name],
            attack=setting.attack,
        )
        for setting in SETTINGS
    ]


def settings_markdown() -> str:
    """Text of docs/settings.md."""
    parts = [
        "# Settings",
        "Made from the declarations in `src/relaywatch/detection/settings.py`; a test keeps it current.",
        "Give settings in a TOML file, or one by one as `--set Name=value` (a list as `--set Name=one,two`); a flag "
        "wins over the file, the file over the default. Every finding carries each value with its origin.",
        '```toml\n[settings]\nTimeWindow = 10.0\nAllowedDestinationList = ["corp.example", "10.0.0.0/8"]\n```',
        "ATT&CK names the mutable elements of AN1702 and gives them no values: all defaults are relaywatch's.",
        "## Mutable elements of AN1702",
        *(_section(setting) for setting in SETTINGS if setting.attack),
        "## relaywatch's own",
        *(_section(setting) for setting in SETTINGS if not setting.attack),
    ]
    return "\n\n".join(parts) + "\n"


def _section(setting: Setting) -> str:
    allowed = ", ".join(part for part in (setting.type, setting.allowed) if part)
    unit = f", in {setting.unit}" if setting.unit else ""
    return (
        f"### {setting.name}\n\n{setting.description}.\n\n"
        f"- Default: `{setting.default}`{unit}\n- Allowed: {allowed}\n- Why: {setting.reason}"
    )
