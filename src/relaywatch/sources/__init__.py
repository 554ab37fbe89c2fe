"""One file per telemetry format: bytes in, canonical tables out. Knows the model, nothing else."""
