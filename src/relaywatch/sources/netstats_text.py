"""dumpsys netstats: bytes of each uid by bucket, in the background and in front.

Format: AOSP NetworkStatsRecorder and NetworkStatsHistory dump(): an `ident=… uid=… set=… tag=…` line, a bucket length,
then `st=… rb=… rp=… tb=… tp=…` lines in seconds, or in the old form `bucketStart=… rxBytes=…` in ms; and the checkin
form `c,…`, `d,…`, `b,…`. Only the section of uids; tags are parts of a uid's traffic. VPN traffic is laid to the apps
behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from relaywatch.model.tables import Batch
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.columns import LAST_SECOND
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.reading import Reading

PACKET_BYTES: Final = 40
"""Headers of a TCP packet over IPv4: netstats counts IP bytes."""
LAST_UID: Final = 2**31 - 1
MOST_ROWS: Final = 1_000_000
LONGEST_US: Final = 40 * 86_400 * 1_000_000
_PART: Final = re.compile(r"\S.{0,40}stats:$|Active .{0,40}:$", re.ASCII)
_IDENT: Final = re.compile(r"\s*ident=.* uid=(-?\d{1,10}) set=(\w{1,20}) tag=0x([0-9a-fA-F]{1,8})\s*")
_LENGTH: Final = re.compile(r"\s*NetworkStatsHistory: bucketDuration=(\d{1,12})(ms)?.*")
_BUCKET: Final = re.compile(r"\s*st=(\d{1,12}) rb=(\d{1,18}) rp=(\d{1,18}) tb=(\d{1,18}) tp=(\d{1,18}) op=\d+\s*")
_OLD: Final = re.compile(
    r"\s*bucketStart=(\d{1,15})(?: activeTime=\d+)? rxBytes=(\d{1,18}) rxPackets=(\d{1,18}) txBytes=(\d{1,18})"
    r" txPackets=(\d{1,18}) operations=\d+\s*"
)
_CHECKIN: Final = re.compile(
    r"c,.{0,200},(-?\d{1,10}),(\d),(\d{1,10})|d,(\d{1,12})"
    r"|b,(\d{1,12}),(\d{1,18}),(\d{1,18}),(\d{1,18}),(\d{1,18}),\d+"
)
_SETS: Final = {
    "DEFAULT": "background", "FOREGROUND": "foreground", "DBG_VPN_IN": "vpn_in", "DBG_VPN_OUT": "vpn_out",
    "0": "background", "1": "foreground",
}  # fmt: skip
_RECORD: Final = re.compile(r"\s*(?:st=|bucketStart=)|b,\d")
TAGGED: Final = "a tagged part of a uid's traffic"
OTHER: Final = "traffic of an interface, not of a uid"


def netstats(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Whole-uid volumes; a bucket line is a record."""
    state = _State()
    rows = _Rows(section, context)
    for number, line in enumerate(section.lines, section.first_line):
        if _RECORD.match(line) is None:
            state.take(line)
            continue
        reading.tally.met(1)
        columns = state.bucket(line)
        if columns is None:
            reading.quarantine.add(
                section.source, f"line {number}", "no bucket as netstats writes it, or without its uid"
            )
        elif not state.of_uid:
            reading.tally.left(OTHER, 1)
        elif state.tag:
            reading.tally.left(TAGGED, 1)
        elif rows.count >= MOST_ROWS:
            reading.tally.left(f"a bucket beyond the first {MOST_ROWS}", 1)
        else:
            rows.add(number, columns, state.uid)
    found = rows.batches()
    reading.tally.gave(found)
    yield from found


class _State:
    """What the lines before a bucket said."""

    def __init__(self) -> None:
        self.uid, self.set, self.tag, self.length_us = 0, "", 0, 0
        self.of_uid = True
        self._known = False

    def take(self, line: str) -> None:
        """A line that is no bucket."""
        if _PART.fullmatch(line.strip()) and "=" not in line:
            self.of_uid = line.strip().lower().startswith("uid stats")
            self._known = False
        elif (found := _IDENT.fullmatch(line)) is not None:
            self.uid, self.set, self.tag = int(found[1]), found[2], int(found[3], 16)
            self._known = abs(self.uid) <= LAST_UID
        elif (found := _LENGTH.fullmatch(line)) is not None:
            self.length_us = int(found[1]) * (1_000 if found[2] or int(found[1]) > 1_000_000 else 1_000_000)
        elif (found := _CHECKIN.fullmatch(line.strip())) is not None:
            if found[4] is not None:
                self.length_us = int(found[4]) * 1_000_000
            elif found[1] is not None:
                self.uid, self.set, self.tag = int(found[1]), found[2], int(found[3])
                self._known = abs(self.uid) <= LAST_UID

    def bucket(self, line: str) -> dict[str, Any] | None:
        """A bucket's columns; None where it is none, or nothing before it says whose it is."""
        if (found := _BUCKET.fullmatch(line)) is not None:
            start, counts = int(found[1]) * 1_000_000, found.groups()[1:]
        elif (found := _OLD.fullmatch(line)) is not None:
            start, counts = int(found[1]) * 1_000, found.groups()[1:]
        elif (found := _CHECKIN.fullmatch(line.strip())) is not None and found[5] is not None:
            start, counts = int(found[5]) * 1_000_000, found.groups()[5:]
        else:
            return None
        received, packets_in, sent, packets_out = map(int, counts)
        known = self._known or not self.of_uid
        if not known or not 0 < self.length_us <= LONGEST_US or not 0 <= start <= LAST_SECOND * 1_000_000:
            return None
        return {
            "start_time": start,
            "duration_us": self.length_us,
            "bytes_out": max(sent - packets_out * PACKET_BYTES, 0),
            "bytes_in": max(received - packets_in * PACKET_BYTES, 0),
            "packets_out": packets_out,
            "packets_in": packets_in,
            "android_set": _SETS.get(self.set, self.set.lower()),
        }


class _Rows:
    """The section's volumes."""

    def __init__(self, section: Section, context: DumpContext) -> None:
        self._rows = ContextRows(Path(section.source), "device", context.skew_bound_s)
        self._context = context
        self.count = 0

    def add(self, number: int, columns: dict[str, Any], uid: int) -> None:
        """One bucket of a uid."""
        package = self._context.package(uid) if uid >= 0 else None
        self._rows.add("volumes", number, self._context.device, android_uid=uid, android_package=package, **columns)
        self.count += 1

    def batches(self) -> list[Batch]:
        """All of them."""
        return self._rows.batches()
