"""The live engine: telemetry as it comes, spooled, judged again and again, findings journalled; survives kill -9."""
