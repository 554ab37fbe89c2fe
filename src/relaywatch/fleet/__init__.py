"""The judgement of a fleet on PySpark: executors sieve every device's days for cases, the driver makes the findings."""
