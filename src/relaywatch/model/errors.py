"""The exception tree. Every error says what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class RelaywatchError(Exception):
    """Base of every error that a user can cause and act on."""


class SourceError(RelaywatchError):
    """A file cannot be read at all, or not past a position.

    path: the file; position: line, record or byte offset as text ("line 3"), empty for the whole file.
    """

    def __init__(self, path: Path | str, reason: str, *, position: str = "", remedy: str = "") -> None:
        self.path = str(path)
        self.position = position
        self.reason = reason
        self.remedy = remedy
        where = f"{self.path}, {position}" if position else self.path
        super().__init__(f"{where}: {reason}" + (f" {remedy}" if remedy else ""))


class SettingError(RelaywatchError):
    """A setting has an unknown name or a value outside its range."""


class ExceptionFileError(RelaywatchError):
    """A file of documented exceptions cannot be used."""


class EnrichmentError(RelaywatchError):
    """A database of autonomous systems, or a file of indicators, cannot be used."""


class ExportError(RelaywatchError):
    """The telemetry lacks what the format to be written cannot do without."""


class LakeError(RelaywatchError):
    """A folder is no lake that can be read or written, or its files are not as the lake says."""
