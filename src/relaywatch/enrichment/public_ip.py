"""Services that tell a caller its own public address, by host name. A name explains; ordinary apps use them too."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from relaywatch.enrichment.hostnames import domains_above


@cache
def _services() -> frozenset[str]:
    text = resources.files(__package__).joinpath("public_ip.toml").read_text(encoding="utf-8")
    return frozenset(service["domain"] for service in tomllib.loads(text)["service"])


def is_public_ip_service(hostname: str) -> bool:
    """Whether the host name is a public-IP look-up service of public_ip.toml, or under one."""
    return any(domain in _services() for domain in domains_above(hostname))
