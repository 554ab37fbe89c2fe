"""A kernel's state as Arrow tables, versioned: what a stream keeps between two of its pieces.

Two forms of the same tables. A snapshot is one value with every record in it: small states, moved between processes. A
checkpoint is a folder of Arrow files beside the kernel's files of blocks, to which it refers: large states, on one
machine. Columns that a later version adds get the value of an empty entry; what cannot be read so, an older reader
refuses by the version.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from relaywatch.detection.columns import VolumeColumns
from relaywatch.detection.episode import Found
from relaywatch.engines.cases import Case, case_again, with_signals
from relaywatch.engines.judging import Told
from relaywatch.engines.kernel import Counts, Kernel, Said
from relaywatch.engines.open_days import SLOT_COLUMNS
from relaywatch.engines.pairs import Checkpoint, PairStore
from relaywatch.engines.records import FLOW, SIGNAL, Records
from relaywatch.model.errors import RelaywatchError

VERSION: Final = 1
AT_ONCE: Final = 65_536
"""Rows of a batch of a checkpoint's files."""
SYNCED_AT: Final = 8 << 20
"""Bytes after which a checkpoint's file is synced."""
_KEY: Final = b"relaywatch.state"
Tables = dict[str, pa.Table]
HeldCase = tuple[str, Told, Case]
"""Kind, what is told of its day, and the case."""


def snapshot(kernel: Kernel) -> bytes:
    """The whole state as one Arrow IPC stream of (table, content) rows, compressed."""
    tables = {
        **_common(kernel),
        **_cases(_held_cases(kernel)),
        "flows": _held(kernel.open.flows, kernel),
        "volumes": _held(kernel.open.volumes, kernel),
    }
    contents = [_encoded(table) for table in tables.values()]
    return _encoded(pa.table({"table": list(tables), "content": pa.array(contents, pa.large_binary())}), "zstd")


def restore(kernel: Kernel, state: bytes) -> None:
    """Put a snapshot into a fresh kernel. Raises RelaywatchError where its version is not this one or one before it."""
    outer = _decoded(state)
    tables = {
        name: _decoded(content)
        for name, content in zip(outer["table"].to_pylist(), outer["content"].to_pylist(), strict=True)
    }
    _restore_common(kernel, tables)
    for store, name in ((kernel.open.flows, "flows"), (kernel.open.volumes, "volumes")):
        records = _records(tables[name], store.dtype)
        store.append(_numpy(tables[name], "slot"), records)
    _attach_cases(kernel, tables)


@dataclass(frozen=True, slots=True)
class Taken:
    """A kernel's state as it was at one time: it can be written while the kernel goes on.

    cases: they do not change once they are held, and become tables only as they are written.
    """

    tables: Tables
    cases: tuple[HeldCase, ...]
    stores: tuple[PairStore, ...]

    def write(self, folder: Path) -> None:
        """Put it into an empty folder, and the records' blocks on disk; the kernel's files of blocks belong to it."""
        for store in self.stores:
            store.sync()
        for name, table in (*self.tables.items(), *_cases(self.cases).items()):
            with (
                closing(_SteadyFile(folder / f"{name}.arrow")) as file,
                pa.PythonFile(file, "w") as sink,
                pa.ipc.new_file(sink, _marked(table).schema) as out,
            ):
                out.write_table(_marked(table), AT_ONCE)


class _SteadyFile:
    """A new file that goes to disk as it is written: what others sync meanwhile need not wait for all of it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._waiting = 0

    @property
    def closed(self) -> bool:
        """Whether it takes no more, as Arrow asks for it."""
        return self._file.closed

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            written = self._file.write(rest[:SYNCED_AT])
            rest = rest[written:]
            self._waiting += written
            if self._waiting >= SYNCED_AT:
                os.fdatasync(self._file.fileno())
                self._waiting = 0
        return size

    def flush(self) -> None:
        """Nothing waits in memory."""

    def close(self) -> None:
        """No more is written."""
        self._file.close()


def taken(kernel: Kernel) -> Taken:
    """The kernel's state as it is, for a checkpoint."""
    tables = _common(kernel)
    for name, store in (("flows", kernel.open.flows), ("volumes", kernel.open.volumes)):
        held = store.checkpoint()
        width = store.dtype.itemsize
        latest = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(width), len(held.latest), [None, pa.py_buffer(held.latest.view(np.uint8))]
        )
        tables[name] = pa.table(held.slots)
        tables[f"{name}_latest"] = pa.table({"record": latest})
        tables[f"{name}_blocks"] = pa.table({"before": held.before})
    return Taken(tables, tuple(_held_cases(kernel)), (kernel.open.flows, kernel.open.volumes))


def load(kernel: Kernel, folder: Path) -> None:
    """Put a checkpoint into a fresh kernel over the same files. Raises RelaywatchError as restore does."""
    tables = {}
    for path in sorted(folder.glob("*.arrow")):
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            tables[path.stem] = _checked(reader.read_all(), str(path))
    _restore_common(kernel, tables)
    for name, store in (("flows", kernel.open.flows), ("volumes", kernel.open.volumes)):
        slots = {key: _numpy(tables[name], key) for key in ("slot", "fill", "head", "total")}
        latest = tables[f"{name}_latest"]["record"].combine_chunks()
        words = np.frombuffer(latest.buffers()[1] or b"", store.dtype)[: len(latest)]
        store.restore(Checkpoint(slots, words, _numpy(tables[f"{name}_blocks"], "before")))
    _attach_cases(kernel, tables)


class StoredKernel(Kernel):
    """A kernel that keeps its state in checkpoints."""

    def taken(self) -> Taken:
        """As the function of that name."""
        return taken(self)

    def load(self, folder: Path) -> None:
        """As the function of that name."""
        load(self, folder)


def _common(kernel: Kernel) -> Tables:
    """The tables that both forms share."""
    registry, days = kernel.registry, kernel.open.state()
    keys, codes = registry.codes()
    signals = [signals for held in kernel.signals.values() for signals in held]
    counts = {name: [value] for name, value in asdict(kernel.counts).items()}
    met = {day: kernel.open.apps(day) for day in kernel.open.met}
    return {
        "counts": pa.table({**counts, "forgotten": [kernel.open.forgotten]}),
        "devices": pa.table({"name": pa.array(registry.devices, pa.string()), **days["devices"]}),
        "sources": pa.table(
            {
                "name": pa.array(registry.sources, pa.string()),
                "format": pa.array([kernel.formats.get(name, "") for name in registry.sources], pa.string()),
            }
        ),
        "packages": pa.table({"name": pa.array(registry.packages, pa.string())}),
        "uids": pa.table({"uid": pa.array(registry.uids, pa.int64())}),
        "apps": pa.table({"key": keys, "code": codes}),
        "slots": pa.table(days["slots"]),
        "met": pa.table(
            {
                "day": np.repeat(np.array(list(met), np.int64), [len(apps) for apps in met.values()]),
                "app": np.concatenate([np.empty(0, np.int64), *met.values()]),
            }
        ),
        "signals": _typed(np.concatenate([np.empty(0, SIGNAL), *signals])),
        "texts": kernel.texts.table(),
        "contacts": kernel.contacted.table().to_arrow(),
        "inventory": kernel.inventory.table(),
        "said": _rows_of(
            {"app": pa.int64(), "day": pa.int64(), "bar": pa.float64(), "finding": pa.string()},
            [(*key, said.bar, said.line) for key, said in kernel.said.items() if said.line is not None],
        ),
    }


def _restore_common(kernel: Kernel, tables: Tables) -> None:
    """All but records and cases."""
    counts = tables["counts"].to_pylist()[0]
    kernel.open.forgotten = counts.pop("forgotten")
    kernel.counts = Counts(**counts)
    names = {kind: tables[kind]["name"].to_pylist() for kind in ("devices", "sources", "packages")}
    apps = tables["apps"]
    kernel.registry.restore(names, tables["uids"]["uid"].to_pylist(), _numpy(apps, "key"), _numpy(apps, "code"))
    kernel.formats.update(zip(names["sources"], tables["sources"]["format"].to_pylist(), strict=True))
    empty = {"slot": 0, **SLOT_COLUMNS}
    slots = {name: _numpy(tables["slots"], name, empty[name]) for name in empty}
    kernel.open.restore(slots, {name: _numpy(tables["devices"], name) for name in ("high", "closed")})
    met_day, met_app = _numpy(tables["met"], "day"), _numpy(tables["met"], "app")
    for day in np.unique(met_day).tolist():
        apps = met_app[met_day == day]
        kernel.open.met[day].upto(int(apps.max()) + 1)[apps] = 1
    signals = _records(tables["signals"], SIGNAL)
    for device in np.unique(signals["device"]).tolist():
        kernel.signals[device] = [signals[signals["device"] == device]]
    kernel.texts.restore(tables["texts"])
    contacts = pl.from_arrow(tables["contacts"])
    assert isinstance(contacts, pl.DataFrame)  # noqa: S101  from_arrow of a Table is a frame; for the type checker
    kernel.contacted.restore(contacts)
    for batch in tables["inventory"].to_batches():
        kernel.inventory.add(batch)


_CASE_VOLUMES: Final = {
    "case": pa.int64(),
    "flow": pa.int64(),
    **dict.fromkeys(("time", "bytes_out", "bytes_in"), pa.float64()),
}
_CASE: Final = {
    "kind": pa.string(),
    "app": pa.int64(),
    "day": pa.int64(),
    "origin": pa.int64(),
    "pairs": pa.float64(),
    "volumes": pa.float64(),
    "stretches": pa.int64(),
    "evidence": pa.list_(pa.float64()),
    "begins": pa.list_(pa.int64()),
    "ends": pa.list_(pa.int64()),
}
"""A case of full stretches (told: the strongest; totals: the first of totals only) or of a whole device (whole)."""


def _held_cases(kernel: Kernel) -> Iterator[HeldCase]:
    """Every case that the kernel holds for good, as kind, what is told of its day, and the case."""
    for told in kernel.told.values():
        if told.strongest is not None:
            yield "told", told, told.strongest
        if told.totals is not None:
            yield "totals", told, told.totals
    for case in kernel.whole.values():
        yield "whole", Told(case.stretches, [case.log_evidence], list(case.spans)), case


def _cases(held: Iterable[HeldCase]) -> Tables:
    rows, flows = [], [np.empty(0, FLOW)]
    volumes = [_rows_of(_CASE_VOLUMES, [])]
    for number, (kind, told, case) in enumerate(held):
        begins, ends = ([span[k] for span in told.spans] for k in (0, 1))
        known = case.evidence or (None, None)
        rows.append((kind, case.app, case.day, case.origin, *known, told.stretches, told.evidence, begins, ends))
        flows.append(case.flows)
        columns = {name: getattr(case.volumes, name) for name in VolumeColumns._fields[1:]}
        volumes.append(pa.table({"case": np.full(len(case.volumes.flow), number), **columns}))
    lengths = [len(part) for part in flows[1:]]
    numbers = np.repeat(np.arange(len(rows)), lengths)
    return {
        "cases": _rows_of(_CASE, rows),
        "case_flows": _typed(np.concatenate(flows)).append_column("case", pa.array(numbers, pa.int64())),
        "case_volumes": pa.concat_tables(volumes),
    }


def _attach_cases(kernel: Kernel, tables: Tables) -> None:
    """Cases, what was said of them, and nothing yet of what goes on: it is judged anew."""
    flows, of_flows = _records(tables["case_flows"], FLOW), _numpy(tables["case_flows"], "case")
    volumes, of_volumes = tables["case_volumes"], _numpy(tables["case_volumes"], "case")
    ranks = kernel.registry.source_ranks()
    for number, row in enumerate(tables["cases"].to_pylist()):
        own = volumes.filter(pa.array(of_volumes == number))
        columns = [_numpy(own, name) for name in VolumeColumns._fields[1:]]
        spans = list(zip(row["begins"], row["ends"], strict=True))
        kept = Case(
            app=row["app"],
            day=row["day"],
            origin=row["origin"],
            flows=flows[of_flows == number],
            volumes=VolumeColumns(np.array([0, own.num_rows], np.int64), *columns),
            signals=np.empty(0, SIGNAL),
            episode=None,
            totals=None,
            evidence=None if row["pairs"] is None else Found(row["pairs"], row["volumes"]),
        )
        kept = case_again(kept, kernel.plan.settings, kernel.plan.tables)
        case = with_signals(kept, kernel.signals_of(kept.flows["device"][:1]), ranks)
        _put_back(kernel, row["kind"], case, Told(row["stretches"], row["evidence"], spans))
    for row in tables["said"].to_pylist():
        kernel.said[row["app"], row["day"]] = Said(None, row["bar"], row["finding"])
    kernel.open.look_anew()


def _put_back(kernel: Kernel, kind: str, case: Case, told: Told) -> None:
    if kind == "whole":
        # Its evidence was that of its day already.
        episode = None if case.episode is None else replace(case.episode, log_evidence=told.evidence[0])
        whole = replace(case, episode=episode, stretches=told.stretches, spans=tuple(told.spans))
        kernel.whole[case.app, case.day] = whole
        return
    held = kernel.told.setdefault((case.app, case.day), told)
    if kind == "told":
        held.strongest = case
    else:
        held.totals = case


def _typed(records: Records) -> pa.Table:
    """Records as a table, a column a field."""
    names = [name for name in records.dtype.names or () if name != "spare"]
    return pa.table({name: np.ascontiguousarray(records[name]) for name in names})


def _records(table: pa.Table, dtype: np.dtype[np.void]) -> Records:
    out = np.zeros(table.num_rows, dtype)
    for name in (name for name in dtype.names or () if name != "spare"):
        out[name] = _numpy(table, name)
    return out


def _held(store: PairStore, kernel: Kernel) -> pa.Table:
    """Every record of a store, with its slot."""
    records, slots = store.read(np.flatnonzero(store.totals(np.arange(kernel.open.upto))))
    return _typed(records).append_column("slot", pa.array(slots))


def _rows_of(schema: Mapping[str, pa.DataType], rows: Sequence[Sequence[Any]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.values(), strict=True)]
    return pa.table(arrays, names=list(schema))


def _numpy(table: pa.Table, name: str, missing: int | None = None) -> npt.NDArray[Any]:
    """A column as an array; missing: what stands for a column that an earlier version did not have."""
    if missing is not None and name not in table.column_names:
        return np.full(table.num_rows, missing, np.int64)
    return np.asarray(table[name].to_numpy())


def _marked(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({_KEY: str(VERSION)})


def _checked(table: pa.Table, where: str) -> pa.Table:
    version = (table.schema.metadata or {}).get(_KEY, b"").decode()
    if not version.isdigit() or int(version) > VERSION:
        raise RelaywatchError(
            f"{where}: state of version {version or 'unknown'}; this relaywatch reads up to {VERSION}. Use the "
            "relaywatch that wrote it, or a later one."
        )
    return table


def _encoded(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _marked(table).schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
        out.write_table(_marked(table))
    return bytes(sink.getvalue())


def _decoded(content: bytes) -> pa.Table:
    try:
        with pa.ipc.open_stream(content) as reader:
            return _checked(reader.read_all(), "state")
    except (pa.ArrowInvalid, OSError) as fault:
        raise RelaywatchError(f"state: no Arrow stream ({fault}). Restore it from an earlier checkpoint.") from fault
