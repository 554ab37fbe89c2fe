"""What a relay may do so that its two legs look less alike. Parameters only; the links apply them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Evasion:
    """Parameters of both ends of the agent's links. All times in seconds.

    delay_s: each session's own delay lies between these. jitter_s: mean of a further, exponential delay per frame.
    padding: each frame grows by up to this share. chaff_bytes_s: dummy bytes a second, both ways, while a link is idle.
    batch_s: frames leave together, this far apart. compress: what leaves together is compressed.
    rechunk: payload is cut anew, at random sizes. links: parallel ones. gateways: how many addresses they reach.
    active_only: relays only while the user is active. own_traffic: the app's own traffic beside it, by kind.
    """

    delay_s: tuple[float, float] = (0.0, 0.0)
    jitter_s: float = 0.0
    padding: float = 0.0
    chaff_bytes_s: int = 0
    batch_s: tuple[float, float] = (0.0, 0.0)
    compress: bool = False
    rechunk: bool = False
    links: int = 1
    gateways: int = 1
    active_only: bool = False
    own_traffic: str = ""
