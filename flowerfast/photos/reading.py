"""Encoded bytes of a table's photos, as they lie on the disk or in shards."""

import os

import numpy as np

from flowerfast.files import open_regular
from flowerfast.kernels.ready import loops_usable
from flowerfast.photos.header import check_bytes
from flowerfast.photos.table import Table


def read_many(
    table: Table, rows: np.ndarray, max_pixels: int, compiled: bool, look: bool
) -> tuple[list[np.ndarray | OSError], np.ndarray]:
    """Bytes of some rows, int64 (m,), of the table, and which are known to be plain: see `Photos.read`."""
    if os.name != "posix" or not compiled or not loops_usable():
        return [_try_to_read(table, row, max_pixels) for row in rows.tolist()], np.zeros(len(rows), np.bool_)
    seen = rows if look else rows[:0]
    shape = table.width[seen], table.height[seen]
    if table.shards is not None:
        pieces, plain = table.shards.read_many(rows, table.size[rows], shape)
        found = zip(rows.tolist(), pieces, strict=True)
        return [
            _try_to_read(table, row, max_pixels) if piece is None else piece for row, piece in found
        ], plain
    from flowerfast.kernels.files import FAILED, PLAIN, read_files  # numba: half a second

    at = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(table.size[rows] + 1, out=at[1:])
    room = np.empty(at[-1], np.uint8)
    prefix = np.frombuffer(os.fsencode(table.root) + b"/", np.uint8)
    paths = _read_only(table.path_bytes), _read_only(table.path_ends)  # arrays of files are: one type of both
    outcome = read_files(prefix, *paths, rows, at, room, *shape)
    room.flags.writeable = False
    files = [
        # Else: what is wrong, or a file that has changed since the scan.
        room[at[k] : at[k + 1] - 1] if outcome[k] != FAILED else _try_to_read(table, row, max_pixels)
        for k, row in enumerate(rows.tolist())
    ]
    return files, outcome == PLAIN


def read_one(table: Table, row: int, max_pixels: int) -> np.ndarray:
    """Bytes of a row as they are now: uint8 (bytes,), read-only. Raises OSError."""
    size = int(table.size[row])
    if table.shards is not None:
        return table.shards.read(row, size)
    # Four system calls, since the size is known: each call in which a thread lets go of the interpreter
    # lock is one after which it must wait for it.
    file = open_regular(os.path.join(table.root, table.path(row)))
    try:
        encoded = os.read(file, size + 1)  # one more, to see a file that has grown
        if len(encoded) != size:
            check_bytes(os.fstat(file).st_size, max_pixels)
            encoded += b"".join(iter(lambda: os.read(file, 1 << 20), b""))
    finally:
        os.close(file)
    return np.frombuffer(encoded, np.uint8)


def _try_to_read(table: Table, row: int, max_pixels: int) -> np.ndarray | OSError:
    try:
        return read_one(table, row, max_pixels)
    except OSError as error:
        return error


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
