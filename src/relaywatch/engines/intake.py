"""Canonical batches in, sharded records out: everything that a hunt keeps of its input while it reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.engines.identities import Identities
from relaywatch.engines.inventory import InventoryRows
from relaywatch.engines.names import Names
from relaywatch.engines.records import FLOW, SIGNAL, VOLUME, Registry, flow_records, signal_records, volume_records
from relaywatch.engines.shards import ShardedTable
from relaywatch.engines.tables import Tables
from relaywatch.model.destination_list import DestinationList
from relaywatch.model.schemas import Direction
from relaywatch.model.tables import Batch


class Intake:
    """Takes batches in any order; memory is bounded by the apps and devices met, not by the rows."""

    def __init__(self, folder: Path, allowed: DestinationList) -> None:
        """folder: for what outgrows memory; allowed: destinations whose flows are left out of the judgement."""
        self._allowed = allowed
        self.registry = Registry()
        self.names = Names(folder)
        self.identities = Identities()
        self.tables = Tables(
            ShardedTable("flows", FLOW, folder),
            ShardedTable("volumes", VOLUME, folder),
            ShardedTable("signals", SIGNAL, folder),
            folder,
        )
        self.rows: Counter[str] = Counter()
        self.sockets_met = False
        self.inventory = InventoryRows()

    def add(self, batch: Batch) -> None:
        """Take one batch in."""
        self.rows[batch.table] += batch.rows.num_rows
        if batch.table == "flows":
            rows = without_allowed(batch.rows, self._allowed) if self._allowed else batch.rows
            self.sockets_met |= rows["start_observability"].null_count < rows.num_rows
            self.identities.add_flows(rows)
            self.tables.flows.add(flow_records(Batch("flows", rows), self.registry, self.names))
        elif batch.table == "volumes":
            self.tables.volumes.add(volume_records(batch, self.registry))
        elif batch.table == "signals":
            self.tables.signals.add(signal_records(batch, self.registry, self.names))
        else:
            self.identities.add_inventory(batch.rows)
            self.inventory.add(batch.rows)

    @property
    def flows(self) -> ShardedTable:
        """FLOW records, as they stand now."""
        return self.tables.flows

    @property
    def volumes(self) -> ShardedTable:
        """VOLUME records, as they stand now."""
        return self.tables.volumes

    @property
    def signals(self) -> ShardedTable:
        """SIGNAL records, as they stand now."""
        return self.tables.signals

    def seal(self) -> None:
        """No more batches come."""
        for table in (self.tables.flows, self.tables.volumes, self.tables.signals):
            table.seal()
        self.names.close()


def without_allowed(rows: pa.RecordBatch, allowed: DestinationList) -> pa.RecordBatch:
    """The flows without those dialled to destinations that AllowedDestinationList names.

    Accepted flows stay: whoever connects to the device is no destination.
    """
    names, addresses = rows["remote_hostname"], rows["remote_ip"]
    name_hits = [text for text in names.dictionary.to_pylist() if text and allowed.covers_name(text)]
    address_hits = [text for text in addresses.dictionary.to_pylist() if text and allowed.covers_address(text)]
    hit = pc.or_(
        pc.is_in(names.cast(pa.string()), value_set=pa.array(name_hits, pa.string())),
        pc.is_in(addresses.cast(pa.string()), value_set=pa.array(address_hits, pa.string())),
    )
    accepted = pc.equal(rows["direction_id"], int(Direction.INBOUND))
    return rows.filter(pc.or_(pc.invert(hit), accepted))
