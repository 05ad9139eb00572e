"""The inverse DCT of eight blocks as vector instructions, see `jpeg_transform`.

Products of two coefficients with two constants are added in one instruction (pmaddwd) where there is AVX2.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from flowerfast.kernels.vectors import lanes, packed, pair_products, shuffled

_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_SHORTS16, _INTS8 = ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)
_ROWS = ((0, 4), (2, 6), (7, 1), (3, 5))
"""Lines whose values lie side by side."""
_FITS = 1 << 14


@intrinsic
def transform_eight(_context: Any, _work: Any, _out: Any, _pitch: Any) -> Any:
    """Samples of eight blocks that lie side by side: whether 16 bits were enough for the second pass.

    Args:
        work: address of int16 (8, 4, 8, 2): by column, pair of rows, block, and row of the pair.
        out: address of uint8; rows of 64 samples begin `pitch` bytes apart.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        work, out, pitch = arguments
        columns = builder.inttoptr(work, _SHORTS16.as_pointer())
        made = {}
        for column in range(8):
            pairs = [
                builder.load(builder.gep(columns, [_I32(4 * column + pair)]), align=2) for pair in range(4)
            ]
            made[column] = _line(builder, pairs, 11)
        seen = _shorts(0)
        for row in range(8):
            pairs = [_paired(builder, made[first][row], made[second][row]) for first, second in _ROWS]
            for pair in pairs:
                seen = builder.or_(seen, builder.add(pair, _shorts(_FITS)))
            _store_row(builder, _line(builder, pairs, 18), builder.add(out, builder.mul(pitch, _I64(row))))
        over = builder.bitcast(builder.and_(seen, _shorts(-2 * _FITS)), ir.IntType(256))
        return builder.zext(builder.icmp_unsigned("==", over, ir.IntType(256)(0)), _I64)

    return types.intp(types.intp, types.intp, types.intp), generate


def _int(value: int) -> Any:
    return ir.Constant(_INTS8, [value] * 8)


def _shorts(value: int) -> Any:
    return ir.Constant(_SHORTS16, [value] * 16)


def _line(builder: Any, pairs: list[Any], shift: int) -> list[Any]:
    """Eight values s of each block: the sums shifted right by `shift`, rounded, each int32 (8,).

    `pairs` are (s0, s4), (s2, s6), (s7, s1), (s3, s5) of the blocks, int16 (8, 2).
    """

    def sum_of(pair: Any, first: int, second: int) -> Any:
        return pair_products(builder, pair, ir.Constant(_SHORTS16, [first, second] * 8))

    p04, p26, p71, p35 = pairs
    half = _int(1 << (shift - 1))
    e0 = builder.add(sum_of(p04, 8192, 8192), half)
    e1 = builder.add(sum_of(p04, 8192, -8192), half)
    e2, e3 = sum_of(p26, 4433, -10704), sum_of(p26, 10703, 4433)
    even = builder.add(e0, e3), builder.add(e1, e2), builder.sub(e1, e2), builder.sub(e0, e3)
    both = builder.add(p71, p35)  # s7 + s3, s1 + s5
    z3, z4 = sum_of(both, -6436, 9633), sum_of(both, 9633, 6437)
    odd = (
        builder.add(sum_of(p71, -7373, 4926), z4),
        builder.add(sum_of(p35, 4177, -20995), z3),
        builder.add(sum_of(p35, -20995, -4176), z4),
        builder.add(sum_of(p71, -4927, -7373), z3),
    )
    sums = [builder.add(a, b) for a, b in zip(even, odd, strict=True)]
    sums += [builder.sub(a, b) for a, b in zip(reversed(even), reversed(odd), strict=True)]
    return [builder.ashr(each, _int(shift)) for each in sums]


def _paired(builder: Any, first: Any, second: Any) -> Any:
    """Two times int32 (8,) to int16 (8, 2); what does not fit becomes the next that does."""
    return shuffled(builder, _packed(builder, first, second, 16), [n // 2 + 8 * (n % 2) for n in range(16)])


def _store_row(builder: Any, values: list[Any], target: Any) -> None:
    """Transformed values by column and block, which lie around 0, to samples in a row, block by block."""
    halves = []
    for first in (0, 4):
        upper, lower = (
            builder.add(_packed(builder, values[n], values[n + 1], 16), _shorts(128))
            for n in (first, first + 2)
        )
        columns = _packed(builder, upper, lower, 8)
        fours = shuffled(builder, columns, [8 * (n % 4) + n // 4 for n in range(32)])
        halves.append(builder.bitcast(fours, _INTS8))
    all_ = builder.shuffle_vector(*halves, lanes(n // 2 + 8 * (n % 2) for n in range(16)))
    builder.store(all_, builder.inttoptr(target, all_.type.as_pointer()), align=1)


def _packed(builder: Any, first: Any, second: Any, bits: int) -> Any:
    """Two vectors as `packed` makes one of them, all of the first before the second."""
    half = first.type.count // 2
    order = [n % half + n // half % 2 * 2 * half + n // (2 * half) * half for n in range(4 * half)]
    return shuffled(builder, packed(builder, first, second, bits), order)
