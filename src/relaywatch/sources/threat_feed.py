"""What the feeds of mobile threat products have in common: one record, one verdict or one device's description.

Another product's verdict corroborates and names devices and users; it is never evidence of a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa

from relaywatch.model.schemas import IdentifierKind, Observability, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.context_feed import DamagedRecord, known_id, read_feed
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.device_names import UNZONED_S, host_name, imei
from relaywatch.sources.reading import Reading

SKEW_BOUND_S: Final = 60.0
"""Products stamp by their server or the phone's agent and do not say which; a minute covers both under NTP."""
DETAIL_CHARACTERS: Final = 500
OF_ANOTHER_KIND: Final = "an event that is no verdict and describes no device"


class Verdicts:
    """The rows of one product's feed."""

    __slots__ = ("_given", "_product", "position", "prefix", "rows")

    def __init__(self, rows: ContextRows, product: str, prefix: str, given: str) -> None:
        self.rows = rows
        self.prefix = prefix
        self.position = 0
        self._product = product
        self._given = given

    def device(self, product_id: object, **values: Any) -> str:  # noqa: ANN401 - any column
        """The device by its id with the product: its name in the tables, stated as identifier; raises without an id."""
        named = known_id(product_id)
        if named is None:
            raise DamagedRecord("names no device")
        uid = self._given or f"{self.prefix}:{named}"
        self.rows.name(self.position, uid, IdentifierKind.SENSOR_ID, f"{self.prefix}:{named}", **values)
        return uid

    def names(self, uid: str, *, mdm: object = None, host: object = None, number: object = None) -> None:
        """Further names of the device: id in the connected MDM (whichever that is), host name, IMEI."""
        managed = known_id(mdm)
        self.rows.name(self.position, uid, IdentifierKind.MDM_ID, f"mdm:{managed}" if managed else None)
        self.rows.name(self.position, uid, IdentifierKind.HOSTNAME, host_name(host))
        self.rows.name(self.position, uid, IdentifierKind.IMEI, imei(number))

    def describe(self, uid: str, **values: Any) -> None:  # noqa: ANN401 - any column
        """What the record says of the device or, with android_package, of an app on it."""
        if any(value is not None for value in values.values()):
            self.rows.add("inventory", self.position, uid, **values)

    def verdict(
        self,
        uid: str,
        at: int,
        what: str,
        *,
        package: str | None = None,
        seen: Observability = Observability.OBSERVED,
        zoned: bool = True,
    ) -> None:
        """The product's judgement of the device or of an app on it. seen: INFERRED where the time is only near."""
        bound: dict[str, Any] = {} if zoned else {"clock_skew_bound_s": UNZONED_S}
        self.rows.add(
            "signals",
            self.position,
            uid,
            kind=int(SignalKind.THREAT_VERDICT),
            start_time=at,
            observability=int(seen),
            android_package=package,
            detail=f"{self._product}: {what}"[:DETAIL_CHARACTERS],
            **bound,
        )


def read_verdicts(
    path: Path,
    stream: BinaryIO,
    reading: Reading,
    schema: pa.Schema,
    verdicts: Verdicts,
    take: Callable[[Mapping[str, Any], Verdicts], str | None],
) -> Iterator[Batch]:
    """As context_feed.read_feed, for one product."""

    def each(record: Mapping[str, Any]) -> str | None:
        verdicts.position = record["position"]
        return take(record, verdicts)

    return read_feed(path, stream, reading, schema, verdicts.rows, each)
