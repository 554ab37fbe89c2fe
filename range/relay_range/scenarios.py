"""The declared scenarios: what runs, how it hides, what its customers do, and what its label is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from relay_range.evasion import Evasion

RELAY: Final = "relay"
BENIGN: Final = "benign"
SANCTIONED: Final = "sanctioned-relay"
ACCEPTED: Final = "accepted"
TUNNEL: Final = "tunnel"
BACK_CONNECT: Final = "back_connect"
NONE: Final = ""
MAIN: Final = "main"
HOLDOUT: Final = "holdout"
GROUPS: Final = (MAIN, HOLDOUT)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One app on one phone.

    topology: how client sessions reach the phone. program: a name of programs.PROGRAMS. workload: of customers.plan.
    context: the scripted one (bg, off, fg, fgidle, mix). network: the phone's radio. stretch: times the usual duration.
    group: main, or holdout for programs that no detector is ever fitted to.
    """

    name: str
    label: str
    topology: str
    program: str
    workload: str = ""
    evasion: Evasion = field(default_factory=Evasion)
    context: str = "bg"
    network: str = "wifi"
    stretch: float = 1.0
    group: str = MAIN

    @property
    def family(self) -> str:
        """What to leave out together in a split by program: the program, whatever its mode."""
        if self.program == "back-connect":
            return self.program
        return self.program.removeprefix("app-") if self.program.startswith("app-") else self.program.partition("-")[0]


def _relay(name: str, topology: str, program: str, workload: str, **more: object) -> Scenario:
    return Scenario(name, RELAY, topology, program, workload, **more)  # type: ignore[arg-type]


def _benign(name: str, program: str, context: str = "bg", network: str = "wifi") -> Scenario:
    return Scenario(name, BENIGN, NONE, program, context=context, network=network)


_LISTENERS: Final = [
    _relay("microsocks-scrape", ACCEPTED, "microsocks", "scrape"),
    _relay("microsocks-slow", ACCEPTED, "microsocks", "slow", network="lte", context="mix"),
    _relay("microsocks-video", ACCEPTED, "microsocks", "video", network="5g"),
    _relay("microsocks-low-and-slow", ACCEPTED, "microsocks", "low-and-slow", stretch=3),
    _relay("dante-mixed", ACCEPTED, "dante", "mixed", network="5g"),
    _relay("dante-udp-game", ACCEPTED, "dante-udp", "udp"),
    _relay("tinyproxy-connect-scrape", ACCEPTED, "tinyproxy", "scrape", network="lte"),
    _relay("tinyproxy-plain-http", ACCEPTED, "tinyproxy-plain", "scrape"),
    _relay("squid-connect-mixed", ACCEPTED, "squid", "mixed"),
    _relay("privoxy-connect-scrape", ACCEPTED, "privoxy", "scrape", network="5g"),
    _relay("proxy-py-upload", ACCEPTED, "proxy.py", "upload"),
    _relay("pproxy-socks-mixed", ACCEPTED, "pproxy", "mixed", network="lte"),
    _relay("npm-proxy-scrape", ACCEPTED, "npm-proxy", "scrape"),
    _relay("shadowsocks-scrape", ACCEPTED, "shadowsocks", "scrape", network="5g"),
    _relay("shadowsocks-video", ACCEPTED, "shadowsocks", "video", context="fgidle"),
    _relay("socat-forwarder", ACCEPTED, "socat", "scrape"),
]
_REVERSE: Final = [
    _relay("ssh-dynamic-scrape", TUNNEL, "ssh-dynamic", "scrape", network="5g"),
    _relay("ssh-dynamic-video", TUNNEL, "ssh-dynamic", "video"),
    _relay("ssh-dynamic-low-and-slow", TUNNEL, "ssh-dynamic", "low-and-slow", stretch=3),
    _relay("ssh-to-microsocks-mixed", TUNNEL, "ssh-microsocks", "mixed", network="lte"),
    _relay("agent-binary-scrape", TUNNEL, "agent-binary", "scrape"),
    _relay("agent-json-scrape", TUNNEL, "agent-json", "scrape", network="lte"),
    _relay("agent-json-upload", TUNNEL, "agent-json", "upload"),
    _relay("agent-websocket-mixed", TUNNEL, "agent-websocket", "mixed", network="5g"),
    _relay("agent-websocket-four-links", TUNNEL, "agent-websocket", "scrape", evasion=Evasion(links=4)),
    _relay("agent-json-slow", TUNNEL, "agent-json", "slow", context="fgidle"),
    _relay("agent-into-the-lan", TUNNEL, "agent-lan", "scrape"),
    _relay("back-connect-scrape", BACK_CONNECT, "back-connect", "scrape"),
    _relay("back-connect-mixed", BACK_CONNECT, "back-connect", "mixed", network="5g"),
    _relay("pproxy-backward-scrape", BACK_CONNECT, "pproxy-backward", "scrape"),
]
_EVADING: Final = [
    _relay("evade-delay", TUNNEL, "agent-binary", "scrape", evasion=Evasion(delay_s=(1.0, 5.0))),
    _relay("evade-delay-jitter", TUNNEL, "agent-binary", "mixed", evasion=Evasion(delay_s=(1.0, 3.0), jitter_s=0.5)),
    _relay("evade-padding", TUNNEL, "agent-binary", "scrape", evasion=Evasion(padding=0.3), network="5g"),
    _relay("evade-chaff", TUNNEL, "agent-binary", "scrape", evasion=Evasion(chaff_bytes_s=8_000)),
    _relay(
        "evade-batch-compress", TUNNEL, "agent-binary", "scrape", evasion=Evasion(batch_s=(1.0, 5.0), compress=True)
    ),
    _relay("evade-rechunk", TUNNEL, "agent-json", "scrape", evasion=Evasion(rechunk=True, jitter_s=0.05)),
    _relay("evade-split-one-gateway", TUNNEL, "agent-binary", "mixed", evasion=Evasion(links=4, rechunk=True)),
    _relay(
        "evade-split-gateways", TUNNEL, "agent-binary", "scrape", evasion=Evasion(links=8, gateways=8, rechunk=True)
    ),
    _relay("evade-low-and-slow", TUNNEL, "agent-binary", "low-and-slow", stretch=4, context="off", network="lte"),
    _relay("evade-while-active", TUNNEL, "agent-binary", "scrape", evasion=Evasion(active_only=True), context="mix"),
    _relay(
        "evade-all",
        TUNNEL,
        "agent-binary",
        "scrape",
        evasion=Evasion((0.5, 2.0), 0.2, 0.3, 4_000, (0.5, 1.5), compress=True, rechunk=True, links=3, gateways=3),
    ),
    _relay("evade-back-connect-delay", BACK_CONNECT, "back-connect", "scrape", evasion=Evasion(delay_s=(1.0, 4.0))),
    _relay(
        "trojan-advertised-agent",
        TUNNEL,
        "agent-binary",
        "scrape",
        evasion=Evasion(own_traffic="advertised"),
        context="fg",
    ),
    _relay("trojan-video-microsocks", ACCEPTED, "microsocks", "scrape", evasion=Evasion(own_traffic="video")),
    _relay(
        "trojan-browser-websocket",
        TUNNEL,
        "agent-websocket",
        "mixed",
        evasion=Evasion(own_traffic="browse"),
        context="fg",
        network="5g",
    ),
    _relay(
        "trojan-podcast-chaff",
        TUNNEL,
        "agent-binary",
        "scrape",
        evasion=Evasion(chaff_bytes_s=4_000, padding=0.2, own_traffic="podcast"),
    ),
]
_ORDINARY: Final = [
    _benign("chromium-browse", "chromium", "fg"),
    _benign("script-browse", "app-browse", "fg", "lte"),
    _benign("mosquitto-push", "mosquitto", "off", "lte"),
    _benign("push-fetch", "app-push", "bg", "5g"),
    _benign("ffmpeg-hls", "ffmpeg-hls", "fgidle"),
    _benign("script-video", "app-video", "fgidle", "5g"),
    _benign("aria2-bittorrent", "aria2"),
    _benign("rsync-sync", "rsync", "bg"),
    _benign("rclone-cloud-to-cloud", "rclone", "bg"),
    _benign("script-cloud-copy", "app-cloud-copy", "bg", "5g"),
    _benign("mail-poll", "app-mail", "bg", "lte"),
    _benign("openvpn-client", "openvpn", "mix"),
    _benign("wifi-file-server", "file-server", "fgidle"),
    _benign("cast-receiver", "cast", "bg"),
    _benign("screen-share", "app-screen-share", "fg"),
    _benign("podcast", "app-podcast", "bg", "lte"),
    _benign("backup-upload", "app-backup", "off"),
    _benign("iot-hub", "iot-hub", "bg"),
    _benign("chat-media", "app-messenger", "mix", "5g"),
    _benign("voice-call", "app-call", "fgidle", "lte"),
    _benign("online-game", "app-game", "fg"),
    _benign("read-later", "app-read-later", "bg"),
    _benign("photo-share", "app-photo-share", "fg", "5g"),
    _benign("crash-reporter", "app-crash-reporter", "off", "lte"),
    _benign("advertised-game", "app-advertised", "fg"),
    _benign("speed-test", "app-speed-test", "fg", "5g"),
    Scenario("own-page-by-tunnel", BENIGN, NONE, "ssh-own-page", "scrape", context="fgidle"),
    Scenario("lan-dns-forwarder", SANCTIONED, ACCEPTED, "dnsmasq", context="bg"),
    Scenario("tether-tinyproxy", SANCTIONED, ACCEPTED, "tinyproxy-lan", "scrape", context="bg"),
    Scenario("tether-microsocks", SANCTIONED, ACCEPTED, "microsocks-lan", "mixed", context="mix", network="lte"),
]


def _held(name: str, topology: str, program: str, workload: str, **more: object) -> Scenario:
    return _relay(f"holdout-{name}", topology, program, workload, group=HOLDOUT, **more)


def _held_ordinary(name: str, program: str, context: str = "bg", network: str = "wifi") -> Scenario:
    return replace(_benign(f"holdout-{name}", program, context, network), group=HOLDOUT)


_HELD_RELAYS: Final = [
    _held("ncat-varied", ACCEPTED, "ncat", "varied"),
    _held("proxy-chain-hop", ACCEPTED, "proxy-chain", "hop", network="5g"),
    _held("mitmproxy-scrape", ACCEPTED, "mitmproxy", "scrape"),
    _held("stunnel-socks-varied", ACCEPTED, "stunnel", "varied", network="lte", context="mix"),
    _held("haproxy-heavy", ACCEPTED, "haproxy", "heavy", network="5g"),
    _held("trojan-varied", ACCEPTED, "trojan", "varied"),
    _held("v2ray-mux-varied", ACCEPTED, "v2ray-mux", "varied", network="5g"),
    _held("v2ray-udp-game", ACCEPTED, "v2ray-udp", "udp"),
    _held("v2ray-reverse-scrape", TUNNEL, "v2ray-reverse", "scrape"),
    _held("httptunnel-mixed", TUNNEL, "httptunnel", "mixed", network="lte"),
    _held("kcptun-varied", TUNNEL, "kcptun", "varied", network="5g"),
    _held("iodine-few", TUNNEL, "iodine", "low-and-slow", stretch=2),
    _held("wireguard-mixed", TUNNEL, "wireguard", "mixed", network="lte"),
    _held("asyncssh-varied", TUNNEL, "asyncssh", "varied", context="fgidle"),
    _held("quic-mixed", TUNNEL, "quic", "mixed", network="5g"),
    _held("http2-heavy", TUNNEL, "http2", "heavy"),
    _held("rotating-varied", TUNNEL, "rotating", "varied", network="lte"),
    _held("websessions-varied", BACK_CONNECT, "websessions", "varied"),
    _held("trojan-video-http2", TUNNEL, "http2", "scrape", evasion=Evasion(own_traffic="video"), context="fgidle"),
    _held("trojan-browser-quic", TUNNEL, "quic-browser", "scrape", context="fg", network="5g"),
    _held("trojan-bittorrent-ncat", ACCEPTED, "ncat-bittorrent", "scrape"),
]
_HELD_ORDINARY: Final = [
    _held_ordinary("syncthing", "syncthing"),
    _held_ordinary("transmission", "transmission", network="5g"),
    _held_ordinary("restic-backup", "restic", "off"),
    _held_ordinary("mosquitto-bridge", "mosquitto-bridge"),
    _held_ordinary("unison-sync", "unison", network="5g"),
    _held_ordinary("git-mirror", "git-mirror"),
    _held_ordinary("newsboat-feeds", "newsboat", network="lte"),
    _held_ordinary("wget-offline-reader", "wget"),
    _held_ordinary("proxied-browser", "proxied-browser", "fg", "5g"),
    _held_ordinary("live-broadcast", "broadcast", "fgidle"),
    _held_ordinary("restream-transcoded", "restream", "fgidle", "5g"),
    _held_ordinary("compressing-cloud-copy", "compressing-copy"),
    _held_ordinary("turn-call", "turn-call", "fg", "lte"),
    _held_ordinary("link-preview", "app-link-preview", "bg", "5g"),
    _held_ordinary("peer-assisted-video", "peer-video", "fgidle"),
]
SCENARIOS: Final[tuple[Scenario, ...]] = (
    *_LISTENERS, *_REVERSE, *_EVADING, *_ORDINARY, *_HELD_RELAYS, *_HELD_ORDINARY,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Network:
    """The phone's radio. loss: share of packets."""

    up_mbit: float
    down_mbit: float
    delay_s: float
    jitter_s: float
    loss: float


NETWORKS: Final = {
    "wifi": Network(20, 30, 0.003, 0.001, 0.0),
    "5g": Network(12, 30, 0.010, 0.003, 0.0),
    "lte": Network(6, 16, 0.022, 0.006, 0.0005),
}


def context(kind: str, begin: float, end: float) -> dict[str, object]:
    """The scripted context: foreground and screen intervals, moments of interaction, a foreground service."""
    third = (end - begin) / 3
    intervals = {
        "bg": [],
        "off": [],
        "fg": [[begin, end]],
        "fgidle": [[begin, end]],
        "mix": [[begin + third, begin + 2 * third]],
    }[kind]
    touched = [start + 4.0 * n for start, stop in intervals for n in range(int((stop - start) / 4))]
    return {
        "foreground": intervals,
        "foreground_service": kind in ("bg", "off", "mix"),
        "screen_on": [[begin, end]] if kind == "bg" else intervals,
        "interaction": touched[:1] if kind == "fgidle" else touched,
    }
