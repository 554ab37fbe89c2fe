"""A reverse agent over SSH in Python (asyncssh): the gateway's port is forwarded, the phone speaks SOCKS itself."""

from __future__ import annotations

import asyncio
import struct
import sys
from contextlib import suppress
from typing import Any, Final

import asyncssh

from relay_range.carry import Ends, dial, join, play
from relay_range.gateway import SOCKS_PORT, socks_request

SSH_PORT: Final = 2022
KEEP_ALIVE_S: Final = 15


class Open(asyncssh.SSHServer):
    """Lets anybody in, and forward: nobody else is in the namespace."""

    def begin_auth(self, username: str) -> bool:
        """No authentication."""
        return False

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        """Forward what was asked."""
        return True


async def gateway(_: dict[str, Any]) -> None:
    """An SSH server that forwards."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    await asyncssh.listen("0.0.0.0", SSH_PORT, server_factory=Open, server_host_keys=[key])  # noqa: S104


async def customer(reader: Any, writer: Any) -> None:  # noqa: ANN401 - asyncssh's streams
    """One customer, who speaks SOCKS5 through the forwarded port."""
    with suppress(OSError, EOFError, asyncssh.Error):
        host, port = await socks_request(reader, writer)
        try:
            target: Ends = await dial(host, port)
        except OSError:
            writer.write(b"\x05\x05\x00\x01" + bytes(6))
            writer.close()
            return
        writer.write(b"\x05\x00\x00\x01" + struct.pack("!IH", 0, 0))
        await join((reader, writer), target)


async def phone(told: dict[str, Any]) -> None:
    """Log in, ask for a port, and serve who comes through it."""
    plain: dict[str, Any] = {"username": "u", "known_hosts": None, "client_keys": None, "config": None}
    with suppress(asyncssh.Error):
        async with asyncssh.connect(
            told["gateways"][0], SSH_PORT, keepalive_interval=KEEP_ALIVE_S, **plain
        ) as connection:
            await connection.start_server(lambda _host, _port: customer, "", SOCKS_PORT, encoding=None)
            await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], phone=phone, gateway=gateway))
