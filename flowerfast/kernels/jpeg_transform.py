"""Inverse DCT of eight blocks at a time, in 13-bit integers.

The method is that of Loeffler, Ligtenberg and Moschytz ("Practical fast 1-D DCT algorithms with 11
multiplications", ICASSP 1989) with the constants and rounding of libjpeg's accurate integer transform, so
that samples are equal to its. Blocks lie side by side: the compiler makes one vector of the same coefficient
of all.
"""

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.vectors import address_of, store_transposed

LANES = 8
"""Blocks that are transformed at once."""
_HALF = 1 << 14
_i4 = np.int32  # numba widens int32 to int64 at every step, and a vector of these is half as long


@kernel
def _transform(s, shift):
    """One line of eight values, (s0, ..., s7), int32: the sums shifted right by `shift`, rounded."""
    s0, s1, s2, s3, s4, s5, s6, s7 = s
    half = _i4(1 << (shift - 1))
    z1 = _i4(_i4(s2 + s6) * _i4(4433))
    e2, e3 = _i4(z1 - _i4(s6 * _i4(15137))), _i4(z1 + _i4(s2 * _i4(6270)))
    e0, e1 = _i4(_i4(_i4(s0 + s4) << _i4(13)) + half), _i4(_i4(_i4(s0 - s4) << _i4(13)) + half)
    a0, a3, a1, a2 = _i4(e0 + e3), _i4(e0 - e3), _i4(e1 + e2), _i4(e1 - e2)
    z1, z2, z3, z4 = _i4(s7 + s1), _i4(s5 + s3), _i4(s7 + s3), _i4(s5 + s1)
    z5 = _i4(_i4(z3 + z4) * _i4(9633))
    z1, z2 = _i4(z1 * _i4(-7373)), _i4(z2 * _i4(-20995))
    z3, z4 = _i4(_i4(z3 * _i4(-16069)) + z5), _i4(_i4(z4 * _i4(-3196)) + z5)
    b0 = _i4(_i4(s7 * _i4(2446)) + _i4(z1 + z3))
    b1 = _i4(_i4(s5 * _i4(16819)) + _i4(z2 + z4))
    b2 = _i4(_i4(s3 * _i4(25172)) + _i4(z2 + z3))
    b3 = _i4(_i4(s1 * _i4(12299)) + _i4(z1 + z4))
    n = _i4(shift)
    return (
        _i4(a0 + b3) >> n,
        _i4(a1 + b2) >> n,
        _i4(a2 + b1) >> n,
        _i4(a3 + b0) >> n,
        _i4(a3 - b0) >> n,
        _i4(a2 - b1) >> n,
        _i4(a1 - b2) >> n,
        _i4(a0 - b3) >> n,
    )


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
def _put(work, start, step, lane, values):
    """Write what `_line` reads."""
    at, far = start * LANES + lane, step * LANES
    work[at], work[at + far], work[at + 2 * far], work[at + 3 * far] = (
        values[0],
        values[1],
        values[2],
        values[3],
    )
    work[at + 4 * far], work[at + 5 * far] = values[4], values[5]
    work[at + 6 * far], work[at + 7 * far] = values[6], values[7]


@kernel
def _level(value):
    """Sample of a transformed value, which lies around 0."""
    return np.uint8(min(max(_i4(value + _i4(128)), _i4(0)), _i4(255)))


@kernel
def inverse_transform(work, square, out, pitch):
    """Samples of eight blocks that lie side by side.

    Args:
        work: int32 (64 * LANES,), dequantised coefficients, the same one of all blocks next to each other; is
            overwritten.
        square: uint8 (64 * LANES,), scratch.
        out: uint8, row y of the samples goes to out[y * pitch : y * pitch + 64].

    Returns whether 16 bits were enough for every sum of the second pass, in which libjpeg has no more.
    """
    for column in range(8):
        for lane in range(LANES):
            _put(work, column, 8, lane, _transform(_line(work, column, 8, lane), 11))
    good = _fits(work)
    for row in range(8):
        for lane in range(LANES):
            _put(work, row * 8, 1, lane, _transform(_line(work, row * 8, 1, lane), 18))
    for i in range(64 * LANES):  # apart from the loop above, which is too short to be a vector loop otherwise
        square[i] = _level(work[i])
    for row in range(8):
        store_transposed(address_of(square) + row * 8 * LANES, address_of(out) + row * pitch)
    return good


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
def shrinking_transform(work, size, out, pitch):
    """Samples of eight blocks at 1/2, 1/4 or 1/8 of their size: `size` is 4, 2 or 1.

    As libjpeg shrinks: a transform of the lowest `size` x `size` frequencies, those above folded in where
    they count. `work`, `out` and what is returned are as in `inverse_transform`.
    """
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
