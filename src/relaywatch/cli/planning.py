"""What a command's options say about a hunt, loaded before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from relaywatch.detection.settings import load
from relaywatch.engines.local import Hunt
from relaywatch.engines.view import Unwatched, Watcher
from relaywatch.enrichment.loading import load_enrichment
from relaywatch.governance.exceptions import Exceptions, load_exceptions


def exceptions_of(file: Path | None) -> Exceptions:
    """The exceptions of --exceptions; none without it."""
    return load_exceptions(file) if file else Exceptions(())


def planned(
    settings_file: Path | None,
    overrides: Sequence[str] | None,
    exceptions_file: Path | None = None,
    asn: Path | None = None,
    indicators: Path | None = None,
    *,
    device: str = "",
    watcher: Watcher | None = None,
) -> Hunt:
    """The hunt that these options ask for, as of now. Raises RelaywatchError where one of them cannot be used."""
    return Hunt(
        load(settings_file, overrides or ()),
        exceptions_of(exceptions_file),
        datetime.now(UTC),
        device,
        watcher or Unwatched(),
        load_enrichment(asn, indicators),
    )
