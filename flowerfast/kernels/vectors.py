"""What numba has no words for: vectors of pixels, and loads from any address.

Each function here becomes a few machine instructions. Addresses are plain integers (`array.ctypes.data`); the
caller answers for their bounds.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES16, _INTS4, _INTS16 = ir.VectorType(_I8, 16), ir.VectorType(_I32, 4), ir.VectorType(_I32, 16)


@intrinsic
def load_big_endian(_context: Any, _address: Any) -> Any:
    """uint64 of the eight bytes at an address, the first byte highest."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.bswap(builder.load(pointer, align=1))

    return types.uint64(types.intp), generate


@intrinsic
def mix_four_pixels(
    _context: Any, _row: Any, _offsets: Any, _stride: Any, _weights: Any, _taps: Any, _shift: Any, _out: Any
) -> Any:
    """Four weighted sums of neighbouring pixels, all channels at once.

    Pixel i of the result, four bytes at address `out`, is the sum over k < taps of weights[k, i] times the
    four bytes at row + offsets[i] + k * stride, plus a half, shifted right by `shift` and cut at 255.

    `offsets` is the address of int64 (4,), `weights` of int32 (taps, 16): each weight four times, none
    negative. With `stride` 3 the fourth byte belongs to the next pixel, and the sum of it to nobody.
    """
    ints = types.intp

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, offsets, stride, weights, taps, shift, out = arguments
        starts = []
        for i in range(4):
            pointer = builder.inttoptr(builder.add(offsets, _I64(8 * i)), _I64.as_pointer())
            starts.append(builder.add(row, builder.load(pointer)))
        half = _splat(builder, builder.shl(_I32(1), builder.sub(shift, _I32(1))))
        before = builder.block
        loop, done = builder.append_basic_block("tap"), builder.append_basic_block("mixed")
        builder.branch(loop)
        builder.position_at_end(loop)
        tap, total = builder.phi(_I64), builder.phi(_INTS16)
        tap.add_incoming(_I64(0), before)
        total.add_incoming(half, before)
        pixels = ir.Constant(_INTS4, ir.Undefined)
        for i, start in enumerate(starts):
            pointer = builder.inttoptr(builder.add(start, builder.mul(tap, stride)), _I32.as_pointer())
            pixels = builder.insert_element(pixels, builder.load(pointer, align=1), _I32(i))
        wide = builder.zext(builder.bitcast(pixels, _BYTES16), _INTS16)
        pointer = builder.inttoptr(builder.add(weights, builder.shl(tap, _I64(6))), _INTS16.as_pointer())
        following = builder.add(total, builder.mul(wide, builder.load(pointer, align=4)))
        next_tap = builder.add(tap, _I64(1))
        tap.add_incoming(next_tap, loop)
        total.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", next_tap, taps), loop, done)
        builder.position_at_end(done)
        level = builder.ashr(following, _splat(builder, shift))
        top = ir.Constant(_INTS16, [255] * 16)
        level = builder.select(builder.icmp_signed(">", level, top), top, level)
        builder.store(builder.trunc(level, _BYTES16), builder.inttoptr(out, _BYTES16.as_pointer()), align=1)
        return _context.get_dummy_value()

    return types.void(ints, ints, ints, ints, ints, types.int32, ints), generate


def _splat(builder: Any, value: Any) -> Any:
    """The same int32 in all sixteen lanes."""
    first = builder.insert_element(ir.Constant(_INTS16, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(first, ir.Constant(_INTS16, ir.Undefined), ir.Constant(_INTS16, [0] * 16))


@intrinsic
def store_transposed(_context: Any, _source: Any, _out: Any) -> Any:
    """An 8 x 8 square of bytes at address `source`, rows become columns, to address `out`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        square = ir.VectorType(_I8, 64)
        loaded = builder.load(builder.inttoptr(arguments[0], square.as_pointer()), align=1)
        order = ir.Constant(ir.VectorType(_I32, 64), [8 * (i % 8) + i // 8 for i in range(64)])
        turned = builder.shuffle_vector(loaded, ir.Constant(square, ir.Undefined), order)
        builder.store(turned, builder.inttoptr(arguments[1], square.as_pointer()), align=1)
        return _context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@intrinsic
def pointer_to(_context: Any, _address: Any) -> Any:
    """Pointer to the bytes at an address, for `numba.carray`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _I8.as_pointer())

    return types.CPointer(types.uint8)(types.intp), generate
