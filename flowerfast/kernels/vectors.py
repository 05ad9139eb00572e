"""What numba has no words for: vectors of pixels, and loads from any address.

Each function here becomes a few machine instructions. Addresses are plain integers (`array.ctypes.data`); the
caller answers for their bounds.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import config
from numba.extending import intrinsic

from flowerfast.kernels.compiling import part

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_I16 = ir.IntType(16)
_BYTES16, _BYTES32, _SHORTS32 = ir.VectorType(_I8, 16), ir.VectorType(_I8, 32), ir.VectorType(_I16, 32)
_SHORTS16, _INTS16 = ir.VectorType(_I16, 16), ir.VectorType(_I32, 16)
_MADD = ir.FunctionType(ir.VectorType(_I32, 8), [ir.VectorType(_I16, 16)] * 2)


@cache
def has_avx2() -> bool:
    """Whether numba may use this processor's instructions for vectors of 32 bytes of whole numbers."""
    allowed = getattr(config, "CPU_FEATURES", None)  # NUMBA_CPU_FEATURES
    if allowed is not None:
        return "+avx2" in allowed.split(",")
    return bool(get_host_cpu_features().get("avx2"))


@part
def address_of(array):
    """Of an array's first byte, as a number to reckon with: numba's own is unsigned, and makes floats."""
    return np.int64(array.ctypes.data)


def _loader(name: str, loaded: Any, number: Any) -> Any:
    def load(_context: Any, _address: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.load(builder.inttoptr(arguments[0], loaded.as_pointer()), align=1)

        return number(types.intp), generate

    load.__name__, load.__doc__ = name, f"{number} at an address."
    return intrinsic(load)


load_int64, load_int32 = _loader("load_int64", _I64, types.int64), _loader("load_int32", _I32, types.int32)
load_uint16, load_uint8 = _loader("load_uint16", _I16, types.uint16), _loader("load_uint8", _I8, types.uint8)
load_int16 = _loader("load_int16", _I16, types.int16)


@intrinsic
def count_trailing_zeros(_context: Any, _word: Any) -> Any:
    """Bits of a uint64, which is not 0, below the lowest that is 1."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


def _ones(builder: Any, loaded: Any) -> Any:
    """uint64 whose bit i says whether byte i of 32 is FF."""
    equal = builder.icmp_unsigned("==", loaded, ir.Constant(_BYTES32, [255] * 32))
    return builder.zext(builder.bitcast(equal, _I32), _I64)


@intrinsic
def find_ones(_context: Any, _address: Any) -> Any:
    """uint64 whose bit i says whether byte i of the 32 at an address is FF."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _ones(builder, builder.load(builder.inttoptr(arguments[0], _BYTES32.as_pointer()), align=1))

    return types.uint64(types.intp), generate


@intrinsic
def copy_and_find_ones(_context: Any, _source: Any, _target: Any) -> Any:
    """Copy 32 bytes from one address to another: the same as `find_ones` of them."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, target = (builder.inttoptr(address, _BYTES32.as_pointer()) for address in arguments)
        loaded = builder.load(source, align=1)
        builder.store(loaded, target, align=1)
        return _ones(builder, loaded)

    return types.uint64(types.intp, types.intp), generate


@intrinsic
def store_int16(_context: Any, _value: Any, _address: Any) -> Any:
    """An int16 to an address."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store(arguments[0], builder.inttoptr(arguments[1], _I16.as_pointer()), align=2)
        return _context.get_dummy_value()

    return types.void(types.int16, types.intp), generate


@intrinsic
def store_int32(_context: Any, _value: Any, _address: Any) -> Any:
    """An int32 to an address."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store(arguments[0], builder.inttoptr(arguments[1], _I32.as_pointer()), align=1)
        return _context.get_dummy_value()

    return types.void(types.int32, types.intp), generate


@intrinsic
def load_big_endian(_context: Any, _address: Any) -> Any:
    """uint64 of the eight bytes at an address, the first byte highest."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.bswap(builder.load(pointer, align=1))

    return types.uint64(types.intp), generate


def pair_products(builder: Any, left: Any, right: Any) -> Any:
    """int32 (n,): of int16 (2 n,) the sums of the products of two neighbours each; n is 8 or 16."""
    count = left.type.count
    if count > 16:
        halves = [[shuffled(builder, side, range(at, at + 16)) for side in (left, right)] for at in (0, 16)]
        return builder.shuffle_vector(*(pair_products(builder, *half) for half in halves), lanes(range(16)))
    if has_avx2():
        function = builder.module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", (), _MADD)
        return builder.call(function, [left, right])
    ints = ir.VectorType(_I32, count // 2)
    even, odd = (
        builder.mul(
            *(builder.sext(shuffled(builder, side, range(at, count, 2)), ints) for side in (left, right))
        )
        for at in (0, 1)
    )
    return builder.add(even, odd)


def packed(builder: Any, first: Any, second: Any, bits: int) -> Any:
    """Two vectors of 32 bytes in one whose numbers have half the bits: signed ones of 16, unsigned ones of 8.

    What does not fit becomes the next that does. Of each 16 bytes the first half is from `first`, the other
    from `second`.
    """
    count, wide = first.type.count, first.type.element
    lowest, highest = (-(1 << 15), (1 << 15) - 1) if bits == 16 else (0, 255)
    if has_avx2():
        name = "llvm.x86.avx2.packssdw" if bits == 16 else "llvm.x86.avx2.packuswb"
        kind = ir.FunctionType(ir.VectorType(ir.IntType(bits), 2 * count), [first.type] * 2)
        return builder.call(builder.module.declare_intrinsic(name, (), kind), [first, second])
    half = count // 2
    order = [n % half + n // count * half + n // half % 2 * count for n in range(2 * count)]
    both = builder.shuffle_vector(first, second, lanes(order))
    for sign, bound in (("<", lowest), (">", highest)):
        edge = ir.Constant(both.type, [wide(bound)] * (2 * count))
        both = builder.select(builder.icmp_signed(sign, both, edge), edge, both)
    return builder.trunc(both, ir.VectorType(ir.IntType(bits), 2 * count))


def lanes(order: Iterable[int]) -> Any:
    """The order of lanes that a shuffle makes."""
    numbers = list(order)
    return ir.Constant(ir.VectorType(_I32, len(numbers)), numbers)


def shuffled(builder: Any, vector: Any, order: Iterable[int]) -> Any:
    """Lanes of one vector in another order."""
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), lanes(order))


@intrinsic(prefer_literal=True)
def double_sixteen(_context: Any, _near: Any, _far: Any, _down: Any, _out: Any) -> Any:
    """Sixteen samples of chroma to 32 along a row, as libjpeg's "fancy upsampling" has it.

    Args:
        near, far: addresses of uint8 (16,) in the nearest and the next nearest row; one sample before and one
            behind are read too.
        down: 2, as written in the call, where chroma has half the rows; with 1 `far` is not read.
        out: address of uint8 (32,).
    """
    ints, down = types.intp, _down.literal_value

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        def constant(value: int) -> Any:
            return ir.Constant(_SHORTS16, [value] * 16)

        def mixed(shift: int) -> Any:
            def loaded(address: Any) -> Any:
                pointer = builder.inttoptr(builder.add(address, _I64(shift)), _BYTES16.as_pointer())
                return builder.zext(builder.load(pointer, align=1), _SHORTS16)

            near = loaded(arguments[0])
            return builder.add(builder.mul(near, constant(3)), loaded(arguments[1])) if down == 2 else near

        bits, halves = (4, (8, 7)) if down == 2 else (2, (1, 2))
        centre = builder.mul(mixed(0), constant(3))
        even, odd = (
            builder.lshr(builder.add(builder.add(centre, mixed(shift)), constant(half)), constant(bits))
            for shift, half in zip((-1, 1), halves, strict=True)
        )
        pairs = builder.bitcast(builder.or_(even, builder.shl(odd, constant(8))), _BYTES32)
        builder.store(pairs, builder.inttoptr(arguments[3], _BYTES32.as_pointer()), align=1)
        return _context.get_dummy_value()

    return types.void(ints, ints, _down, ints), generate


@intrinsic
def colour_sixteen(_context: Any, _luma: Any, _blue: Any, _red: Any, _out: Any) -> Any:
    """Sixteen pixels of YCbCr to RGB, with JFIF's matrix in 16-bit fixed-point numbers as libjpeg has it.

    Args:
        luma, blue, red: addresses of uint8 (16,).
        out: address of uint32 (16,): red lowest, then green, blue, and 0.
    """
    ints = types.intp

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        def constant(value: int) -> Any:
            return ir.Constant(_SHORTS16, [value] * 16)

        def loaded(address: Any, kind: Any) -> Any:
            return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)

        def scaled(chroma: Any, factor: int) -> Any:
            """chroma * factor / 65536, rounded, in 16 bits: a vector holds twice as many of these."""
            twice = builder.add(chroma, chroma)
            product = builder.mul(*(builder.sext(each, _INTS16) for each in (twice, constant(factor))))
            high = builder.trunc(builder.ashr(product, ir.Constant(_INTS16, [16] * 16)), _SHORTS16)
            return builder.ashr(builder.add(high, constant(1)), constant(1))

        def level(value: Any) -> Any:
            low = builder.select(builder.icmp_signed("<", value, constant(0)), constant(0), value)
            return builder.select(builder.icmp_signed(">", low, constant(255)), constant(255), low)

        luma = builder.zext(loaded(arguments[0], _BYTES16), _SHORTS16)
        blue, red = (
            builder.sub(builder.zext(loaded(address, _BYTES16), _SHORTS16), constant(128))
            for address in arguments[1:3]
        )
        both = builder.shuffle_vector(blue, red, lanes([lane for i in range(16) for lane in (i, 16 + i)]))
        green = pair_products(builder, both, ir.Constant(_SHORTS32, [-22554, 18734] * 16))
        green = builder.ashr(
            builder.add(green, ir.Constant(_INTS16, [1 << 15] * 16)), ir.Constant(_INTS16, [16] * 16)
        )
        high = level(builder.add(builder.add(luma, red), scaled(red, 26345)))
        middle = level(builder.add(builder.sub(luma, red), builder.trunc(green, _SHORTS16)))
        low = level(builder.add(builder.add(luma, builder.add(blue, blue)), scaled(blue, -14942)))
        pair = builder.or_(high, builder.shl(middle, constant(8)))
        pixels = builder.shuffle_vector(pair, low, lanes([lane for i in range(16) for lane in (i, 16 + i)]))
        builder.store(pixels, builder.inttoptr(arguments[3], _SHORTS32.as_pointer()), align=1)
        return _context.get_dummy_value()

    return types.void(ints, ints, ints, ints), generate


@intrinsic
def copy_slanted(
    _context: Any, _image: Any, _side: Any, _x: Any, _y: Any, _step_x: Any, _step_y: Any, _out: Any
) -> Any:
    """Eight pixels of an image that lie on a slanted line.

    Args:
        image: address of uint32 (side, side); `side` is below 32768.
        x, y: int32, of the first pixel, in 1/65536 of a pixel.
        step_x, step_y: int32, from each to the next.
        out: address of uint32 (8,).
    """
    ints, four, kind = types.intp, types.int32, ir.VectorType(_I32, 8)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        image, side, x, y, step_x, step_y, out = arguments

        def all_eight(value: Any) -> Any:
            return shuffled(
                builder, builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0)), [0] * 8
            )

        def along(start: Any, step: Any) -> Any:
            far = builder.mul(all_eight(step), ir.Constant(kind, [*range(8)]))
            return builder.add(far, all_eight(start))

        column = builder.lshr(along(x, step_x), ir.Constant(kind, [16] * 8))
        row = builder.and_(along(y, step_y), ir.Constant(kind, [-65536] * 8))
        place = builder.bitcast(builder.or_(row, column), _SHORTS16)
        pitch = builder.or_(builder.shl(builder.trunc(side, _I32), _I32(16)), _I32(1))
        index = pair_products(builder, place, builder.bitcast(all_eight(pitch), _SHORTS16))
        pixels, target = (builder.inttoptr(at, _I32.as_pointer()) for at in (image, out))
        for i in range(8):
            at = builder.zext(builder.extract_element(index, _I32(i)), _I64)
            pixel = builder.load(builder.gep(pixels, [at]), align=4)
            builder.store(pixel, builder.gep(target, [_I64(i)]), align=4)
        return _context.get_dummy_value()

    return types.void(ints, ints, four, four, four, four, ints), generate


@intrinsic
def pointer_to(_context: Any, _address: Any) -> Any:
    """Pointer to the bytes at an address, for `numba.carray`."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _I8.as_pointer())

    return types.CPointer(types.uint8)(types.intp), generate
