"""Weighted sums of pixels and of rows as vector instructions, see `resize`.

Addresses are plain integers; the caller answers for their bounds.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from flowerfast.kernels.vectors import lanes, packed, pair_products, shuffled

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES16, _BYTES32, _SHORTS16 = ir.VectorType(_I8, 16), ir.VectorType(_I8, 32), ir.VectorType(_I16, 16)
_INTS8 = ir.VectorType(_I32, 8)
_NOTHING = ir.Constant(_BYTES32, [0] * 32)
_NONE = 32  # in an order of bytes: a byte of `_NOTHING`
QUAD = 4
"""Neighbours that are weighed at once along a row."""


@intrinsic(prefer_literal=True)
def mix_eight_pixels(
    _context: Any, _row: Any, _offsets: Any, _stride: Any, _weights: Any, _quads: Any, _shift: Any, _out: Any
) -> Any:
    """Eight weighted sums of neighbouring pixels, all channels at once.

    Pixel i of the result, four bytes at address `out`, is the sum over k < QUAD * quads of its weights times
    the bytes at row + offsets[i] + k * stride, plus a half, shifted right by `shift` and cut at 255.

    Args:
        offsets: address of int64 (8,).
        stride: 3 or 4, as written in the call; with 3 nobody shall read the fourth byte.
        weights: address of int16 (quads, 4, 2, 2, 4, 2): by four neighbours, pixels i and i + 4, the former
            and the latter two of the four, which of both pixels, and channel (all alike).

    Sixteen bytes are read for each four neighbours.
    """
    ints, stride = types.intp, _stride.literal_value
    orders = [
        [
            each
            for pixel in (0, 16)
            for c in range(4)
            for k in (2 * half, 2 * half + 1)
            for each in (pixel + k * stride + c % stride, _NONE)
        ]
        for half in (0, 1)
    ]

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, offsets, _, weights, quads, shift, out = arguments
        starts = []
        for i in range(8):
            pointer = builder.inttoptr(builder.add(offsets, _I64(8 * i)), _I64.as_pointer())
            starts.append(builder.add(row, builder.load(pointer)))

        def products(quad: Any) -> list[Any]:
            at, sums = builder.mul(quad, _I64(QUAD * stride)), []
            for i in range(4):
                both = builder.shuffle_vector(
                    *(_loaded(builder, builder.add(starts[n], at), _BYTES16) for n in (i, i + 4)),
                    lanes(range(32)),
                )
                far = builder.add(builder.shl(quad, _I64(8)), _I64(64 * i))
                halves = []
                for half in (0, 1):
                    shares = _loaded(
                        builder, builder.add(weights, builder.add(far, _I64(32 * half))), _SHORTS16
                    )
                    halves.append(pair_products(builder, _words(builder, both, orders[half]), shares))
                sums.append(builder.add(*halves))
            return sums

        _mix(builder, products, quads, shift, out)
        return _context.get_dummy_value()

    return types.void(ints, ints, _stride, ints, ints, types.int32, ints), generate


@intrinsic
def mix_rows(
    _context: Any, _rows: Any, _pitch: Any, _weights: Any, _pairs: Any, _shift: Any, _out: Any
) -> Any:
    """Thirty-two weighted sums of bytes that lie `pitch` bytes apart.

    Byte i of the result, at address `out`, is the sum over k < 2 * pairs of weights[k] times the byte at
    rows + i + k * pitch, plus a half, shifted right by `shift` and cut at 255. `weights` is the address of
    int16 (2 * pairs,).
    """
    ints = types.intp

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        rows, pitch, weights, pairs, shift, out = arguments

        def products(pair: Any) -> list[Any]:
            first = builder.add(rows, builder.mul(pair, builder.shl(pitch, _I64(1))))
            both = [_loaded(builder, at, _BYTES32) for at in (first, builder.add(first, pitch))]
            share = _loaded(builder, builder.add(weights, builder.shl(pair, _I64(2))), _I32)
            shares, sums = builder.bitcast(_splat(builder, share), _SHORTS16), []
            for side in (0, 8):
                order = [lane + side + n + at for lane in (0, 16) for n in range(8) for at in (0, 32)]
                bytes_ = builder.shuffle_vector(*both, lanes(order))
                for half in (0, 8):
                    spread = [each for lane in (0, 16) for n in range(8) for each in (lane + half + n, _NONE)]
                    sums.append(pair_products(builder, _words(builder, bytes_, spread), shares))
            return sums

        _mix(builder, products, pairs, shift, out)
        return _context.get_dummy_value()

    return types.void(ints, ints, ints, ints, types.int32, ints), generate


def _mix(builder: Any, products: Callable[[Any], list[Any]], steps: Any, shift: Any, out: Any) -> None:
    """32 bytes: sums of products, plus a half, shifted right, cut at 255.

    `products` gives of a step four int32 (8,): the i-th of the bytes 4 i to 4 i + 3 of both halves.
    """
    half = _splat(builder, builder.shl(_I32(1), builder.sub(shift, _I32(1))))
    before = builder.block
    loop, done = builder.append_basic_block("step"), builder.append_basic_block("mixed")
    builder.branch(loop)
    builder.position_at_end(loop)
    step, totals = builder.phi(_I64), [builder.phi(_INTS8) for _ in range(4)]
    sums = [builder.add(*pair) for pair in zip(totals, products(step), strict=True)]
    following = builder.add(step, _I64(1))
    step.add_incoming(_I64(0), before)
    step.add_incoming(following, loop)
    for total, sum_ in zip(totals, sums, strict=True):
        total.add_incoming(half, before)
        total.add_incoming(sum_, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
    builder.position_at_end(done)
    levels = [builder.ashr(sum_, _splat(builder, shift)) for sum_ in sums]
    words = [packed(builder, levels[n], levels[n + 1], 16) for n in (0, 2)]
    made = packed(builder, words[0], words[1], 8)
    builder.store(made, builder.inttoptr(out, _BYTES32.as_pointer()), align=1)


def _loaded(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _words(builder: Any, bytes_: Any, order: Sequence[int]) -> Any:
    """int16 (16,) of some of 32 bytes, each followed by 0."""
    return builder.bitcast(builder.shuffle_vector(bytes_, _NOTHING, lanes(order)), _SHORTS16)


def _splat(builder: Any, value: Any) -> Any:
    """The same int32 in all eight lanes."""
    first = builder.insert_element(ir.Constant(_INTS8, ir.Undefined), value, _I32(0))
    return shuffled(builder, first, [0] * 8)
