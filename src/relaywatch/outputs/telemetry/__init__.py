"""Canonical tables written as telemetry formats, for drills and for other tools. Knows the model, nothing else."""

from relaywatch.outputs.telemetry.export import ExportFormat, export

__all__ = ["ExportFormat", "export"]
