"""The hold-out's programs: code that is in no other scenario, so that what is found here was not learnt here.

No detector, table or setting is to be fitted to these; see docs/range.md.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from relay_range.addresses import (
    CUSTOMERS,
    GATEWAYS,
    INTERNET,
    LAN,
    PHONE,
    address_of,
    lan_peer,
    peer_address,
)
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
from relay_range.gateway import SOCKS_PORT
from relay_range.truth import Relay

CUSTOMER_SIDE: Final = "198.19.1.1"
"""Where customers find the client half of a relay that has one."""
GATEWAY_SOURCE: Final = "198.19.192.50"
"""The gateways' own address; datagrams of a program that binds none leave from it."""
_PEERS: Final = 6
_WORDS: Final = ("relay", "phone", "cloud", "letter", "summer", "winter", "paper", "garden", "river", "stone", "bread")


def _mixed(stage: Stage) -> bool:
    return bool(stage.scenario.evasion.own_traffic)


def _shell(script: str, *arguments: str) -> tuple[str, ...]:
    return ("sh", "-c", script, *arguments)


# --- relays that listen on the phone


def _ncat(_: Stage) -> Sequence[str]:
    return "ncat", "-l", "0.0.0.0", "3128", "--keep-open", "--proxy-type", "http"  # noqa: S104 - inside a namespace


def _proxy_chain(stage: Stage) -> Sequence[str]:
    module = HOME / "npm/node_modules/proxy-chain/dist/index.js"
    script = f"import {{ Server }} from '{module}'; await new Server({{ host: '0.0.0.0', port: 8000 }}).listen();\n"
    return "node", stage.config("proxy-chain.mjs", script)


def _mitmproxy(stage: Stage) -> Sequence[str]:
    # Debian's own libraries: those that the range installs from PyPI are newer than this mitmproxy knows.
    options = "--listen-port", "8080", "--ssl-insecure", "--quiet", "--set", "block_global=false"
    return "env", "-u", "PYTHONPATH", "mitmdump", *options, "--set", f"confdir={stage.folder}/mitmproxy"


def _haproxy(stage: Stage) -> Cast:
    host = f"site{stage.seed % 50}.example"
    lines = (
        "defaults", " mode tcp", " timeout connect 10s", " timeout client 60s", " timeout server 60s",
        "listen forward", " bind 0.0.0.0:8443", f" server one {address_of(host)}:443",
    )  # fmt: skip
    argv = "haproxy", "-db", "-f", stage.config("haproxy.cfg", "\n".join(lines) + "\n")
    entry = Entry("forward", stage.phone, 8443, target=host, target_port=443, sources=sources_of(stage))
    return Cast([Launch(PHONE, argv, 8443)], Relay(frozenset({8443})), entry)


def _with_client(stage: Stage, server: Sequence[str], port: int, client: Sequence[str]) -> Cast:
    """A relay on the phone whose customers come through a client half that listens for SOCKS at CUSTOMER_SIDE."""
    launches = [Launch(PHONE, tuple(server), port), Launch(CUSTOMERS, tuple(client), SOCKS_PORT)]
    entry = Entry("socks5", CUSTOMER_SIDE, SOCKS_PORT, sources=sources_of(stage))
    return Cast(launches, Relay(frozenset({port}), mixed=_mixed(stage)), entry)


def _stunnel(stage: Stage) -> Cast:
    """SOCKS inside TLS; stunnel speaks both."""
    shared = "foreground = yes\npid =\n[socks]\n"
    server = f"{shared}protocol = socks\naccept = 0.0.0.0:9443\ncert = {stage.certificate}\nkey = {stage.key}\n"
    client = f"{shared}client = yes\naccept = {CUSTOMER_SIDE}:{SOCKS_PORT}\nconnect = {stage.phone}:9443\n"
    halves = [("stunnel4", stage.config(f"{n}.conf", text)) for n, text in (("server", server), ("client", client))]
    return _with_client(stage, halves[0], 9443, halves[1])


def _json(stage: Stage, name: str, value: dict[str, Any]) -> str:
    return stage.config(name, json.dumps(value, indent=1))


def _trojan_halves(stage: Stage, server: str, client: str) -> list[tuple[str, ...]]:
    """Trojan's server and client. server, client: the addresses where they listen."""
    shared = {"password": [f"range{stage.seed}"], "log_level": 2}
    tls = {"cert": str(stage.certificate), "key": str(stage.key)}
    serve = {"run_type": "server", "local_addr": server, "local_port": 443, "remote_addr": "127.0.0.1"}
    use = {"run_type": "client", "local_addr": client, "local_port": SOCKS_PORT, "remote_addr": server}
    lax = {"verify": False, "verify_hostname": False, "sni": "range.example"}
    files = (
        _json(stage, "trojan-server.json", {**serve, "remote_port": 80, **shared, "ssl": tls}),
        _json(stage, "trojan-client.json", {**use, "remote_port": 443, **shared, "ssl": lax}),
    )
    return [("trojan", "-c", file) for file in files]


def _trojan(stage: Stage) -> Cast:
    server, client = _trojan_halves(stage, stage.phone, CUSTOMER_SIDE)
    return _with_client(stage, server, 443, client)


def _identity(stage: Stage) -> str:
    return f"00000000-0000-4000-8000-{stage.seed:012x}"


def _v2ray(stage: Stage, name: str, value: dict[str, Any]) -> tuple[str, ...]:
    return ("v2ray", "-config", _json(stage, name, {"log": {"loglevel": "warning"}, **value}))


def _vmess_in(stage: Stage, port: int, tag: str = "in") -> dict[str, Any]:
    client = {"id": _identity(stage), "alterId": 0}
    return {"tag": tag, "port": port, "listen": "0.0.0.0", "protocol": "vmess", "settings": {"clients": [client]}}  # noqa: S104


def _vmess_out(stage: Stage, host: str, port: int) -> dict[str, Any]:
    user = {"id": _identity(stage), "alterId": 0, "security": "aes-128-gcm"}
    return {
        "tag": "tunnel", "protocol": "vmess",
        "settings": {"vnext": [{"address": host, "port": port, "users": [user]}]},
    }  # fmt: skip


def _socks_in(address: str) -> dict[str, Any]:
    settings = {"auth": "noauth", "udp": True, "ip": address}
    return {"tag": "socks", "port": SOCKS_PORT, "listen": address, "protocol": "socks", "settings": settings}


_FREEDOM: Final = {"tag": "out", "protocol": "freedom", "settings": {}}


def _v2ray_mux(stage: Stage) -> Cast:
    """VMess with mux: up to eight customers' sessions in each connection that the phone accepts."""
    server = {"inbounds": [_vmess_in(stage, 10086)], "outbounds": [_FREEDOM]}
    link = {**_vmess_out(stage, stage.phone, 10086), "mux": {"enabled": True, "concurrency": 8}}
    client = {"inbounds": [_socks_in(CUSTOMER_SIDE)], "outbounds": [link]}
    return _with_client(stage, _v2ray(stage, "server.json", server), 10086, _v2ray(stage, "client.json", client))


def _v2ray_udp(stage: Stage) -> Cast:
    """SOCKS5 with UDP ASSOCIATE, all associations on one port."""
    server = {"inbounds": [_socks_in(stage.phone)], "outbounds": [_FREEDOM]}
    cast = accepting(lambda stage: _v2ray(stage, "server.json", server), SOCKS_PORT, "udp")(stage)
    cast.relay = Relay(frozenset({SOCKS_PORT}), any_udp=True)
    return cast


# --- relays that dial a gateway


def _reverse(stage: Stage, *launches: Launch) -> Cast:
    """The phone dials; customers enter at the gateway by SOCKS5."""
    entry = Entry("socks5", GATEWAY, SOCKS_PORT, sources=sources_of(stage))
    return Cast(list(launches), Relay(reverse=True, mixed=_mixed(stage)), entry)


def _v2ray_reverse(stage: Stage) -> Cast:
    """v2ray's own reverse proxy: a bridge on the phone, a portal at the gateway."""
    name, inside = f"portal{stage.seed % 9}.gw.test", "inside.example"
    bridge = {
        "reverse": {"bridges": [{"tag": "bridge", "domain": inside}]},
        "outbounds": [_vmess_out(stage, name, 8444), _FREEDOM],
        "routing": {"rules": [
            {"type": "field", "inboundTag": ["bridge"], "domain": [f"full:{inside}"], "outboundTag": "tunnel"},
            {"type": "field", "inboundTag": ["bridge"], "outboundTag": "out"},
        ]},
    }  # fmt: skip
    portal = {
        "reverse": {"portals": [{"tag": "portal", "domain": inside}]},
        "inbounds": [_socks_in(GATEWAY), _vmess_in(stage, 8444, "link")],
        "outbounds": [_FREEDOM],
        "routing": {"rules": [
            {"type": "field", "inboundTag": ["socks"], "outboundTag": "portal"},
            {"type": "field", "inboundTag": ["link"], "outboundTag": "portal"},
        ]},
    }  # fmt: skip
    gateway = Launch(GATEWAYS, _v2ray(stage, "portal.json", portal), 8444)
    return _reverse(stage, gateway, Launch(PHONE, _v2ray(stage, "bridge.json", bridge)))


def _through(stage: Stage, gateway: Launch, phone: Launch, via: tuple[str, str]) -> Cast:
    """OpenSSH `ssh -R` dynamic inside another tunnel, whose halves start between the SSH server and the client."""
    return over_ssh(stage, "0.0.0.0:1080", [gateway, phone], via)


def _httptunnel(stage: Stage) -> Cast:
    """SSH in HTTP: what goes up in PUT requests, a connection each, comes down in the answer of another connection."""
    gateway = Launch(GATEWAYS, ("hts", "--no-daemon", "--forward-port", "127.0.0.1:22", "8080"), 8080)
    options = "--no-daemon", "--content-length", "1M", "--forward-port", "2222", f"web{stage.seed % 9}.gw.test:8080"
    cast = _through(stage, gateway, Launch(PHONE, ("htc", *options), 2222), ("127.0.0.1", "2222"))
    # httptunnel 3.3 now and then damages the stream between two PUTs and SSH ends: start it again, as autossh does.
    again = _shell('while :; do "$@"; sleep 1; done', "again")
    cast.launches = [
        replace(launch, argv=(*again, *launch.argv)) if launch.argv[:1] == ("ssh",) else launch
        for launch in cast.launches
    ]
    return cast


def _kcptun(stage: Stage) -> Cast:
    """SSH in KCP over UDP, with forward error correction: three datagrams more for every ten."""
    shared = "--key", f"range{stage.seed}", "--crypt", "aes", "--mode", "fast2", "--quiet"
    gateway = Launch(GATEWAYS, ("kcptun-server", "-l", f"{GATEWAY}:29900", "-t", "127.0.0.1:22", *shared))
    phone = Launch(PHONE, ("kcptun-client", "-l", "127.0.0.1:2222", "-r", f"{GATEWAY}:29900", *shared), 2222)
    return _through(stage, gateway, phone, ("127.0.0.1", "2222"))


def _iodine(stage: Stage) -> Cast:
    """SSH in DNS queries and their answers."""
    shared = "-f", "-P", f"range{stage.seed % 1000}"
    gateway = Launch(GATEWAYS, ("iodined", *shared, "-c", "-l", GATEWAY, "10.224.0.1/27", "t.gw.test"))
    # The client has no port to wait for: this holds until its tunnel has an address.
    wait = (
        'iodine "$@" & until ip -o addr show dev dns0 2>/dev/null | grep -q 10.224; do sleep 0.2; done;'
        ' touch "$0"; wait'
    )
    ready = stage.folder / "iodine.ready"
    client = _shell(wait, str(ready), *shared, "-r", GATEWAY, "t.gw.test")
    return _through(stage, gateway, Launch(PHONE, client, file=ready), ("10.224.0.1", "22"))


def _wireguard(stage: Stage) -> Cast:
    """A WireGuard peer in user space: customers reach a SOCKS proxy that listens inside the tunnel alone."""
    private, public = [], []
    for _ in range(2):
        private.append(subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True).stdout.strip())
        made = subprocess.run(["wg", "pubkey"], input=private[-1], check=True, capture_output=True, text=True)
        public.append(made.stdout.strip())
    own = f"[Interface]\nPrivateKey = {private[0]}\nListenPort = 51820\n"
    gateway = f"{own}[Peer]\nPublicKey = {public[1]}\nAllowedIPs = 10.223.0.2/32\n"
    other = f"[Peer]\nPublicKey = {public[0]}\nAllowedIPs = 10.223.0.1/32\nPersistentKeepalive = 20\n"
    phone = f"[Interface]\nPrivateKey = {private[1]}\n{other}Endpoint = {GATEWAY_SOURCE}:51820\n"
    up = (
        'd=$1 c=$2 a=$3; shift 3; wireguard-go -f "$d" & until wg setconf "$d" "$c" 2>/dev/null; do sleep 0.1; done;'
        ' ip addr add "$a/24" dev "$d"; ip link set "$d" mtu 1420 up; exec "$@"'
    )
    names = [f"wg{side}{stage.subnet}" for side in "gp"]  # its control socket is of the whole machine
    forward = "socat", f"TCP-LISTEN:{SOCKS_PORT},bind={GATEWAY},fork,reuseaddr", f"TCP:10.223.0.2:{SOCKS_PORT}"
    proxy = "microsocks", "-i", "10.223.0.2", "-p", str(SOCKS_PORT)
    halves = (
        _shell(up, "up", names[0], stage.config("wg-gateway.conf", gateway), "10.223.0.1", *forward),
        _shell(up, "up", names[1], stage.config("wg-phone.conf", phone), "10.223.0.2", *proxy),
    )
    return _reverse(stage, Launch(GATEWAYS, halves[0], SOCKS_PORT), Launch(PHONE, halves[1], SOCKS_PORT))


def _carried(module: str, names: int = 1) -> Callable[[Stage], Cast]:
    """One of the hold-out's own agents, each over somebody else's implementation of a protocol."""

    def build(stage: Stage) -> Cast:
        told = {
            "gateways": [f"{module.removeprefix('carry_')}{stage.seed % 83}-{n}.gw.test" for n in range(names)],
            "seed": stage.seed, "certificate": str(stage.certificate), "key": str(stage.key),
            "journal": stage.journal("gateway"), "ready": str(stage.folder / "gateway.ready"),
        }  # fmt: skip
        gateway = stage.script(module, {"side": "gateway", **told})
        ready = Launch(GATEWAYS, gateway, file=stage.folder / "gateway.ready")
        return _reverse(stage, ready, Launch(PHONE, stage.script(module, {"side": "phone", **told})))

    return build


def _beside(relay: Callable[[Stage], Cast], own: Callable[[Stage], Cast]) -> Callable[[Stage], Cast]:
    """A relay inside an app that is a real program of another kind."""

    def build(stage: Stage) -> Cast:
        cast, other = relay(stage), own(stage)
        return replace(cast, launches=[*other.launches, *cast.launches], relay=replace(cast.relay, mixed=True))

    return build


# --- ordinary programs


def _writing(path: str, base: int, kinds: int, step: int, every: int) -> str:
    """Shell that writes a new file every few seconds: of `base` bytes and 0 to `kinds` - 1 steps more."""
    size = f"$(({base} + n % {kinds} * {step}))"
    return f'n=0; while :; do n=$((n + 1)); head -c {size} /dev/urandom > "{path}"; sleep {every}; done'


def _browser(stage: Stage) -> Cast:
    return Cast([chromium(stage)])


def _proxied_browser(stage: Stage) -> Cast:
    """A browser behind a VPN app of the usual kind: all goes by TLS to one server, through a local SOCKS port."""
    server, client = _trojan_halves(stage, address_of("exit.gw.test"), "127.0.0.1")
    halves = [Launch(GATEWAYS, server, 443), Launch(PHONE, client, SOCKS_PORT)]
    return Cast([*halves, chromium(stage, f"--proxy-server=socks5://127.0.0.1:{SOCKS_PORT}")])


def _transmission(stage: Stage) -> Cast:
    """Downloads one torrent and seeds it, with six peers of the same program."""
    stage.peers = _PEERS
    content, film = torrent(stage)
    launches = []
    for number in range(-1, _PEERS):
        folder = stage.folder / f"peer{number}"
        folder.mkdir()
        if 0 <= number < _PEERS // 2:
            os.link(content, folder / "film.bin")
        address = stage.phone if number < 0 else peer_address(number)
        settings = {
            "bind-address-ipv4": address, "dht-enabled": False, "lpd-enabled": False, "utp-enabled": False,
            "port-forwarding-enabled": False, "encryption": 1, "pex-enabled": True,
        }  # fmt: skip
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        options = "-g", str(folder), "-w", str(folder), "-p", "6881", "-u", "300", "-d", "400", "-M"
        launches.append(Launch(PHONE if number < 0 else CUSTOMERS, ("transmission-cli", *options, str(film))))
    return Cast([*launches[1:], launches[0]])


def _syncthing(stage: Stage) -> Cast:
    """A folder of three devices: what the laptop on the LAN writes, the phone takes and gives to the server."""
    places = {
        "laptop": (LAN, lan_peer(stage.subnet, 3)),
        "phone": (PHONE, stage.phone),
        "server": (CUSTOMERS, peer_address(0)),
    }
    homes = {name: stage.folder / f"sync-{name}" for name in places}
    known: dict[str, str] = {}
    for name, home in homes.items():
        make = ["syncthing", "generate", f"--home={home}", "--no-default-folder", "--skip-port-probing"]
        subprocess.run(make, check=True, capture_output=True, env={**os.environ, "HOME": str(stage.folder)})
        argv = ["syncthing", f"--home={home}", "--device-id"]
        known[name] = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[-1]
    launches = []
    for name, (space, address) in places.items():
        shared = homes[name] / "shared"
        shared.mkdir()
        # The laptop and the server know the phone alone.
        others = [other for other in places if "phone" in (name, other)]
        config = _syncthing_config(str(shared), address, {known[one]: places[one][1] for one in others})
        (homes[name] / "config.xml").write_text(config, encoding="utf-8")
        serve = "syncthing", "serve", f"--home={homes[name]}", "--no-browser", "--no-restart", "--no-upgrade"
        launches.append(Launch(space, serve, 22000))
    write = _writing("$0/photo$n", 60_000 + stage.seed % 40_000, 7, 190_000, 4)
    return Cast([*launches, Launch(LAN, _shell(write, str(homes["laptop"] / "shared")))])


def _syncthing_config(folder: str, address: str, devices: dict[str, str]) -> str:
    """config.xml of version 1. devices: address by device id."""
    named = "".join(
        f'<device id="{one}" name="{at}" compression="metadata"><address>tcp://{at}:22000</address></device>'
        for one, at in devices.items()
    )
    members = "".join(f'<device id="{one}"></device>' for one in devices)
    off = "globalAnnounceEnabled", "localAnnounceEnabled", "relaysEnabled", "natEnabled", "startBrowser"
    options = "".join(f"<{name}>false</{name}>" for name in (*off, "crashReportingEnabled"))
    return (
        f'<configuration version="35"><folder id="shared" label="shared" path="{folder}" type="sendreceive"'
        f' rescanIntervalS="5" fsWatcherEnabled="true" fsWatcherDelayS="1">{members}</folder>{named}'
        f'<gui enabled="false"></gui><options><listenAddress>tcp://{address}:22000</listenAddress>{options}'
        f"<urAccepted>-1</urAccepted></options></configuration>\n"
    )


def _restic(stage: Stage) -> Cast:
    """Snapshots of a changing folder, deduplicated and encrypted, to a server."""
    mine, store = stage.folder / "mine", stage.folder / "store"
    mine.mkdir()
    store.mkdir()
    server = "rclone", "serve", "restic", "--addr", f"{address_of('backup.example')}:8000", str(store)
    loop = (
        "export RESTIC_PASSWORD=range RESTIC_REPOSITORY=rest:http://backup.example:8000/phone;"
        ' restic init --no-cache; while :; do restic backup --no-cache --quiet "$0"; sleep 4; done'
    )
    ready = Launch(INTERNET, (*server, "--config", "/dev/null"), 8000)
    write = Launch(PHONE, _shell(_writing("$0/f$n", 400_000, 5, 500_000, 5), str(mine)))
    return Cast([ready, write, Launch(PHONE, _shell(loop, str(mine)))])


def _mosquitto_bridge(stage: Stage) -> Cast:
    """A home hub: things on the LAN publish to the phone's broker, which tells the owner's cloud, and takes orders."""
    plain = "allow_anonymous true\nuser root\n"
    cloud = stage.config("cloud.conf", f"listener 1883 0.0.0.0\n{plain}")
    bridge = "connection cloud\naddress mqtt.example:1883\ntopic home/# out 0\ntopic orders/# in 0\ncleansession true\n"
    hub = stage.config("hub.conf", f"listener 1884 0.0.0.0\n{plain}{bridge}")
    launches = [Launch(INTERNET, ("mosquitto", "-c", cloud), 1883), Launch(PHONE, ("mosquitto", "-c", hub), 1884)]
    tell = 'n=0; while :; do n=$((n + 1)); head -c $(($3 + n % 9 * 170)) /dev/zero | tr "\\0" x |'
    tell += ' mosquitto_pub -h "$0" -p "$1" -t "$2" -s; sleep "$4"; done'
    for number in range(4):
        thing = stage.phone, "1884", f"home/thing{number}", str(200 + 300 * number), str(2 + number)
        launches.append(Launch(LAN, _shell(tell, *thing)))
    launches.append(Launch(LAN, ("mosquitto_sub", "-h", stage.phone, "-p", "1884", "-t", "orders/#")))
    orders = address_of("mqtt.example"), "1883", "orders/lamp", "150", "7"
    return Cast([*launches, Launch(INTERNET, _shell(tell, *orders))])


def _unison(stage: Stage) -> Cast:
    """Two-way synchronisation of a folder that changes on both sides."""
    mine, theirs = stage.folder / "mine", stage.folder / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
    change = _writing("$0/$1$((n % 12))", 90_000, 6, 120_000, 3)
    server = "env", f"UNISON={stage.folder}/u1", "unison", "-socket", "5055"
    options = "-batch -auto -confirmbigdel=false -terse -ui text"
    loop = f'while :; do unison {options} "$0" "socket://sync.example:5055/$1"; sleep 2; done'
    return Cast([
        Launch(INTERNET, server, 5055),
        Launch(INTERNET, _shell(change, str(theirs), "there")),
        Launch(PHONE, _shell(change, str(mine), "here")),
        Launch(PHONE, ("env", f"UNISON={stage.folder}/u2", *_shell(loop, str(mine), str(theirs)))),
    ])  # fmt: skip


def _git_mirror(stage: Stage) -> Cast:
    """Fetches a repository that others write to, and pushes it to another server: what comes in goes out."""
    launches = []
    for name in ("one", "two"):
        base = stage.folder / f"forge-{name}"
        base.mkdir()
        subprocess.run(["git", "init", "-q", "--bare", str(base / "code.git")], check=True)
        address = f"--listen={address_of(f'forge-{name}.example')}"
        serve = "git", "daemon", "--reuseaddr", "--export-all", f"--base-path={base}", "--enable=receive-pack", address
        launches.append(Launch(INTERNET, serve, 9418))
    write = (
        'git init -q "$0" && cd "$0" && git config user.name a && git config user.email a@b.example; n=0;'
        ' while :; do n=$((n + 1)); head -c $((30000 + n % 8 * 60000)) /dev/urandom > "file$((n % 9))";'
        ' git add -A; git commit -q -m "$n"; git push -q "$1" HEAD:main; sleep 4; done'
    )
    work, bare = str(stage.folder / "work"), str(stage.folder / "forge-one" / "code.git")
    mirror = (
        'cd "$0" && git init -q --bare m.git && cd m.git; while :; do'
        " git fetch -q git://forge-one.example/code.git '+refs/heads/*:refs/heads/*';"
        " git push -q git://forge-two.example/code.git '+refs/heads/*:refs/heads/*'; sleep 3; done"
    )
    phone = stage.folder / "mirror"
    phone.mkdir()
    return Cast([*launches, Launch(INTERNET, _shell(write, work, bare)), Launch(PHONE, _shell(mirror, str(phone)))])


def _newsboat(stage: Stage) -> Cast:
    """Thirty feeds, asked for again and again."""
    chance = random.Random(stage.seed)
    for number in range(6):
        items = "".join(
            f"<item><title>{number}-{n}</title><description>{'news of ' * chance.randint(9, 180)}</description></item>"
            for n in range(chance.randint(5, 60))
        )
        feed = f'<?xml version="1.0"?><rss version="2.0"><channel><title>f{number}</title>{items}</channel></rss>'
        (stage.folder / "files" / f"feed{number}.xml").write_text(feed, encoding="utf-8")
    addresses = "\n".join(f"http://feed{n}.example/files/feed{n % 6}.xml" for n in range(30))
    urls, settings = stage.config("urls", addresses + "\n"), stage.config("settings", "reload-threads 3\n")
    loop = 'while :; do newsboat -q -x reload -u "$0" -C "$1" -c "$2"; sleep 5; done'
    return Cast([Launch(PHONE, _shell(loop, urls, settings, str(stage.folder / "cache.db")))])


def _wget(stage: Stage) -> Cast:
    """Saves pages of many sites with their pictures, to read offline."""
    target = stage.folder / "saved"
    target.mkdir()
    loop = (
        f'n={stage.seed % 500}; while :; do n=$((n + 1)); wget -q -p -H -P "$0" --no-check-certificate'
        ' "https://site$((n % 60)).example/front?n=$n"; sleep 2; done'
    )
    return Cast([Launch(PHONE, _shell(loop, str(target)))])


def _encode(rate: str) -> tuple[str, ...]:
    return ("-c:v", "mpeg2video", "-b:v", rate, "-f", "mpegts", "tcp://live.example:9000")


def _studio() -> Launch:
    listen = f"tcp://{address_of('live.example')}:9000?listen=1"
    return Launch(INTERNET, ("ffmpeg", "-nostdin", "-v", "error", "-i", listen, "-c", "copy", "-f", "null", "-"), 9000)


def _broadcast(_: Stage) -> Cast:
    """The camera's picture, encoded and sent to a studio."""
    camera = "-re", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=15"
    return Cast([_studio(), Launch(PHONE, ("ffmpeg", "-nostdin", "-v", "error", *camera, *_encode("1200k")))])


def _restream(stage: Stage) -> Cast:
    """A film that comes in at one rate and goes out at another, encoded again."""
    film = "-re", "-i", hls_files(stage)
    return Cast([_studio(), Launch(PHONE, ("ffmpeg", "-nostdin", "-v", "error", *film, *_encode("700k")))])


def _compressing_copy(stage: Stage) -> Cast:
    """Copies documents from one cloud to another and compresses them on the way."""
    chance = random.Random(stage.seed)
    for number in range(12):
        text = " ".join(
            f"{chance.choice(_WORDS)}{chance.randrange(10_000)}" for _ in range(chance.randint(9_000, 70_000))
        )
        (stage.folder / "files" / f"letter{number}.txt").write_text(text, encoding="ascii")
    loop = (
        'n=0; while :; do n=$((n + 1)); curl -sk "https://drive-one.example/files/letter$((n % 12)).txt" | gzip -c |'
        ' curl -sk -o /dev/null -T - "https://drive-two.example/letters/$n.gz"; sleep 1; done'
    )
    return Cast([Launch(PHONE, _shell(loop))])


def _turn_call(_: Stage) -> Cast:
    """A call by way of a TURN server, 50 datagrams a second each way; the other side echoes."""
    turn, other = address_of("turn.example"), address_of("callee.example")
    account = "range:range"
    server = "turnserver", "-n", "-L", turn, "-a", "-u", account, "-r", "example", "--no-tls", "--no-dtls", "--no-cli"
    peer = "turnutils_peer", "-L", other
    call = "turnutils_uclient", "-u", "range", "-w", "range", "-n", "100000", "-l", "160", "-c", "-e", other, turn
    return Cast(
        [Launch(INTERNET, (*server, "--log-file", "stdout"), 3478), Launch(INTERNET, peer), Launch(PHONE, call)]
    )


def _peer_video(stage: Stage) -> Cast:
    return Cast([stage.app("peer-video"), stage.app("peer-viewers", CUSTOMERS)])


def _pip(*packages: str) -> tuple[Need, ...]:
    return tuple(Need("pip", package, package) for package in packages)


_SSH: Final = apt("openssh-server", "sshd"), apt("openssh-client", "ssh")
_TROJAN_NEED: Final = apt("trojan")
_V2RAY: Final = (apt("v2ray"),)
_NCAT_NEED: Final = apt("ncat")
_TRANSMISSION: Final = apt("transmission-cli")
_MOSQUITTO: Final = apt("mosquitto"), apt("mosquitto-clients", "mosquitto_pub")
_FFMPEG: Final = (apt("ffmpeg"),)
_CHROMIUM: Final = apt("chromium")
_NCAT_BUILD: Final = accepting(_ncat, 3128, "connect")

HOLDOUT: Final[dict[str, Program]] = {
    "ncat": Program("ncat --proxy-type http", _NCAT_BUILD, (_NCAT_NEED,)),
    "proxy-chain": Program(
        "npm proxy-chain", accepting(_proxy_chain, 8000, "http"), (Need("npm", "proxy-chain", "proxy-chain"),)
    ),
    "mitmproxy": Program("mitmproxy", accepting(_mitmproxy, 8080, "connect"), (apt("mitmproxy", "mitmdump"),)),
    "stunnel": Program("stunnel, SOCKS in TLS", _stunnel, (apt("stunnel4"),)),
    "haproxy": Program("HAProxy, TCP", _haproxy, (apt("haproxy"),)),
    "trojan": Program("trojan server", _trojan, (_TROJAN_NEED,)),
    "v2ray-mux": Program("V2Ray, VMess with mux", _v2ray_mux, _V2RAY),
    "v2ray-udp": Program("V2Ray, SOCKS with UDP ASSOCIATE", _v2ray_udp, _V2RAY),
    "v2ray-reverse": Program("V2Ray, reverse bridge", _v2ray_reverse, _V2RAY),
    "httptunnel": Program("OpenSSH ssh -R in httptunnel", _httptunnel, (*_SSH, apt("httptunnel", "htc"))),
    "kcptun": Program("OpenSSH ssh -R in kcptun", _kcptun, (*_SSH, apt("kcptun", "kcptun-client"))),
    "iodine": Program("OpenSSH ssh -R in iodine", _iodine, (*_SSH, apt("iodine"))),
    "wireguard": Program(
        "wireguard-go, SOCKS inside", _wireguard,
        (apt("wireguard-go"), apt("wireguard-tools", "wg"), apt("microsocks"), apt("socat")),
    ),
    "asyncssh": Program("asyncssh, remote port", _carried("carry_ssh"), _pip("asyncssh")),
    "quic": Program("range script: QUIC by aioquic", _carried("carry_quic"), _pip("aioquic")),
    "http2": Program("range script: CONNECT in HTTP/2 by h2", _carried("carry_http2"), _pip("h2")),
    "rotating": Program(
        "range script: WebSockets that move between gateways", _carried("carry_rotate", 5), _pip("websockets")
    ),
    "websessions": Program(
        "range script: a WebSocket per session by aiohttp", _carried("carry_web", 5), _pip("aiohttp")
    ),
    "quic-browser": Program(
        "range script: QUIC by aioquic, beside chromium", _beside(_carried("carry_quic"), _browser),
        (*_pip("aioquic"), _CHROMIUM),
    ),
    "ncat-bittorrent": Program(
        "ncat --proxy-type http, beside transmission", _beside(_NCAT_BUILD, _transmission), (_NCAT_NEED, _TRANSMISSION)
    ),
    "syncthing": Program("Syncthing, three devices", _syncthing, (apt("syncthing"),)),
    "transmission": Program("transmission-cli BitTorrent", _transmission, (_TRANSMISSION,)),
    "restic": Program("restic to a REST server", _restic, (apt("restic"), apt("rclone"))),
    "mosquitto-bridge": Program("mosquitto, bridged to a cloud", _mosquitto_bridge, _MOSQUITTO),
    "unison": Program("unison", _unison, (apt("unison"),)),
    "git-mirror": Program("git, fetch here and push there", _git_mirror, (apt("git"),)),
    "newsboat": Program("newsboat", _newsboat, (apt("newsboat"),)),
    "wget": Program("wget, pages with their parts", _wget, (apt("wget"),)),
    "proxied-browser": Program("chromium behind a trojan client", _proxied_browser, (_CHROMIUM, _TROJAN_NEED)),
    "broadcast": Program("ffmpeg, live to a studio", _broadcast, _FFMPEG),
    "restream": Program("ffmpeg, a film encoded again", _restream, _FFMPEG),
    "compressing-copy": Program("curl, gzip, curl", _compressing_copy, (apt("curl"),)),
    "turn-call": Program("coturn's client and server", _turn_call, (apt("coturn", "turnserver"),)),
    "peer-video": Program("range script: peer-assisted video", _peer_video),
}  # fmt: skip
