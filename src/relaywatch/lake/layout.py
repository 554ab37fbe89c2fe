"""Where a row lies in the lake, and in which order: the rules that import, compaction and reading share."""

from __future__ import annotations

import re
import zlib
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.model.tables import TableName

VERSION: Final = 1
"""Of the layout. A lake of a later version is refused; one of an earlier version would be read as it was written."""
SHARDS: Final = 64
DAY_US: Final = 86_400_000_000
EPOCH: Final = date(1970, 1, 1)

_APP: Final = ("device_uid", "android_package", "android_uid")
ORDER: Final[dict[TableName, tuple[str, ...]]] = {
    "flows": (*_APP, "start_time"),
    "volumes": (*_APP, "flow_id", "start_time"),
    "signals": ("device_uid", "start_time"),
    "inventory": _APP,
}
"""Columns by which a table's files are sorted: null first, text by its UTF-8 bytes, all rising."""
DAILY: Final = frozenset[TableName]({"flows", "volumes"})
"""Tables cut by day. Signals are not: most hold for longer than a day."""
SHARDED: Final = frozenset[TableName]({"flows", "volumes", "signals"})


_FILE: Final = re.compile(
    rf"(?P<table>{'|'.join(ORDER)})(/day=(?P<day>\d{{4}}-\d\d-\d\d))?(/shard=(?P<shard>\d\d))?/\d{{8}}-\d{{4}}\.parquet"
)
"""A file of the lake: its partition, then the number of the change that brought it, and its number therein."""


class Partition(NamedTuple):
    """One folder of files. day: days since 1970-01-01 UTC, None in tables not cut by day; shard: None in inventory."""

    table: TableName
    day: int | None
    shard: int | None

    @classmethod
    def holding(cls, path: str) -> Partition | None:
        """The partition that a file's path within the lake names; None where it is no path of a lake's file."""
        match = _FILE.fullmatch(path)
        if match is None:
            return None
        try:
            day = day_number(date.fromisoformat(match["day"])) if match["day"] else None
        except ValueError:
            return None
        partition = cls(match["table"], day, int(match["shard"]) if match["shard"] else None)  # type: ignore[arg-type]
        return partition if partition.folder == path.rpartition("/")[0] else None

    @property
    def folder(self) -> str:
        """Its path within the lake, with hive keys."""
        keys = [] if self.day is None else [f"day={day_date(self.day).isoformat()}"]
        keys += [] if self.shard is None else [f"shard={self.shard:02d}"]
        return "/".join([self.table, *keys])


def day_date(day: int) -> date:
    """The date of a day number."""
    return EPOCH + timedelta(days=day)


def day_number(day: date) -> int:
    """Days since 1970-01-01; of a datetime, which must say its zone, the UTC day."""
    if isinstance(day, datetime):
        day = day.astimezone(UTC).date()
    return (day - EPOCH).days


def shard_of(device: str) -> int:
    """The shard of a device, the same in every process and version: CRC-32 of its UTF-8 text, modulo SHARDS."""
    return zlib.crc32(device.encode()) % SHARDS


def row_shards(devices: pa.DictionaryArray) -> npt.NDArray[np.uint8]:
    """The shard of every row. Raises pa.ArrowInvalid where a row names no device, which the schema forbids."""
    if devices.null_count:
        raise pa.ArrowInvalid("a row without device_uid")
    of_entry = np.array([shard_of(text or "") for text in devices.dictionary.to_pylist()], np.uint8)
    shards: npt.NDArray[np.uint8] = of_entry[devices.indices.to_numpy(zero_copy_only=False)]
    return shards


def row_days(table: TableName, column: dict[str, pa.Array]) -> npt.NDArray[np.int64]:
    """The day of every row of a table in DAILY: of a flow, of its end where known and not before its start.

    Of all others, of their start. column: start_time, and of flows end_time.
    """
    moment = column["start_time"].cast(pa.int64())
    if table == "flows":
        end = column["end_time"].cast(pa.int64())
        moment = pc.if_else(pc.fill_null(pc.greater_equal(end, moment), pa.scalar(value=False)), end, moment)
    days: npt.NDArray[np.int64] = moment.to_numpy(zero_copy_only=False) // DAY_US
    return days
