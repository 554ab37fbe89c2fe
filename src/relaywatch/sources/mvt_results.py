"""MVT's results as the lines that Android wrote, so that the parsers of those lines read them.

Each of MVT's modules lists what it found as JSON records (mvt-project/mvt, src/mvt/android; forms checked against MVT
2026.10.26). A line belongs to the record that it was made of, by the record's number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from relaywatch.model.schemas import SignalKind
from relaywatch.sources.android_parsers import PARSERS
from relaywatch.sources.android_section import SectionParser

Lines = Iterator[tuple[int, str]]
Numbered = list[dict[str, Any]]
"""Records with `position`, their number from 1."""
CHARACTERS: Final = 1_000
"""Of one value: longer ones say nothing that the parsers read."""
_VPN_OPS: Final = ("ACTIVATE_VPN", "ESTABLISH_VPN_SERVICE", "ESTABLISH_VPN_MANAGER")
_TOPS: Final = {"start_top": "+", "end_top": "-"}
_ENTRY: Final = pa.struct(
    {"access": pa.string(), "uid_state": pa.string(), "timestamp": pa.string(), "duration": pa.string()}
)


@dataclass(frozen=True, slots=True)
class Result:
    """How one module's results become lines.

    schema: the fields used; section: what the lines are to the parser; left_out: a SignalKind that the section would
    show, and of which MVT keeps nothing.
    """

    schema: pa.Schema
    section: str
    lines: Callable[[Numbered], Lines]
    left_out: str = ""

    @property
    def parser(self) -> SectionParser:
        """What reads the lines."""
        return PARSERS[self.section]


def _value(value: object) -> str:
    """A value as it may stand within a line."""
    return "" if value is None else re.sub(r"[\r\n]+", " ", str(value))[:CHARACTERS]


def _word(value: object) -> str:
    """A value as it may stand between spaces, brackets and colons."""
    return re.sub(r"[\s\[\]()\"]+", "_", _value(value)) or "null"


def property_lines(records: Numbered) -> Lines:
    """Getprop's lines."""
    for record in records:
        yield record["position"], f"[{_word(record['name'])}]: [{_value(record['value'])}]"


def _settings(records: Numbered) -> Lines:
    user = None
    for record in records:
        if record["user"] != user:
            user = record["user"]
            yield record["position"], f"SECURE SETTINGS (user {_word(user if user is not None else 0)})"
        yield record["position"], f"{_word(record['name'])}={_value(record['value'])}"


def package_lines(records: Numbered) -> Lines:
    """Lines of `pm list packages -U` of the packages that are active; MVT lists system images' copies as well."""
    for record in records:
        if record["package_type"] not in (None, "active") or record["app_id"] is None:
            continue
        users = [user["user_id"] for user in record["users"] or () if user and user["installed"] is not False]
        known = [user for user in (users or [0]) if user is not None and 0 <= user < 10_000]
        uids = ",".join(str(user * 100_000 + record["app_id"]) for user in known[:100])
        version = f" versionCode:{record['version_code']}" if record["version_code"] is not None else ""
        installer = f" installer={_word(record['installer'])}"
        yield record["position"], f"package:{_word(record['package_name'])}{version}{installer} uid:{uids}"


def _app_ops(records: Numbered) -> Lines:
    """Of the operations only those that set up a VPN."""
    for record in records:
        position = record["position"]
        yield position, f"  Uid {_word(record['uid'])}:"
        yield position, f"    Package {_word(record['package_name'])}:"
        for operation in record["permissions"] or ():
            if not operation or operation["name"] not in _VPN_OPS:
                continue
            yield position, f"      {operation['name']} ({_word(operation['mode'])}):"
            for entry in operation["entries"] or ():
                if entry:
                    length = f" duration={_word(entry['duration'])}" if entry["duration"] else ""
                    stamp = f"[{_word(entry['uid_state'])}] {_value(entry['timestamp'])} (0)"
                    yield position, f"          {_word(entry['access'])}: {stamp}{length}"


def _battery(records: Numbered) -> Lines:
    """Apps coming to the top and leaving it, as spans since the earliest of them."""
    times = {record["position"]: _moment(record["timestamp"]) for record in records if record["event"] in _TOPS}
    known = [time for time in times.values() if time is not None]
    if not known:
        return
    first = min(known).replace(microsecond=0)
    yield 0, "Battery History (0% used):"
    yield 0, f"          0 (2) RESET:TIME: {first:%Y-%m-%d-%H-%M-%S}"
    for record in records:
        time = times.get(record["position"])
        if time is not None:
            milliseconds = round((time - first).total_seconds() * 1000)
            span = f"+{milliseconds // 1000 // 3600}h{milliseconds // 60_000 % 60}m{milliseconds // 1000 % 60}s"
            who = f'{_word(record["uid"])}:"{_word(record["package_name"])}"'
            yield record["position"], f"          {span}{milliseconds % 1000}ms (2) {_TOPS[record['event']]}top={who}"


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "").replace(tzinfo=None)
    except ValueError:
        return None


def _schema(**fields: pa.DataType) -> pa.Schema:
    return pa.schema(list(fields.items()))


PROPERTIES: Final = _schema(name=pa.string(), value=pa.string())
_SETTINGS: Final = Result(
    _schema(namespace=pa.string(), user=pa.string(), name=pa.string(), value=pa.string()), "settings", _settings
)
_USER: Final = pa.struct({"user_id": pa.int64(), "installed": pa.bool_()})
PACKAGES: Final = _schema(
    package_name=pa.string(), package_type=pa.string(), app_id=pa.int64(), version_code=pa.int64(),
    installer=pa.string(), users=pa.list_(_USER),
)  # fmt: skip
_OPERATION: Final = pa.struct({"name": pa.string(), "mode": pa.string(), "entries": pa.list_(_ENTRY)})
RESULTS: Final[Mapping[str, Result]] = {
    "settings": _SETTINGS,
    "aqf_settings": _SETTINGS,
    "dumpsys_packages": Result(PACKAGES, "pm", package_lines),
    "dumpsys_appops": Result(
        _schema(package_name=pa.string(), uid=pa.string(), permissions=pa.list_(_OPERATION)), "appops", _app_ops
    ),
    "dumpsys_battery_history": Result(
        _schema(timestamp=pa.string(), event=pa.string(), uid=pa.string(), package_name=pa.string()),
        "batterystats",
        _battery,
        left_out=SignalKind.SCREEN_ON.name,
    ),
}
"""By the module's name, which is the file's."""
