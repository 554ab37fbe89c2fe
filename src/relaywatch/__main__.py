"""`python -m relaywatch`: the same commands as `relaywatch`."""

from relaywatch.cli import main

main()
