"""Writes canonical batches in a telemetry format that relaywatch, and others, can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.pcapdroid_list import write_pcapdroid_csv
from relaywatch.outputs.telemetry.pcapdroid_pcap import write_pcapdroid_pcap
from relaywatch.outputs.telemetry.plain_tables import write_ndjson, write_parquet
from relaywatch.outputs.telemetry.zeek_logs import write_zeek


class ExportFormat(StrEnum):
    """A format, with what it carries."""

    PARQUET = "parquet"
    """The canonical tables, everything."""
    NDJSON = "ndjson"
    """The canonical tables as JSON lines, everything."""
    PCAPDROID_CSV = "pcapdroid-csv"
    """PCAPdroid's connection list, captured as root: app and IP bytes; not who opened a connection, no volumes."""
    PCAPDROID_PCAP = "pcapdroid-pcap"
    """PCAPdroid's capture with app trailer: synthetic packets that add up to each flow's volumes."""
    ZEEK = "zeek"
    """conn.log and dns.log as a sensor beside the devices would write them: no apps, no inferred names of inbound."""


_WRITERS: Final[dict[ExportFormat, Callable[[Iterable[Batch], Path], list[Path]]]] = {
    ExportFormat.PARQUET: write_parquet,
    ExportFormat.NDJSON: write_ndjson,
    ExportFormat.PCAPDROID_CSV: write_pcapdroid_csv,
    ExportFormat.PCAPDROID_PCAP: write_pcapdroid_pcap,
    ExportFormat.ZEEK: write_zeek,
}


def export(batches: Iterable[Batch], fmt: ExportFormat, folder: Path) -> list[Path]:
    """Write the batches into `folder` (made if missing; files of the same names are replaced); returns the files.

    What the format cannot carry is left out. Raises OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _WRITERS[fmt](batches, folder)
