"""The three tables of records, which are rewritten as more becomes known of whose they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from relaywatch.engines import shards
from relaywatch.engines.records import Records
from relaywatch.engines.shards import ShardedTable


class Tables:
    """The three tables of records, rewritten shard by shard as identities become known."""

    def __init__(self, flows: ShardedTable, volumes: ShardedTable, signals: ShardedTable, folder: Path) -> None:
        self.flows, self.volumes, self.signals = flows, volumes, signals
        self.folder = folder
        self._generation = 0
        self.rewritten = False

    def rewrite(self, change: Callable[[Records], Records]) -> None:
        """Every table's records as `change` gives them; their devices, and so their shards, may differ."""
        self._generation += 1
        self.rewritten = True
        for name in ("flows", "volumes", "signals"):
            old: ShardedTable = getattr(self, name)
            fresh = old.emptied(f"{name}-{self._generation}", self.folder)
            for shard in range(shards.SHARDS):
                records = old.read(shard)
                if len(records):
                    fresh.add(change(records.copy()))
            fresh.seal()
            old.discard()
            setattr(self, name, fresh)
