"""Host names under domains, label by label: example.com covers a.example.com and not badexample.com."""

from __future__ import annotations

from collections.abc import Iterator

from relaywatch.model.destination_list import LONGEST_HOSTNAME


def domains_above(hostname: str) -> Iterator[str]:
    """Yield the name itself and each domain above it, the longest first; nothing for a text too long to be a name."""
    if len(hostname) > LONGEST_HOSTNAME:
        return
    labels = hostname.lower().rstrip(".").split(".")
    for start in range(len(labels)):
        yield ".".join(labels[start:])
