"""What is known beside the telemetry: owners of addresses, look-up services, proxyware. Explains; never convicts."""
