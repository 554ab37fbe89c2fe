"""Random numbers for kernels: a stream of its own for each slice, and numbers that depend on what they are asked about.

SplitMix64 (Steele, Lea and Flood 2014), the same on every machine and version of NumPy.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from relaywatch.model.compilation import compiled

State = npt.NDArray[np.uint64]
"""One number: where a stream has come to. Kernels change it in place."""
GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_30: Final = np.uint64(30)
_27: Final = np.uint64(27)
_31: Final = np.uint64(31)
_11: Final = np.uint64(11)
_UNIT: Final = 1.0 / (1 << 53)


def stream_of(seed: int, *numbers: int) -> State:
    """A stream for one purpose: the same seed and numbers give the same one."""
    return np.random.SeedSequence(seed, spawn_key=numbers).generate_state(1, np.uint64).astype(np.uint64)


def key_of(seed: int, *numbers: int) -> np.uint64:
    """A key for numbers that depend on what they are asked about."""
    return np.uint64(stream_of(seed, *numbers)[0])


@compiled
def mixed(bits: np.uint64) -> np.uint64:
    """The bits, so mixed that neighbours have nothing in common."""
    bits = (bits ^ (bits >> _30)) * _FIRST
    bits = (bits ^ (bits >> _27)) * _SECOND
    return bits ^ (bits >> _31)


@compiled
def uniform(state: State) -> float:
    """The stream's next number, 0 to below 1."""
    state[0] += GAMMA
    return float(mixed(state[0]) >> _11) * _UNIT


@compiled
def normals(state: State) -> tuple[float, float]:
    """The stream's next two numbers of the standard normal distribution (Box and Muller 1958)."""
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform(state)))
    angle = 2.0 * np.pi * uniform(state)
    return radius * np.cos(angle), radius * np.sin(angle)


@compiled
def bits_of(key: np.uint64, number: int) -> np.uint64:
    """Bits that depend on the key and the number alone."""
    return mixed(key + np.uint64(number) * GAMMA)


@compiled
def share_of(key: np.uint64, number: int) -> float:
    """A number from 0 to below 1 that depends on the key and the number alone."""
    return float(bits_of(key, number) >> _11) * _UNIT
