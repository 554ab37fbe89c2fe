"""The program's start, `relaywatch` and `python -m relaywatch`: imports nothing that an interrupt could tear."""

import sys


def main() -> None:
    """Run the command line; an interrupt while it is still being loaded ends it as any later one does."""
    try:
        from relaywatch.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("relaywatch: interrupted; nothing was kept\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
