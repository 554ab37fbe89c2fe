"""Times imports of a synthetic fleet into a lake against Polars' own scan, sort and sink of the same file, in one run.

    python benchmarks/lake_import.py [--flows 10000000] [--devices 2000] [--folder FOLDER]

Every figure is of a whole process: CPU seconds, wall seconds and the peak of its resident memory, as the operating
system counts them. Polars sorts by the lake's order and writes one file with the lake's compression and row groups; it
neither checks values, nor parts by day and device, nor syncs to the disk. The fleet is then split in two, imported as
two files, and compacted; one device, and all of one column, are read back from both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from processes import Cost, run

HERE = Path(__file__).parent


def relaywatch(*arguments: object) -> list[str]:
    """A command of relaywatch as a process."""
    return [sys.executable, "-m", "relaywatch", "lake", *map(str, arguments)]


def step(name: str, *arguments: object) -> list[str]:
    """One of STEPS as a process."""
    return [sys.executable, str(Path(__file__).resolve()), "--step", name, *map(str, arguments)]


def sort_with_polars(source: str, target: str) -> None:
    """Scan, sort and sink with Polars alone."""
    import polars as pl

    order = ["device_uid", "android_package", "android_uid", "start_time"]
    texts = ["device_uid", "android_package"]
    (
        pl.scan_parquet(source)
        .with_columns(pl.col(texts).cast(pl.String))
        .sort(order, nulls_last=False)
        .sink_parquet(target, compression="lz4", row_group_size=131_072)
    )


def split(source: str, first: str, second: str) -> None:
    """Half of the row groups to each of two files."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        for target, numbers in ((first, range(0, file.num_row_groups, 2)), (second, range(1, file.num_row_groups, 2))):
            with pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as writer:
                for number in numbers:
                    writer.write_table(file.read_row_group(number))


def read_lake(folder: str, *devices: str) -> None:
    """Every flow with all columns, or those of some devices."""
    from relaywatch.lake.lake import Lake

    lake = Lake.open(Path(folder))
    rows = sum(
        batch.num_rows
        for day, shard in lake.partitions("flows")
        for batch in lake.read("flows", day, shard, devices=devices or None)
    )
    print(rows)


def scan_device(source: str, device: str) -> None:
    """The flows of one device out of the unsorted file, with Polars."""
    import polars as pl

    print(pl.scan_parquet(source).filter(pl.col("device_uid").cast(pl.String) == device).collect().height)


STEPS = {"sort": sort_with_polars, "split": split, "read": read_lake, "scan": scan_device}


def measure(folder: Path, flows: int, devices: int) -> dict[str, Cost]:
    """Costs of all steps over a fleet of `flows`."""
    run(
        [
            sys.executable,
            str(HERE / "synthetic_fleet.py"),
            str(folder),
            "--flows",
            str(flows),
            "--devices",
            str(devices),
        ]
    )
    path, first, second = folder / "flows.parquet", folder / "first.parquet", folder / "second.parquet"
    costs = {
        "Polars: scan, sort, sink": run(step("sort", path, folder / "sorted.parquet")),
        "lake import, one file": run(relaywatch("import", path, "--lake", folder / "one")),
    }
    run(step("split", path, first, second))
    run(relaywatch("import", first, "--lake", folder / "two"))
    costs["lake import, the second half"] = run(relaywatch("import", second, "--lake", folder / "two"))
    costs["lake compact, two imports"] = run(relaywatch("compact", "--lake", folder / "two"))
    costs["read the whole lake"] = run(step("read", folder / "two"))
    costs["one device of the lake"] = run(step("read", folder / "two", "phone-000007"))
    costs["one device of the file, Polars"] = run(step("scan", path, "phone-000007"))
    sizes = {name: _size(folder / name) / 1e6 for name in ("flows.parquet", "sorted.parquet", "one", "two")}
    print(", ".join(f"{name} {size:,.0f} MB" for name, size in sizes.items()))
    return costs


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*.parquet")))


def main() -> None:
    """Run the comparison, or one step of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, default=10_000_000)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, help="where to work, in place of the system's folder for such files")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step](*options.arguments)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        costs = measure(Path(folder), options.flows, options.devices)
    print(f"\n{options.flows:,} flows, {options.devices:,} devices\n")
    print("| process | CPU s | wall s | peak GiB | flows per wall s |")
    print("|---|---|---|---|---|")
    for name, cost in costs.items():
        rows = options.flows // 2 if "half" in name else options.flows
        print(f"| {name} | {cost.cpu_s:.1f} | {cost.wall_s:.1f} | {cost.peak_gib:.2f} | {rows / cost.wall_s:,.0f} |")


if __name__ == "__main__":
    main()
