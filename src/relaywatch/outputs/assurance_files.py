"""The assurance report in its four forms, one file each."""

from __future__ import annotations

from pathlib import Path

from relaywatch.model.assurance import AssuranceReport
from relaywatch.outputs.assurance_pdf import write_assurance_pdf
from relaywatch.outputs.assurance_report import assurance_json, write_assurance_csv, write_assurance_html


def write_report_files(report: AssuranceReport, folder: Path) -> list[Path]:
    """Write report.html, report.pdf, report.json and report.csv into a folder that is there; returns their paths.

    Raises RelaywatchError where one cannot be written.
    """
    paths = [folder / f"report.{ending}" for ending in ("html", "pdf", "json", "csv")]
    write_assurance_html(report, paths[0])
    write_assurance_pdf(report, paths[1])
    paths[2].write_text(assurance_json(report), encoding="utf-8")
    write_assurance_csv(report, paths[3])
    return paths
