"""AndroidQF's packages.json: the packages of a phone with uid, installer and signing certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import column, text
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.reading import Head, Reading

_FILE: Final = pa.struct({"certificate": pa.struct({"Sha256": pa.string()}), "sha256": pa.string()})
SCHEMA: Final = pa.schema(
    {
        "name": pa.string(),
        "installer": pa.string(),
        "uid": pa.int64(),
        "disabled": pa.bool_(),
        "system": pa.bool_(),
        "third_party": pa.bool_(),
        "files": pa.list_(_FILE),
    }
)
_DIGEST: Final = r"^[0-9a-fA-F]{64}$"


class AndroidQfPackages:
    """One packages.json. The device is named by --device, or by the acquisition that it is in."""

    name: ClassVar[str] = "androidqf-packages"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record with a package's name, its files and its installer."""
        return any({"name", "files", "installer", "uid"} <= record.keys() for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """One inventory row a package."""
        device = reading.device or path.name.partition(".")[0]
        for frame in frames(stream, path, SCHEMA, reading):
            sound = frame["name"].is_not_null() & frame["uid"].is_between(0, 2**31 - 1).fill_null(value=True)
            for position in frame.filter(~sound)["position"].to_list():
                reading.quarantine.add(str(path), f"record {position}", "its name is missing, or its uid is none")
            kept = frame.filter(sound)
            found = [batch("inventory", _columns(kept, device, path), length=kept.height)]
            reading.tally.gave(found)
            yield from found


def _columns(frame: pl.DataFrame, device: str, path: Path) -> dict[str, Any]:
    digests = pl.col("files").list.eval(
        pl.element().struct.field("certificate").struct.field("Sha256").drop_nulls().unique()
    )
    digest = digests.list.first()
    flags = [pl.when(pl.col(name)).then(pl.lit(name)) for name in ("system", "third_party", "disabled")]
    derived = frame.select(
        pl.when((digests.list.len() == 1) & digest.str.contains(_DIGEST))
        .then(digest.str.to_lowercase())
        .alias("digest"),
        pl.when(~pl.col("installer").is_in(["null", ""])).then(pl.col("installer")).alias("installer"),
        pl.concat_str(flags, separator=" ", ignore_nulls=True).alias("detail"),
    )
    return {
        "device_uid": device,
        "android_package": text(frame["name"]),
        "android_uid": column(frame["uid"]),
        "user_id": column(frame["uid"] // 100_000),
        "signing_digest": text(derived["digest"]),
        "installer": text(derived["installer"]),
        "detail": text(derived["detail"]),
        "source": str(path),
        "position": column(frame["position"]),
        "clock": "device",
    }
