"""The inverse DCT of eight blocks as vector instructions, see `jpeg_transform`.

Products of two coefficients with two constants are added in one instruction (pmaddwd) where there is AVX2.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from flowerfast.kernels.vectors import lanes, pair_products

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES8, _SHORTS16, _INTS8 = ir.VectorType(_I8, 8), ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)
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
        made, seen = {}, _int(0)
        for column in range(8):
            pairs = [
                builder.load(builder.gep(columns, [_I32(4 * column + pair)]), align=2) for pair in range(4)
            ]
            made[column] = _line(builder, pairs, 11)
            for value in made[column]:
                seen = builder.or_(seen, builder.add(value, _int(_FITS)))
        over = builder.and_(seen, _int(-2 * _FITS))
        for row in range(8):
            pairs = [_paired(builder, made[first][row], made[second][row]) for first, second in _ROWS]
            levels = [_level(builder, value) for value in _line(builder, pairs, 18)]
            target = builder.add(out, builder.mul(pitch, _I64(row)))
            _store_row(builder, levels, target)
        whole = builder.bitcast(over, ir.IntType(256))
        return builder.zext(builder.icmp_unsigned("==", whole, ir.IntType(256)(0)), _I64)

    return types.intp(types.intp, types.intp, types.intp), generate


def _int(value: int) -> Any:
    return ir.Constant(_INTS8, [value] * 8)


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
    """Two times int32 (8,), of which 16 bits are enough, to int16 (8, 2)."""
    low, high = builder.and_(first, _int(0xFFFF)), builder.shl(second, _int(16))
    return builder.bitcast(builder.or_(low, high), _SHORTS16)


def _level(builder: Any, value: Any) -> Any:
    """Samples of transformed values, which lie around 0."""
    level = builder.add(value, _int(128))
    level = builder.select(builder.icmp_signed("<", level, _int(0)), _int(0), level)
    level = builder.select(builder.icmp_signed(">", level, _int(255)), _int(255), level)
    return builder.trunc(level, _BYTES8)


def _store_row(builder: Any, levels: list[Any], target: Any) -> None:
    """Samples by column and block to a row, block by block."""
    while len(levels) > 1:
        count = 2 * levels[0].type.count
        pairs = zip(levels[::2], levels[1::2], strict=True)
        levels = [builder.shuffle_vector(a, b, lanes(range(count))) for a, b in pairs]
    (all_,) = levels
    turned = builder.shuffle_vector(
        all_, ir.Constant(all_.type, ir.Undefined), lanes(8 * (i % 8) + i // 8 for i in range(64))
    )
    builder.store(turned, builder.inttoptr(target, all_.type.as_pointer()), align=1)
