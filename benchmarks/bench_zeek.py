"""Times the Zeek reader and a whole hunt over a generated conn.log, beside Polars parsing the same file, in one run.

    python benchmarks/bench_zeek.py [LINES]

Every figure is of a whole process. Polars only splits and types the columns; it is the floor, not an equal.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import run

HERE = Path(__file__).parent
FIELDS = (
    *("ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "service", "duration", "orig_bytes"),
    *("resp_bytes", "conn_state", "local_orig", "local_resp", "missed_bytes", "history", "orig_pkts", "orig_ip_bytes"),
    *("resp_pkts", "resp_ip_bytes", "tunnel_parents"),
)
POLARS = """
import sys, polars as pl
print(pl.scan_csv(sys.argv[1], separator="\\t", has_header=False, comment_prefix="#", null_values=["-"])
      .select(pl.all().count()).collect(engine="streaming").height)
"""
READER = """
import sys
from pathlib import Path
from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading
reading = Reading(Quarantine())
units = discover([Path(sys.argv[1])]).units
print(sum(batch.rows.num_rows for unit in units for batch in unit.read(reading)), reading.quarantine.total)
"""


def write_log(path: Path, lines: int) -> None:
    """Write a conn.log of 500 phones' connections, in chunks."""
    rng = np.random.default_rng(7)
    with path.open("w", encoding="ascii") as file:
        file.write("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n")
        file.write("#fields\t" + "\t".join(FIELDS) + "\n")
        for first in range(0, lines, 200_000):
            count = min(200_000, lines - first)
            phone, remote = rng.integers(0, 500, count), rng.integers(0, 60_000, count)
            start = 1_767_225_600 + np.sort(rng.uniform(0, 3_600, count))
            sent, received = rng.lognormal(6.8, 1, count).astype(int), rng.lognormal(9, 1.8, count).astype(int)
            ports = rng.integers(32_768, 60_999, count)
            file.writelines(
                f"{start[k]:.6f}\tC{first + k:x}\t10.0.{phone[k] // 250}.{phone[k] % 250}\t{ports[k]}\t"
                f"198.51.{remote[k] // 250}.{remote[k] % 250}\t443\ttcp\tssl\t1.5\t{sent[k]}\t{received[k]}\t"
                f"SF\tT\tF\t0\tShADadFf\t9\t{sent[k] + 480}\t11\t{received[k] + 560}\t-\n"
                for k in range(count)
            )


def main() -> None:
    """Run the three and print them."""
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conn.log"
        write_log(path, lines)
        commands = {
            "Polars, parse only": [sys.executable, "-c", POLARS, str(path)],
            "our reader": [sys.executable, "-c", READER, str(path)],
            "hunt": [sys.executable, "-m", "relaywatch", "hunt", "--json", str(path)],
        }
        costs = {name: run(command) for name, command in commands.items()}
        size = path.stat().st_size / 2**20
    floor = costs["Polars, parse only"].cpu_s
    print(f"conn.log, {lines:,} lines, {size:,.0f} MiB")
    print("| process | CPU s | wall s | peak GiB | lines per CPU s | rate over Polars' |")
    print("|---|---|---|---|---|---|")
    for name, cost in costs.items():
        print(
            f"| {name} | {cost.cpu_s:.1f} | {cost.wall_s:.1f} | {cost.peak_gib:.2f} | {lines / cost.cpu_s:,.0f} "
            f"| {floor / cost.cpu_s:.2f} |"
        )


if __name__ == "__main__":
    main()
