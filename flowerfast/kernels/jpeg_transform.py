"""Inverse DCT of eight blocks at a time, in 13-bit integers.

The method is that of Loeffler, Ligtenberg and Moschytz ("Practical fast 1-D DCT algorithms with 11
multiplications", ICASSP 1989) with the constants and rounding of libjpeg's accurate integer transform, so
that samples are equal to its. Blocks lie side by side: the same coefficient of all is one vector.
"""

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.jpeg_tables import ZIGZAG
from flowerfast.kernels.transform_lines import transform_eight
from flowerfast.kernels.vectors import address_of

LANES = 8
"""Blocks that are transformed at once."""
_HALF = 1 << 14
_i4 = np.int32  # numba widens int32 to int64 at every step, and a vector of these is half as long

# Coefficients whose products are added lie side by side: of rows 0 and 4, 2 and 6, 7 and 1, 3 and 5.
_PAIRS = np.array([(0, 0), (2, 1), (1, 0), (3, 0), (0, 1), (3, 1), (1, 1), (2, 0)])
_WHERE = np.array([2 * LANES * (4 * (n % 8) + _PAIRS[n // 8, 0]) + _PAIRS[n // 8, 1] for n in range(64)])
"""Of a block's coefficients, row by row, how far behind the first."""
PLACE = _WHERE[ZIGZAG]
"""How far behind the first coefficient of its block the k-th of a file lies, int64 (64,)."""


@kernel
def inverse_transform(work, out, pitch):
    """Samples of eight blocks that lie side by side.

    Args:
        work: int16 (64 * LANES,), dequantised coefficients, see PLACE; each block begins two further.
        out: uint8, row y of the samples goes to out[y * pitch : y * pitch + 64].

    Returns whether 16 bits were enough for every sum of the second pass, in which libjpeg has no more.
    """
    return transform_eight(address_of(work), address_of(out), pitch) != 0


@kernel
def _line(work, start, step, lane):
    """Eight values of one lane, `step` coefficients apart."""
    at, far = start * LANES + lane, step * LANES
    return (
        work[at],
        work[at + far],
        work[at + 2 * far],
        work[at + 3 * far],
        work[at + 4 * far],
        work[at + 5 * far],
        work[at + 6 * far],
        work[at + 7 * far],
    )


@kernel
def _level(value):
    """Sample of a transformed value, which lies around 0."""
    return np.uint8(min(max(_i4(value + _i4(128)), _i4(0)), _i4(255)))


@kernel
def _fits(work):
    """Whether the sum of any two values fits into 16 bits."""
    seen, half, far = _i4(0), _i4(_HALF), 16 * LANES
    for i in range(far):  # four at a time: of one, each step would wait for the one before
        seen |= _i4(work[i] + half) | _i4(work[i + far] + half)
        seen |= _i4(work[i + 2 * far] + half) | _i4(work[i + 3 * far] + half)
    return 0 <= seen < 2 * _HALF


@kernel
def _shrink(work, start, step, lane, size, bits):
    """Eight values of one lane, `step` coefficients apart, to `size` ones in their places, 4 or 2."""
    _, s1, s2, s3, _, s5, s6, s7 = _line(work, start, step, lane)
    at, far = start * LANES + lane, step * LANES
    if size == 4:
        shift = _i4(bits + 1)
        base = _i4(_i4(work[at] << _i4(14)) + (_i4(1) << _i4(bits)))
        even = _i4(_i4(s2 * _i4(15137)) - _i4(s6 * _i4(6270)))
        inner = _i4(_i4(s5 * _i4(11893)) - _i4(s7 * _i4(1730)))
        inner = _i4(inner + _i4(_i4(s1 * _i4(8697)) - _i4(s3 * _i4(17799))))
        outer = _i4(_i4(s3 * _i4(7373)) + _i4(s1 * _i4(20995)))
        outer = _i4(outer - _i4(_i4(s7 * _i4(4176)) + _i4(s5 * _i4(4926))))
        high, low = _i4(base + even), _i4(base - even)
        work[at], work[at + 3 * far] = _i4(high + outer) >> shift, _i4(high - outer) >> shift
        work[at + far], work[at + 2 * far] = _i4(low + inner) >> shift, _i4(low - inner) >> shift
    else:
        shift = _i4(bits + 2)
        base = _i4(_i4(work[at] << _i4(15)) + (_i4(1) << _i4(bits + 1)))
        odd = _i4(_i4(s5 * _i4(6967)) - _i4(s7 * _i4(5906)))
        odd = _i4(odd + _i4(_i4(s1 * _i4(29692)) - _i4(s3 * _i4(10426))))
        work[at], work[at + far] = _i4(base + odd) >> shift, _i4(base - odd) >> shift


@kernel
def shrinking_transform(coefficients, work, size, out, pitch):
    """Samples of eight blocks at 1/2, 1/4 or 1/8 of their size: `size` is 4, 2 or 1.

    As libjpeg shrinks: a transform of the lowest `size` x `size` frequencies, those above folded in where
    they count. `coefficients`, `out` and what is returned are as in `inverse_transform`; `work` is scratch,
    int32 (64 * LANES,).
    """
    for n in range(64):
        for lane in range(LANES):
            work[n * LANES + lane] = coefficients[_WHERE[n] + 2 * lane]
    if size == 1:
        good = True
        for lane in range(LANES):
            value = _i4(work[lane] + _i4(4)) >> _i4(3)
            good = good and -512 <= value < 512  # libjpeg's table of levels ends there
            out[lane] = _level(value)
        return good
    for column in range(8):
        if column != 4 and (size == 4 or column == 0 or column % 2 == 1):
            for lane in range(LANES):
                _shrink(work, column, 8, lane, size, 11)
    good = _fits(work)
    for row in range(size):
        for lane in range(LANES):
            _shrink(work, row * 8, 1, lane, size, 18)
            for column in range(size):
                value = work[(row * 8 + column) * LANES + lane]
                out[row * pitch + lane * size + column] = _level(value)
    return good
