"""Telemetry kept as sorted Parquet files, parted by day and device, so that a hunt reads only what it asks for."""
