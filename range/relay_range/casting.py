"""What a program of the range is made of: packages, processes, where customers enter; and what several share."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relay_range.addresses import CUSTOMERS, GATEWAYS, PHONE, customer_address, phone_address
from relay_range.scenarios import Scenario
from relay_range.truth import Relay

HOME: Final = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "relay-range"
"""Where packages of PyPI and npm are installed, apart from everything else on the machine."""
GATEWAY: Final = "198.19.192.1"


@dataclass(frozen=True, slots=True)
class Need:
    """One package. probe: the program or module that shows that it is there."""

    registry: str
    package: str
    probe: str

    def met(self) -> bool:
        """Whether it is installed."""
        if self.registry == "apt":
            return shutil.which(self.probe, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None
        if self.registry == "npm":
            modules = HOME / "npm/node_modules"
            return (modules / ".bin" / self.probe).exists() or (modules / self.probe).exists()
        return (HOME / "pip" / self.probe).exists() or importlib.util.find_spec(self.probe) is not None

    def install(self) -> None:
        """Install it; raises CalledProcessError."""
        commands = {
            "apt": ["apt-get", "install", "-y", "--no-install-recommends", self.package],
            "pip": [sys.executable, "-m", "pip", "install", "-q", "--target", str(HOME / "pip"), self.package],
            "npm": ["npm", "install", "--silent", "--prefix", str(HOME / "npm"), self.package],
        }
        HOME.mkdir(parents=True, exist_ok=True)
        # RUNLEVEL=1 keeps Debian's maintainer scripts from starting a service outside of the namespaces.
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(commands[self.registry], check=True, env=quiet)


@dataclass(frozen=True, slots=True)
class Launch:
    """One process. port: it is ready when this TCP port listens; file: or when this file is there."""

    space: str
    argv: tuple[str, ...]
    port: int = 0
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Where and how customers come in. space: where they are."""

    protocol: str
    address: str
    port: int
    space: str = CUSTOMERS
    target: str = ""
    target_port: int = 0
    sources: tuple[str, ...] = ()


@dataclass(slots=True)
class Stage:
    """What a program may use of its scenario."""

    scenario: Scenario
    folder: Path
    subnet: int
    seed: int
    seconds: float
    certificate: Path
    key: Path
    peers: int = 0

    @property
    def phone(self) -> str:
        """The phone's address."""
        return phone_address(self.subnet)

    def script(self, module: str, told: dict[str, Any]) -> tuple[str, ...]:
        """The command line of one of the range's own scripts."""
        return (sys.executable, "-m", f"relay_range.{module}", json.dumps(told))

    def journal(self, name: str) -> str:
        """A file for one process's journal."""
        return str(self.folder / f"{name}.journal")

    def config(self, name: str, content: str) -> str:
        """Write a configuration file; its path."""
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return str(path)

    def app(self, kind: str, space: str = PHONE) -> Launch:
        """One of the scripted apps."""
        told = {"kind": kind, "seed": self.seed, "seconds": self.seconds, "subnet": self.subnet}
        return Launch(space, self.script("apps", told))


@dataclass(slots=True)
class Cast:
    """Everything that one scenario starts, in order, beside the internet."""

    launches: list[Launch] = field(default_factory=list)
    relay: Relay = field(default_factory=lambda: Relay(none=True))
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the table. tool: as the label names it."""

    tool: str
    build: Callable[[Stage], Cast]
    needs: tuple[Need, ...] = ()


def apt(package: str, probe: str = "") -> Need:
    """A package of Debian. probe: its program, where it is not named as the package."""
    return Need("apt", package, probe or package)


def sources_of(stage: Stage) -> tuple[str, ...]:
    """The addresses of a scenario's six customers."""
    return tuple(customer_address(stage.seed % 97 + n) for n in range(6))


def accepting(argv: Callable[[Stage], Sequence[str]], port: int, protocol: str) -> Callable[[Stage], Cast]:
    """A proxy that listens on the phone."""

    def build(stage: Stage) -> Cast:
        relay = Relay(frozenset({port}), mixed=bool(stage.scenario.evasion.own_traffic))
        entry = Entry(protocol, stage.phone, port, sources=sources_of(stage))
        return Cast([Launch(PHONE, tuple(argv(stage)), port)], relay, entry)

    return build


def over_ssh(stage: Stage, forwarding: str, before: Sequence[Launch] = (), via: tuple[str, str] | None = None) -> Cast:
    """OpenSSH `ssh -R` from the phone. before: what runs first; via: host and port to dial in the server's place."""
    key, host_key = stage.folder / "user_key", stage.folder / "host_key"
    for path in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    lines = (
        "Port 22", f"HostKey {host_key}", f"AuthorizedKeysFile {key}.pub", "StrictModes no", "UsePAM no",
        "PermitRootLogin yes", "GatewayPorts yes", f"PidFile {stage.folder}/sshd.pid", "MaxSessions 100",
    )  # fmt: skip
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin") or "sshd"
    server = Launch(GATEWAYS, (sshd, "-D", "-e", "-f", stage.config("sshd_config", "\n".join(lines) + "\n")), 22)
    told = (
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ServerAliveInterval=30",
        "-o", "ExitOnForwardFailure=yes", "-i", str(key), "-R", forwarding,
    )  # fmt: skip
    host, port = via or (f"vps{stage.seed % 9}.gw.test", "22")
    client = Launch(PHONE, ("ssh", "-N", *told, "-p", port, f"root@{host}"))
    relay = Relay(reverse=True, mixed=bool(stage.scenario.evasion.own_traffic))
    entry = Entry("socks5", GATEWAY, 1080, sources=sources_of(stage))
    return Cast([server, *before, client, listening(GATEWAYS, 1080)], relay, entry)


def listening(space: str, port: int) -> Launch:
    """Nothing of its own: waits until somebody else's port listens."""
    return Launch(space, (), port)


def torrent(stage: Stage, size: int = 48 << 20) -> tuple[Path, Path]:
    """A film of random bytes, and a torrent of it whose tracker is the origin's: (film, torrent)."""
    content, piece = stage.folder / "shared" / "film.bin", 1 << 18
    content.parent.mkdir()
    content.write_bytes(os.urandom(size))
    data = content.read_bytes()
    hashes = b"".join(hashlib.sha1(data[at : at + piece]).digest() for at in range(0, len(data), piece))  # noqa: S324
    info = b"d6:lengthi%de4:name8:film.bin12:piece lengthi%de6:pieces%d:%se" % (len(data), piece, len(hashes), hashes)
    announce = b"http://tracker.example/announce"
    path = stage.folder / "film.torrent"
    path.write_bytes(b"d8:announce%d:%s4:info%se" % (len(announce), announce, info))
    return content, path


def hls_files(stage: Stage) -> str:
    """Encode a film that lasts as long as the scenario, in segments that every web server offers; its address."""
    source = f"testsrc2=size=640x360:rate=15:duration={int(stage.seconds) + 10}"
    make = "ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "mpeg2video", "-b:v", "1500k"
    cut = "-f", "hls", "-hls_time", "4", "-hls_list_size", "0", str(stage.folder / "files" / "live.m3u8")
    subprocess.run([*make, *cut], check=True, stdin=subprocess.DEVNULL)
    return "https://video.example/files/live.m3u8"


def chromium(stage: Stage, *more: str) -> Launch:
    """A headless browser that goes from page to page by itself."""
    options = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
        "--disable-dev-shm-usage", f"--user-data-dir={stage.folder}/chromium", "--remote-debugging-port=0", *more,
    )  # fmt: skip
    return Launch(PHONE, ("chromium", *options, f"https://site1.example/front?n={stage.seed % 1000}"))
