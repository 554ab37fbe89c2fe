"""What a hunt gives back: NDJSON, terminal, HTML report, OCSF and the explanation of one finding."""
