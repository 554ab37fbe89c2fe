"""dumpsys netstats: bytes of each uid by bucket, in the background and in front.

Format: AOSP NetworkStatsRecorder and NetworkStatsHistory dump(): an `ident=… uid=… set=… tag=…` line, a bucket length,
then `st=… rb=… rp=… tb=… tp=…` lines in seconds, or in the old form `bucketStart=… rxBytes=…` in ms; and the checkin
form `c,…`, `d,…`, `b,…`. Only the section of uids; tags are parts of a uid's traffic. VPN traffic is laid to the apps
behind it. Bucket lines are read as columns; the few lines between them say whose they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from relaywatch.model.tables import Batch, batch
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.columns import LAST_SECOND, text
from relaywatch.sources.reading import Reading
from relaywatch.sources.section_lines import line_columns

PACKET_BYTES: Final = 40
"""Headers of a TCP packet over IPv4: netstats counts IP bytes."""
LAST_UID: Final = 2**31 - 1
MOST_ROWS: Final = 1_000_000
LONGEST_US: Final = 40 * 86_400 * 1_000_000
_PART: Final = re.compile(r"\S.{0,40}stats:$|Active .{0,40}:$", re.ASCII)
_IDENT: Final = re.compile(r"\s*ident=.* uid=(-?\d{1,10}) set=(\w{1,20}) tag=0x([0-9a-fA-F]{1,8})\s*")
_LENGTH: Final = re.compile(r"\s*NetworkStatsHistory: bucketDuration=(\d{1,12})(ms)?.*")
_CHECKIN: Final = re.compile(r"c,.{0,200},(-?\d{1,10}),(\d),(\d{1,10})|d,(\d{1,12})")
_SAYING: Final = r"stats:|Active |ident=|bucketDuration=|^[\s\x1c-\x1f]*[cd],"
"""Lines that may say whose the buckets after them are; the patterns above decide."""
_RECORD: Final = r"^(?:\s*(?:st=|bucketStart=)|b,[0-9])"
_COUNT: Final = "([0-9]{1,18})"
_FORMS: Final = (
    (rf"^\s*st=([0-9]{{1,12}}) rb={_COUNT} rp={_COUNT} tb={_COUNT} tp={_COUNT} op=[0-9]+\s*$", 1_000_000),
    (
        rf"^\s*bucketStart=([0-9]{{1,15}})(?: activeTime=[0-9]+)? rxBytes={_COUNT} rxPackets={_COUNT} txBytes={_COUNT}"
        rf" txPackets={_COUNT} operations=[0-9]+\s*$",
        1_000,
    ),
    (rf"^b,([0-9]{{1,12}}),{_COUNT},{_COUNT},{_COUNT},{_COUNT},[0-9]+\s*$", 1_000_000),
)
"""A bucket's start and counts in each form, and the unit of its start, us."""
_FIELDS: Final = ("start", "received", "packets_in", "sent", "packets_out")
_SETS: Final = {
    "DEFAULT": "background", "FOREGROUND": "foreground", "DBG_VPN_IN": "vpn_in", "DBG_VPN_OUT": "vpn_out",
    "0": "background", "1": "foreground",
}  # fmt: skip
_SUCH_PACKETS: Final = 1 << 56
"""So many packets have more bytes in headers than any count here holds."""
TAGGED: Final = "a tagged part of a uid's traffic"
OTHER: Final = "traffic of an interface, not of a uid"


def netstats(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Whole-uid volumes; a bucket line is a record."""
    state, number, count = _State(), section.first_line, 0
    for column in line_columns(section.lines):
        is_bucket = column.str.contains(_RECORD)
        says = ~is_bucket & column.str.contains(_SAYING)
        states, state = _states(column.filter(says), state)
        which = np.cumsum(says.to_numpy())[is_bucket.to_numpy()]
        at = is_bucket.arg_true().to_numpy().astype(np.int64) + number
        buckets = _buckets(column.filter(is_bucket)).with_columns(states[which], position=pl.Series(at))
        kept = _kept(buckets, section, MOST_ROWS - count, reading)
        number, count = number + len(column), count + kept.height
        if kept.height:
            found = [_volumes(kept, section, context)]
            reading.tally.gave(found)
            yield from found


class _State(NamedTuple):
    """What the lines before a bucket said."""

    uid: int = 0
    android_set: str = ""
    tag: int = 0
    length_us: int = 0
    of_uid: bool = True
    known: bool = False

    def after(self, line: str) -> _State:
        """What is so after a line that is no bucket."""
        if _PART.fullmatch(line.strip()) and "=" not in line:
            return self._replace(of_uid=line.strip().lower().startswith("uid stats"), known=False)
        if (found := _IDENT.fullmatch(line)) is not None:
            return self._whose(int(found[1]), found[2], int(found[3], 16))
        if (found := _LENGTH.fullmatch(line)) is not None:
            unit = 1_000 if found[2] or int(found[1]) > 1_000_000 else 1_000_000
            return self._replace(length_us=int(found[1]) * unit)
        if (found := _CHECKIN.fullmatch(line.strip())) is not None:
            if found[4] is not None:
                return self._replace(length_us=int(found[4]) * 1_000_000)
            return self._whose(int(found[1]), found[2], int(found[3]))
        return self

    def _whose(self, uid: int, android_set: str, tag: int) -> _State:
        return self._replace(uid=uid, android_set=android_set, tag=tag, known=abs(uid) <= LAST_UID)


def _states(lines: pl.Series, state: _State) -> tuple[pl.DataFrame, _State]:
    """The state before the lines and after each of them, and the last."""
    states = [state]
    for line in lines.to_list():
        states.append(states[-1].after(line))
    schema = {
        "uid": pl.Int64, "android_set": pl.String, "tag": pl.Int64, "length_us": pl.Int64, "of_uid": pl.Boolean,
        "known": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(states, schema=schema, orient="row"), states[-1]


def _buckets(lines: pl.Series) -> pl.DataFrame:
    """_FIELDS of each line, start in us; null where it is none of the forms."""
    found = pl.DataFrame(schema=dict.fromkeys(_FIELDS, pl.Int64))
    for form, unit in _FORMS:
        groups = lines.str.extract_groups(form).struct.rename_fields(list(_FIELDS)).struct.unnest()
        read = groups.with_columns(pl.all().cast(pl.Int64)).with_columns(pl.col("start") * unit)
        found = read if not found.height else found.with_columns(pl.coalesce(name, read[name]) for name in _FIELDS)
        if not found["start"].has_nulls():
            break
    return found


def _kept(buckets: pl.DataFrame, section: Section, room: int, reading: Reading) -> pl.DataFrame:
    """The buckets of whole uids, at most `room`; the others are accounted for."""
    reading.tally.met(buckets.height)
    sound = (
        (pl.col("known") | ~pl.col("of_uid"))
        & pl.col("length_us").is_between(1, LONGEST_US)
        & pl.col("start").is_between(0, LAST_SECOND * 1_000_000)
    ).fill_null(value=False)
    for position in buckets.filter(~sound)["position"].to_list():
        reading.quarantine.add(
            section.source, f"line {position}", "no bucket as netstats writes it, or without its uid"
        )
    buckets = buckets.filter(sound)
    reading.tally.left(OTHER, buckets.filter(~pl.col("of_uid")).height)
    buckets = buckets.filter("of_uid")
    reading.tally.left(TAGGED, buckets.filter(pl.col("tag") != 0).height)
    buckets = buckets.filter(pl.col("tag") == 0)
    reading.tally.left(f"a bucket beyond the first {MOST_ROWS}", max(buckets.height - room, 0))
    return buckets.head(room)


def _volumes(buckets: pl.DataFrame, section: Section, context: DumpContext) -> Batch:
    uids, sets = buckets["uid"].unique().to_list(), buckets["android_set"].unique().to_list()
    packages = [context.package(uid) if uid >= 0 else None for uid in uids]
    named = buckets.select(
        package=pl.col("uid").replace_strict(uids, packages, return_dtype=pl.String),
        android_set=pl.col("android_set").replace_strict(sets, [_SETS.get(one, one.lower()) for one in sets]),
        bytes_out=_payload("sent", "packets_out"),
        bytes_in=_payload("received", "packets_in"),
    )
    columns = {
        "device_uid": context.device,
        "source": section.source,
        "clock": "device",
        "clock_skew_bound_s": context.skew_bound_s,
        "android_uid": buckets["uid"].to_arrow(),
        "android_package": text(named["package"]),
        "android_set": text(named["android_set"]),
        "start_time": buckets["start"].to_arrow(),
        "duration_us": buckets["length_us"].to_arrow(),
        "bytes_out": named["bytes_out"].to_arrow(),
        "bytes_in": named["bytes_in"].to_arrow(),
        "packets_out": buckets["packets_out"].to_arrow(),
        "packets_in": buckets["packets_in"].to_arrow(),
        "position": buckets["position"].to_arrow(),
    }
    return batch("volumes", columns, length=buckets.height)


def _payload(counted: str, packets: str) -> pl.Expr:
    """Bytes without headers."""
    headers = pl.col(packets).clip(upper_bound=_SUCH_PACKETS) * PACKET_BYTES
    return (pl.col(counted) - headers).clip(lower_bound=0)
