"""The vendored ATT&CK objects: what the detection implements, and what each log-source row asks for."""
