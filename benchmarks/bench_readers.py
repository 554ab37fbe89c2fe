"""Times every line-based reader beside Polars and DuckDB parsing the same file, on one core, in one run.

    python benchmarks/bench_readers.py [--records N] [--only NAME ...] [--json FILE]

Each figure is of a child process: the CPU seconds of the best of three passes without the imports, and the peak memory
of the whole process. Polars and DuckDB only split the file and type its columns, or extract the fields of a section's
lines by one pattern; they are the floor, not an equal.
Bar, either of: 150,000 records per CPU second, or half the rate of Polars or DuckDB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from processes import run

RECORDS: Final = 200_000
FEWEST_PER_S: Final = 150_000
LEAST_SHARE: Final = 0.5
PASSES: Final = 3
CONTEXT: Final = {"dhcp-leases", "inventory-csv", "batterystats"}
"""Small context formats may be read row by row: the bar does not count for them."""
DAMAGED: Final = {"zeek-json, 1 in 50 cut", "ndjson, 1 in 50 cut", "zeek, headers between"}
"""Damage costs more: shown without a bar."""

NAMES: Final = """
from reader_cases import CASES
print(*CASES)
"""
WRITE: Final = """
import sys
from pathlib import Path
from reader_cases import CASES
CASES[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
"""
READ: Final = """
import json, sys, time
from pathlib import Path
import pyarrow as pa
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading
pa.set_cpu_count(1)
found, best = discover([Path(sys.argv[1])]), 1e9
for _ in range(int(sys.argv[2])):
    reading = Reading(Quarantine())
    began = time.process_time()
    rows = sum(part.rows.num_rows for unit in found.units for part in unit.read(reading))
    best = min(best, time.process_time() - began)
names = sorted({unit.reader_name for unit in found.units})
print(json.dumps({"readers": names, "records": reading.tally.records, "rows": rows, "cpu_s": best,
                  "quarantined": reading.quarantine.total, "unused": dict(reading.tally.unused)}))
"""
POLARS: Final = """
import json, sys, time
from pathlib import Path
import polars as pl
from reader_cases import PATTERNS
def extract(path, pattern, names):
    lines = pl.scan_csv(path, separator="\\x1f", has_header=False, quote_char=None, new_columns=["line"])
    fields = lines.select(pl.col("line").str.extract_groups(pattern).struct.rename_fields(list(names))).unnest("line")
    fields.filter(pl.col(names[0]).is_not_null()).select(pl.all().count()).collect()
def parse(path):
    if sys.argv[3] in PATTERNS:
        return extract(path, *PATTERNS[sys.argv[3]])
    head = path.open("rb").read(4096)
    if head.startswith(b"{"):
        frame = pl.scan_ndjson(path, infer_schema_length=1000)
    elif head.startswith(b"#"):
        frame = pl.scan_csv(path, separator="\\t", has_header=False, comment_prefix="#", null_values=["-"])
    else:
        separator = " " if head.count(b" ") > head.count(b",") else ","
        frame = pl.scan_csv(path, separator=separator, infer_schema_length=1000, quote_char=None)
    frame.select(pl.all().count()).collect()
best = 1e9
for _ in range(int(sys.argv[2])):
    began = time.process_time()
    for path in sorted(Path(sys.argv[1]).rglob("*")):
        if path.is_file():
            parse(path)
    best = min(best, time.process_time() - began)
print(json.dumps({"cpu_s": best}))
"""
DUCKDB: Final = """
import json, sys, time
from pathlib import Path
import duckdb
from reader_cases import PATTERNS
def extract(connection, name, pattern, names):
    source = f"read_csv('{name}', delim='\\x1f', header=false, quote='', escape='', columns={{'line': 'VARCHAR'}})"
    fields = f"regexp_extract(line, ?, {list(names)}) as fields"
    found = f"select {fields} from {source}"
    connection.execute(
        f"create table parsed as select unnest(fields) from ({found}) where fields.{names[0]} <> ''", [pattern]
    )
def parse(path):
    connection = duckdb.connect(config={"threads": 1})
    if sys.argv[3] in PATTERNS:
        return extract(connection, str(path).replace("'", "''"), *PATTERNS[sys.argv[3]])
    head, name = path.open("rb").read(4096), str(path).replace("'", "''")
    if head.startswith(b"{"):
        source = f"read_json('{name}', format='newline_delimited', maximum_object_size=67108864)"
    elif head.startswith(b"#"):
        source = f"read_csv('{name}', delim='\\t', header=false, comment='#', quote='', nullstr='-')"
    else:
        separator = " " if head.count(b" ") > head.count(b",") else ","
        source = f"read_csv('{name}', delim='{separator}', header=true, quote='')"
    connection.execute(f"create table parsed as select * from {source}")
best = 1e9
for _ in range(int(sys.argv[2])):
    began = time.process_time()
    for path in sorted(Path(sys.argv[1]).rglob("*")):
        if path.is_file():
            parse(path)
    best = min(best, time.process_time() - began)
print(json.dumps({"cpu_s": best}))
"""


def measured(name: str, records: int) -> dict[str, Any]:
    """One format's figures; without rates where no reader knows the file."""
    with tempfile.TemporaryDirectory() as folder:
        child(WRITE, name, str(records), folder)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        ours = child(READ, folder, str(PASSES))
        floors = {
            tool: child(code, folder, str(PASSES), name) for tool, code in (("polars", POLARS), ("duckdb", DUCKDB))
        }
    figures = {"format": name, "mib": size / 2**20, **ours}
    if not ours.get("records"):
        return figures
    figures["records_per_cpu_s"] = ours["records"] / ours["cpu_s"]
    shares = []
    for tool, floor in floors.items():
        known = "cpu_s" in floor
        figures[f"{tool}_records_per_cpu_s"] = ours["records"] / floor["cpu_s"] if known else None
        figures[f"share_of_{tool}"] = floor["cpu_s"] / ours["cpu_s"] if known else None
        shares += [figures[f"share_of_{tool}"]] if known else []
    figures["passes"] = figures["records_per_cpu_s"] >= FEWEST_PER_S or max(shares, default=0.0) >= LEAST_SHARE
    return figures


def child(code: str, *arguments: str) -> dict[str, Any]:
    """What the code printed as JSON, with its peak memory; empty where it failed or printed nothing."""
    cost = run([sys.executable, "-c", code, *arguments])
    line = cost.output.strip().rpartition("\n")[2]
    return {**json.loads(line), "peak_gib": cost.peak_gib} if line.startswith("{") else {}


def row(figures: dict[str, Any]) -> str:
    """One line of the table."""
    if "passes" not in figures:
        return f"| {figures['format']} | no reader | | | | | | | | |"
    rates = [figures["records_per_cpu_s"], figures["polars_records_per_cpu_s"], figures["duckdb_records_per_cpu_s"]]
    shown = ["-" if rate is None else f"{rate:,.0f}" for rate in rates]
    shares = [figures["share_of_polars"], figures["share_of_duckdb"]]
    shown += ["-" if share is None else f"{share:.2f}" for share in shares]
    verdict = "pass" if figures["passes"] else "below"
    verdict = f"{verdict} (context)" if figures["format"] in CONTEXT else verdict
    verdict = "none" if figures["format"] in DAMAGED else verdict
    return (
        f"| {figures['format']} | {figures['records']:,} | {figures['mib']:,.0f} | {' | '.join(shown)} "
        f"| {figures['peak_gib']:.2f} | {verdict} |"
    )


def main() -> None:
    """Measure the formats and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--records", type=int, default=RECORDS)
    options.add_argument("--only", nargs="*", help="formats, by name")
    options.add_argument("--json", type=Path, help="write the figures to this file")
    given = options.parse_args()
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    os.environ |= {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    names = run([sys.executable, "-c", NAMES]).output.split()
    print("| format | records | MiB | ours/s | Polars/s | DuckDB/s | of Polars | of DuckDB | peak GiB | bar |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    found = []
    for name in given.only or names:
        found.append(measured(name, given.records))
        print(row(found[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    below = [
        figures["format"]
        for figures in found
        if not figures.get("passes", True) and figures["format"] not in CONTEXT | DAMAGED
    ]
    sys.exit(f"below the bar: {', '.join(below)}" if below else 0)


if __name__ == "__main__":
    main()
