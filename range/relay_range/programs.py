"""The programs: what each needs from Debian, PyPI or npm, and how it is started in which namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Final

from relay_range import apps, gateway
from relay_range.addresses import CUSTOMERS, GATEWAYS, INTERNET, LAN, PHONE, address_of, lan_peer, peer_address
from relay_range.casting import (
    GATEWAY,
    HOME,
    Cast,
    Entry,
    Launch,
    Need,
    Program,
    Stage,
    accepting,
    apt,
    chromium,
    hls_files,
    over_ssh,
    sources_of,
    torrent,
)
from relay_range.holdout import HOLDOUT
from relay_range.truth import Relay


def _from_lan(build: Callable[[Stage], Cast]) -> Callable[[Stage], Cast]:
    """The same proxy, used by the owner's own machines."""

    def lan(stage: Stage) -> Cast:
        cast = build(stage)
        assert cast.entry is not None  # noqa: S101 - an accepting program has one
        sources = (lan_peer(stage.subnet, 2), lan_peer(stage.subnet, 5))
        cast.entry = Entry(cast.entry.protocol, stage.phone, cast.entry.port, LAN, sources=sources)
        return cast

    return lan


def _microsocks(_: Stage) -> Sequence[str]:
    return "microsocks", "-i", "0.0.0.0", "-p", "1080"  # noqa: S104 - inside a namespace


def _dante(stage: Stage) -> Sequence[str]:
    rules = "\n".join(
        f"{kind} pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0\n{extra} }}"
        for kind, extra in (("client", ""), ("socks", "command: connect udpassociate"), ("socks", "command: udpreply"))
    )
    head = "logoutput: stderr\ninternal: wlan0 port = 1080\nexternal: wlan0\nclientmethod: none\nsocksmethod: none\n"
    return "danted", "-f", stage.config("danted.conf", f"{head}user.privileged: root\n{rules}\n")


def _tinyproxy(stage: Stage) -> Sequence[str]:
    return "tinyproxy", "-d", "-c", stage.config("tinyproxy.conf", "Port 8888\nTimeout 120\nMaxClients 200\n")


def _squid(stage: Stage) -> Sequence[str]:
    lines = (
        "http_port 3128", "http_access allow all", "cache deny all", "access_log none", "cache_log /dev/null",
        "pid_filename none", "shutdown_lifetime 0 seconds", "pinger_enable off", "max_filedescriptors 1024",
        "coredump_dir none", "netdb_filename none", "cache_store_log none",
    )  # fmt: skip
    # squid leaves shared memory when it is killed: it gets a /dev/shm of its own (`ip netns exec` has unshared mounts).
    start = 'mount -t tmpfs tmpfs /dev/shm && exec squid -N -f "$0"'
    return "sh", "-c", start, stage.config("squid.conf", "\n".join(lines) + "\n")


def _privoxy(stage: Stage) -> Sequence[str]:
    lines = f"listen-address 0.0.0.0:8118\nlogdir {stage.folder}\nconfdir /etc/privoxy\ntoggle 0\n"
    return "privoxy", "--no-daemon", stage.config("privoxy.conf", lines)


def _proxy_py(_: Stage) -> Sequence[str]:
    options = "--hostname", "0.0.0.0", "--port", "8899", "--num-workers", "1", "--num-acceptors", "1"  # noqa: S104
    return sys.executable, "-m", "proxy", *options


def _pproxy(_: Stage) -> Sequence[str]:
    return sys.executable, "-m", "pproxy", "-l", "socks5://0.0.0.0:1080"


def _npm_proxy(_: Stage) -> Sequence[str]:
    return str(HOME / "npm/node_modules/.bin/proxy"), "--port", "3128"


def _socat(stage: Stage) -> Cast:
    host = f"site{stage.seed % 50}.example"
    argv = "socat", "TCP-LISTEN:8443,fork,reuseaddr", f"TCP:{host}:443"
    entry = Entry("forward", stage.phone, 8443, target=host, target_port=443, sources=sources_of(stage))
    return Cast([Launch(PHONE, argv, 8443)], Relay(frozenset({8443})), entry)


def _dante_udp(stage: Stage) -> Cast:
    cast = accepting(_dante, 1080, "udp")(stage)
    # The association's own port is chosen by the server; `udp` stands for any inbound datagram flow.
    cast.relay = Relay(frozenset({1080}), any_udp=True)
    return cast


def _shadowsocks(stage: Stage) -> Cast:
    shared = "-k", f"range{stage.seed}", "-m", "chacha20-ietf-poly1305", "-t", "120"
    server = "ss-server", "-s", "0.0.0.0", "-p", "8388", *shared  # noqa: S104 - inside a namespace
    local = "ss-local", "-s", stage.phone, "-p", "8388", "-b", "198.19.1.1", "-l", "1080", *shared
    launches = [Launch(PHONE, server, 8388), Launch(CUSTOMERS, local, 1080)]
    return Cast(launches, Relay(frozenset({8388})), Entry("socks5", "198.19.1.1", 1080, sources=sources_of(stage)))


def _ssh_dynamic(stage: Stage) -> Cast:
    return over_ssh(stage, "0.0.0.0:1080")


def _ssh_microsocks(stage: Stage) -> Cast:
    local = Launch(PHONE, ("microsocks", "-i", "127.0.0.1", "-p", "1081"), 1081)
    return over_ssh(stage, "0.0.0.0:1080:127.0.0.1:1081", [local])


def _ssh_own_page(stage: Stage) -> Cast:
    """The owner shows the app's own page through a reverse tunnel: a tunnel, visitors, and nobody relayed."""
    page = replace(stage.app("file-server"), port=apps.FILES_PORT)
    cast = over_ssh(stage, "0.0.0.0:1080:127.0.0.1:8080", [page])
    cast.relay = Relay(none=True)
    cast.entry = Entry("forward", GATEWAY, 1080, target="mypage.example", target_port=80, sources=sources_of(stage))
    return cast


def _agent_lan(stage: Stage) -> Cast:
    """Customers who reach into the phone's own network through the agent."""
    cast = _agent("multiplex", "tls", "binary")(stage)
    ready = stage.folder / "lan.ready"
    told = {
        "journal": stage.journal("lan"), "certificate": str(stage.certificate), "key": str(stage.key),
        "files": str(stage.folder), "peers": 0, "ready": str(ready), "resolver": lan_peer(stage.subnet, 1),
    }  # fmt: skip
    cast.launches.insert(0, Launch(LAN, stage.script("origin", told), file=ready))
    target = lan_peer(stage.subnet, 9)
    cast.entry = Entry("socks5", GATEWAY, 1080, target=target, target_port=80, sources=sources_of(stage))
    return cast


def _pproxy_backward(stage: Stage) -> Cast:
    name = f"back{stage.seed % 9}.gw.test"
    python = sys.executable, "-m", "pproxy"
    server = Launch(GATEWAYS, (*python, "-r", "socks5+in://0.0.0.0:8081", "-l", "socks5://0.0.0.0:1080"), 1080)
    # pproxy 2.7.9 ends at once where it has backward links alone; the second listener, on loopback, keeps it running.
    agent = Launch(PHONE, (*python, "-l", f"socks5+in://{name}:8081", "-l", "socks5://127.0.0.1:1999"))
    relay = Relay(reverse=True, mixed=bool(stage.scenario.evasion.own_traffic))
    return Cast([server, agent], relay, Entry("socks5", GATEWAY, 1080, sources=sources_of(stage)))


def _agent(mode: str, carrier: str, framing: str) -> Callable[[Stage], Cast]:
    """One of the range's own agents and its gateway."""

    def build(stage: Stage) -> Cast:
        evasion = stage.scenario.evasion
        names = [f"node{stage.seed % 89}-{n}.gw.test" for n in range(max(1, evasion.gateways))]
        told = {
            "mode": mode, "carrier": carrier, "framing": framing, "seed": stage.seed, "evasion": asdict(evasion),
            "gateways": names, "nodes": [f"tier2-{n}.gw.test" for n in range(4)], "poll_s": 1.0,
            "journal": stage.journal("gateway"), "certificate": str(stage.certificate), "key": str(stage.key),
            "ready": str(stage.folder / "gateway.ready"),
        }  # fmt: skip
        server = Launch(GATEWAYS, stage.script("gateway", told), file=stage.folder / "gateway.ready")
        relay = Relay(reverse=True, mixed=bool(evasion.own_traffic))
        entry = Entry("socks5", GATEWAY, gateway.SOCKS_PORT, sources=sources_of(stage))
        return Cast([server, Launch(PHONE, stage.script("agent", told))], relay, entry)

    return build


def _app(kind: str, *others: tuple[str, str]) -> Callable[[Stage], Cast]:
    """A scripted app, and scripts of other places that talk to it."""
    return lambda stage: Cast([stage.app(kind), *(stage.app(other, space) for other, space in others)])


def _chromium(stage: Stage) -> Cast:
    return Cast([chromium(stage)])


def _mosquitto(stage: Stage) -> Cast:
    config = stage.config("mosquitto.conf", "listener 1883 0.0.0.0\nallow_anonymous true\nuser root\n")
    broker = Launch(INTERNET, ("mosquitto", "-c", config), 1883)
    reader = Launch(PHONE, ("mosquitto_sub", "-h", "mqtt.example", "-t", "#", "-k", "30"))
    return Cast([broker, reader, stage.app("publisher", INTERNET)])


def _ffmpeg_hls(stage: Stage) -> Cast:
    play = "ffmpeg", "-nostdin", "-v", "error", "-re", "-i", hls_files(stage)
    return Cast([Launch(PHONE, (*play, "-c", "copy", "-f", "null", "-"))])


def _aria2(stage: Stage) -> Cast:
    """Seeds and downloads one torrent with six peers of the same program; the tracker is the origin's."""
    stage.peers = 6
    content, film = torrent(stage)
    shared = (
        "aria2c", "--enable-dht=false", "--bt-enable-lpd=false", "--enable-peer-exchange=true", "--seed-time=60",
        "--listen-port=6881", "--file-allocation=none", "--quiet", "--no-conf", "--bt-max-peers=20",
    )  # fmt: skip
    launches = []
    for number in range(stage.peers):
        folder = stage.folder / f"peer{number}"
        folder.mkdir()
        seeds = number < 3
        if seeds:
            os.link(content, folder / "film.bin")
        pace = "--max-overall-upload-limit=300K", "--max-overall-download-limit=300K"
        where = f"--interface={peer_address(number)}", f"--dir={folder}", f"--check-integrity={str(seeds).lower()}"
        launches.append(Launch(CUSTOMERS, (*shared, *pace, *where, str(film))))
    mine = stage.folder / "mine"
    mine.mkdir()
    launches.append(Launch(PHONE, (*shared, "--max-overall-upload-limit=200K", f"--dir={mine}", str(film))))
    return Cast(launches)


def _rsync(stage: Stage) -> Cast:
    """Pulls and pushes changing files, with an rsync daemon."""
    module = stage.folder / "module"
    module.mkdir()
    for number in range(40):
        (module / f"file{number}").write_bytes(os.urandom(40_000 + 9_000 * number))
    lines = f"uid = root\ngid = root\nuse chroot = no\n[data]\npath = {module}\nread only = no\n"
    config = stage.config("rsyncd.conf", lines)
    server = Launch(INTERNET, ("rsync", "--daemon", "--no-detach", f"--config={config}"), 873)
    mine = stage.folder / "mine"
    mine.mkdir()
    loop = (
        'n=0; while :; do rsync -a --bwlimit=900 rsync://sync.example/data/ "$0/"; n=$((n+1));'
        ' head -c 700000 /dev/urandom > "$0/new$((n % 5))"; rsync -a "$0/" rsync://sync.example/data/;'
        ' rm -f "$0"/file1*; sleep 3; done'
    )
    return Cast([server, Launch(PHONE, ("sh", "-c", loop, str(mine)))])


def _rclone(stage: Stage) -> Cast:
    """Copies from one WebDAV cloud to another: what comes in goes out, for the phone's owner."""
    launches, places = [], []
    for name in ("one", "two"):
        folder = stage.folder / name
        folder.mkdir()
        address = address_of(f"cloud-{name}.example")
        serve = "rclone", "serve", "webdav", "--addr", f"{address}:8081", str(folder), "--config", "/dev/null"
        launches.append(Launch(INTERNET, serve, 8081))
        places.append(f":webdav,url='http://cloud-{name}.example:8081':")
    for number in range(120):
        size = 30_000 + 4_000 * (number * 37 % 120)
        (stage.folder / "one" / f"photo{number}.jpg").write_bytes(os.urandom(size))
    options = "--config", "/dev/null", "--transfers", "2", "--bwlimit", "600K"
    return Cast([*launches, Launch(PHONE, ("rclone", "copy", *options, *places))])


def _openvpn(stage: Stage) -> Cast:
    """All of the app's traffic inside one UDP tunnel to one peer."""
    key = stage.folder / "static.key"
    subprocess.run(["openvpn", "--genkey", "secret", str(key)], check=True, stdout=subprocess.DEVNULL)
    shared = (
        "--dev", "tun1", "--dev-type", "tun", "--secret", str(key),
        "--cipher", "AES-256-CBC", "--keepalive", "10", "60", "--verb", "1",
    )  # fmt: skip
    server = Launch(GATEWAYS, ("openvpn", *shared, "--local", GATEWAY, "--ifconfig", "10.222.0.1", "10.222.0.2"))
    inside = {
        "journal": stage.journal("inside"), "certificate": str(stage.certificate), "key": str(stage.key),
        "files": str(stage.folder), "peers": 0, "ready": str(stage.folder / "inside.ready"), "resolver": GATEWAY,
    }  # fmt: skip
    origin = Launch(GATEWAYS, stage.script("origin", inside), file=stage.folder / "inside.ready")
    client = Launch(PHONE, ("openvpn", *shared, "--remote", GATEWAY, "--ifconfig", "10.222.0.2", "10.222.0.1"))
    return Cast([server, origin, client, stage.app("browse-inside")])


def _dnsmasq(stage: Stage) -> Cast:
    """The phone forwards its own LAN's name queries: mechanically a relay, and its owner's wish."""
    options = (
        "--no-hosts",
        "--no-resolv",
        "--server=198.18.0.53",
        "--cache-size=0",
        "--user=root",
        "--conf-file=/dev/null",
    )
    server = Launch(PHONE, ("dnsmasq", "-k", "--port=53", *options, "--pid-file="), 53)
    return Cast([server, stage.app("lan-queries", LAN)], Relay(frozenset({53})))


_SOCKS: Final = accepting(_microsocks, 1080, "socks5")
_TINYPROXY: Final = accepting(_tinyproxy, 8888, "connect")
_SSH_NEEDS: Final = apt("openssh-server", "sshd"), apt("openssh-client", "ssh")
_WEBSOCKETS: Final = Need("pip", "websockets", "websockets")
_PPROXY: Final = Need("pip", "pproxy", "pproxy")

PROGRAMS: Final[dict[str, Program]] = {
    "microsocks": Program("microsocks", _SOCKS, (apt("microsocks"),)),
    "microsocks-lan": Program("microsocks (own machines)", _from_lan(_SOCKS), (apt("microsocks"),)),
    "dante": Program("Dante danted", accepting(_dante, 1080, "socks5"), (apt("dante-server", "danted"),)),
    "dante-udp": Program("Dante danted, UDP ASSOCIATE", _dante_udp, (apt("dante-server", "danted"),)),
    "tinyproxy": Program("tinyproxy", _TINYPROXY, (apt("tinyproxy"),)),
    "tinyproxy-plain": Program("tinyproxy", accepting(_tinyproxy, 8888, "http"), (apt("tinyproxy"),)),
    "tinyproxy-lan": Program("tinyproxy (own machines)", _from_lan(_TINYPROXY), (apt("tinyproxy"),)),
    "squid": Program("squid", accepting(_squid, 3128, "connect"), (apt("squid"),)),
    "privoxy": Program("privoxy", accepting(_privoxy, 8118, "connect"), (apt("privoxy"),)),
    "proxy.py": Program("proxy.py", accepting(_proxy_py, 8899, "connect"), (Need("pip", "proxy.py", "proxy"),)),
    "pproxy": Program("pproxy", accepting(_pproxy, 1080, "socks5"), (_PPROXY,)),
    "npm-proxy": Program("npm proxy", accepting(_npm_proxy, 3128, "connect"), (Need("npm", "proxy", "proxy"),)),
    "shadowsocks": Program("shadowsocks-libev ss-server", _shadowsocks, (apt("shadowsocks-libev", "ss-server"),)),
    "socat": Program("socat", _socat, (apt("socat"),)),
    "ssh-dynamic": Program("OpenSSH ssh -R dynamic", _ssh_dynamic, _SSH_NEEDS),
    "ssh-microsocks": Program("OpenSSH ssh -R to microsocks", _ssh_microsocks, (*_SSH_NEEDS, apt("microsocks"))),
    "ssh-own-page": Program("OpenSSH ssh -R to the app's own page", _ssh_own_page, _SSH_NEEDS),
    "pproxy-backward": Program("pproxy backward", _pproxy_backward, (_PPROXY,)),
    "agent-binary": Program("range agent, binary frames over TLS", _agent("multiplex", "tls", "binary")),
    "agent-lan": Program("range agent, binary frames over TLS, targets in the LAN", _agent_lan),
    "agent-json": Program("range agent, base64 in JSON over TLS", _agent("multiplex", "tls", "json")),
    "agent-websocket": Program(
        "range agent, base64 in JSON over WebSocket", _agent("multiplex", "websocket", "json"), (_WEBSOCKETS,)
    ),
    "back-connect": Program(
        "range agent, two tiers, a connection per session", _agent("back-connect", "tcp", "binary")
    ),
    "chromium": Program("chromium headless", _chromium, (apt("chromium"),)),
    "mosquitto": Program("mosquitto_sub", _mosquitto, (apt("mosquitto"), apt("mosquitto-clients", "mosquitto_sub"))),
    "ffmpeg-hls": Program("ffmpeg HLS", _ffmpeg_hls, (apt("ffmpeg"),)),
    "aria2": Program("aria2 BitTorrent", _aria2, (apt("aria2", "aria2c"),)),
    "rsync": Program("rsync", _rsync, (apt("rsync"),)),
    "rclone": Program("rclone copy, WebDAV to WebDAV", _rclone, (apt("rclone"),)),
    "openvpn": Program("OpenVPN client", _openvpn, (apt("openvpn"),)),
    "dnsmasq": Program("dnsmasq for the LAN", _dnsmasq, (apt("dnsmasq-base", "dnsmasq"),)),
    "file-server": Program("range script: file server", _app("file-server", ("lan-downloads", LAN))),
    "cast": Program("range script: cast receiver", _app("cast-receiver", ("lan-remote", LAN))),
    "iot-hub": Program("range script: home hub", _app("iot-hub", ("lan-things", LAN))),
    **HOLDOUT,
    **{f"app-{kind}": Program(f"range script: {kind}", _app(kind)) for kind in apps.APPS},
}
