"""Network namespaces of one scenario: made, used and removed here, under names that no other run has."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from relay_range import addresses

DEVICE: Final = "wlan0"
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_CLONE_NEWNET: Final = 0x40000000
_NETNS: Final = Path("/run/netns")
_RESOLV: Final = Path("/etc/netns")


class RangeError(Exception):
    """The range cannot run as asked; the message says what to do."""


class Spaces:
    """The five namespaces of one scenario. Each has one tun device, whose other end the wire holds."""

    def __init__(self, tag: str, subnet: int) -> None:
        """tag: short and unique on this machine; subnet: number of the phone's home network."""
        self.tag = tag
        self.subnet = subnet
        self.made: list[str] = []

    def name(self, space: str) -> str:
        """The namespace's name as `ip netns` knows it."""
        return f"{self.tag}-{space}"

    def make(self) -> dict[str, int]:
        """Make all namespaces; gives the file descriptor of each one's tun device, by space."""
        ends = {}
        for space in addresses.SPACES:
            name = self.name(space)
            _ip("netns", "add", name)
            self.made.append(name)
            resolv = _RESOLV / name / "resolv.conf"
            resolv.parent.mkdir(parents=True)
            resolv.write_text(f"nameserver {addresses.RESOLVER}\noptions timeout:3\n", encoding="ascii")
            ends[space] = _tun(_NETNS / name)
            self._configure(space, name)
        return ends

    def _configure(self, space: str, name: str) -> None:
        commands = ["link set lo up", f"link set {DEVICE} up mtu 1500"]
        for block in addresses.blocks(space, self.subnet):
            # A phone owns its one address; the other spaces answer for whole prefixes.
            single = block.endswith("/32")
            commands.append(f"addr add {block} dev {DEVICE}" if single else f"route add local {block} dev lo")
        first = addresses.blocks(space, self.subnet)[0].partition("/")[0].rpartition(".")[0]
        source = addresses.phone_address(self.subnet) if space == addresses.PHONE else f"{first}.50"
        commands.append(f"route add default dev {DEVICE} src {source}")
        for command in commands:
            _ip("-n", name, *command.split())
        no_ipv6 = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
        subprocess.run(
            ["ip", "netns", "exec", name, "sh", "-c", f"echo 1 > {no_ipv6} || true"],
            check=False,
            stderr=subprocess.DEVNULL,
        )

    def command(self, space: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside a namespace; it execs, so the pid is the program's."""
        return ["ip", "netns", "exec", self.name(space), *argv]

    def remove(self) -> None:
        """Remove the namespaces made by this object, and nothing else."""
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(_RESOLV / name, ignore_errors=True)
        self.made.clear()


def obstacle() -> str:
    """Why this process cannot make namespaces with tun devices; empty where it can."""
    if missing := [tool for tool in ("ip", "openssl") if not shutil.which(tool)]:
        packages = {"ip": "iproute2", "openssl": "openssl"}
        return f"needs {', '.join(missing)}: apt-get install {' '.join(packages[tool] for tool in missing)}"
    if os.geteuid() != 0:
        return "needs root: network namespaces cannot be made otherwise"
    probe = Spaces(f"rr{os.getpid()}p", 254)
    try:
        for end in probe.make().values():
            os.close(end)
    except (OSError, RangeError) as error:
        return (
            f"cannot make network namespaces with tun devices here ({error}): run with CAP_SYS_ADMIN and CAP_NET_ADMIN"
        )
    finally:
        probe.remove()
    return ""


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RangeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _tun(namespace: Path) -> int:
    """Make DEVICE inside a namespace. The descriptor stays usable outside of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(namespace, os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN_NO_PI))
        return end
    finally:
        if libc.setns(home, _CLONE_NEWNET):
            os.abort()  # to go on in somebody else's network would be worse
        os.close(there)
        os.close(home)
