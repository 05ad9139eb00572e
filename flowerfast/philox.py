"""All randomness: streams of numbers that follow from (purpose, seed, stream) alone.

`philox` is Philox4x64-10 for many counters at once: what `numpy.random.Philox` gives, without a loop over
samples. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011: ten rounds of multiplying two
of four 64-bit words and mixing the halves of the products with the others and the key.
"""

import numpy as np

STREAMS = 1 << 48
"""Streams that a purpose has: epochs that there can be."""
_NAMES = (
    "augment",
    "order",
    "split",
    "pack",
    "finish",
    "mix",
    "balance",
    "bootstrap",
    "tune",
    "dropout",
    "blocks",
)
_PURPOSES = {name: number for number, name in enumerate(_NAMES)}  # their order is that of all numbers
_MULTIPLIERS = np.array([[0xD2E7470EE14C6C93], [0xCA5A826395121157]], np.uint64)
_WEYL = np.array([[0x9E3779B97F4A7C15], [0xBB67AE8584CAA73B]], np.uint64)  # added to the key after each round
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_LOW_FACTORS, _HIGH_FACTORS = _MULTIPLIERS & _LOW, _MULTIPLIERS >> _HALF
_ROUNDS = 10


def generator(purpose: str, seed: int, stream: int) -> np.random.Generator:
    """Random generator of one purpose (augment, order, split, ...) and stream (epoch, class, trial)."""
    return np.random.Generator(np.random.Philox(key=stream_key(purpose, seed, stream)))


def stream_key(purpose: str, seed: int, stream: int) -> np.ndarray:
    """The generator's key: uint64 (2,)."""
    return np.array([seed, (_PURPOSES[purpose] << 48) | stream], np.uint64)


def uniforms(key: np.ndarray, places: np.ndarray, blocks: int) -> np.ndarray:
    """Uniform draws in [0, 1) of each place of a stream, which owns so many blocks: float64 (n, 4 blocks).

    `key` is a generator's, `places` are integers (n,).
    """
    first = np.asarray(places).astype(np.uint64) * np.uint64(blocks)
    counters = first[:, None] + np.arange(1, blocks + 1, dtype=np.uint64)
    raw = philox(key, counters.reshape(-1)).reshape(len(first), 4 * blocks)
    return (raw >> np.uint64(11)) * 2.0**-53


def philox(key: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """The four words of each counter's block: uint64 (n, 4).

    `key` is uint64 (2,), `counters` uint64 (n,), the lowest of a counter's four words; the others are 0. The
    first block of `np.random.Philox(key=key)` is that of counter 1.
    """
    # Words 0 and 2 of all counters, which are multiplied, and words 1 and 3.
    x = np.stack([counters, np.zeros_like(counters)])
    y, a, b, c, d = (np.zeros_like(x) for _ in range(5))
    key = key.reshape(2, 1)
    for _ in range(_ROUNDS):
        # High words of the 128-bit products, from 32-bit halves; all steps in place, none overflows.
        np.bitwise_and(x, _LOW, out=a)
        np.right_shift(x, _HALF, out=b)
        np.multiply(a, _LOW_FACTORS, out=c)
        np.right_shift(c, _HALF, out=c)
        np.multiply(b, _LOW_FACTORS, out=d)
        np.add(c, d, out=c)
        np.multiply(a, _HIGH_FACTORS, out=a)
        np.multiply(b, _HIGH_FACTORS, out=b)
        np.bitwise_and(c, _LOW, out=d)
        np.add(a, d, out=a)
        np.right_shift(a, _HALF, out=a)
        np.right_shift(c, _HALF, out=c)
        np.add(b, c, out=b)
        np.add(b, a, out=b)
        np.multiply(x, _MULTIPLIERS, out=x)  # the low words
        np.bitwise_xor(b[::-1], y, out=a)
        np.bitwise_xor(a, key, out=a)
        x, y, a = a, x[::-1], y
        key = key + _WEYL
    return np.stack([x[0], y[0], x[1], y[1]], axis=1)
