"""Whole files and pieces of files read, many in one call, without Python's interpreter lock.

A thread that reads a file in Python lets go of the lock at each system call and must get it back after; while
another thread is busy in Python it waits for that up to `sys.getswitchinterval()`, 5 ms, each time. POSIX
only: the C library's functions are found by their names.
"""

import numpy as np
from numba import types

from flowerfast.files import READ_FLAGS
from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.jpeg_header import is_plain

FAILED, READ, PLAIN = 0, 1, 2
"""The file is not there or not as long as expected; it was read; and it is a plain JPEG, see `is_plain`."""

open_file = types.ExternalFunction("open", types.intc(types.uintp, types.intc))
_pread = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.intp))
close_file = types.ExternalFunction("close", types.intc(types.intc))


@kernel
def read_files(folder, path_bytes, path_ends, rows, at, room, width, height):
    """Read the files of some samples into one piece of memory.

    Args:
        folder: uint8, bytes that stand before each path.
        path_bytes, path_ends: of all samples, as in `photos.Table`.
        rows: int64 (n,), the samples.
        at: int64 (n + 1,), where in `room` each file begins; the last of its bytes stays free, to see a file
            that has grown.
        room: uint8, for all files.
        width, height: of the photos, in pixels; none: nobody asks which are plain.

    Returns int8 (n,): FAILED, READ or PLAIN.
    """
    name = room_for_names(folder, path_ends, rows)
    found = np.full(len(rows), FAILED, np.int8)
    for i in range(len(rows)):
        put_name(name, len(folder), path_bytes, path_ends, rows[i])
        size = at[i + 1] - at[i] - 1
        if _read_file(name, room.ctypes.data + at[i], size) == size:
            plain = len(width) > 0 and is_plain(room[at[i] : at[i] + size], width[i], height[i])
            found[i] = PLAIN if plain else READ
    return found


@kernel
def room_for_names(folder, path_ends, rows):
    """Room for the longest of some names as C has them, which begins with the folder: uint8."""
    longest = 0
    for row in rows:
        longest = max(longest, path_ends[row] - _start(path_ends, row))
    name = np.empty(len(folder) + longest + 1, np.uint8)
    for k in range(len(folder)):
        name[k] = folder[k]
    return name


@kernel
def put_name(name, at, path_bytes, path_ends, row):
    """Write the path of a row behind the folder, which takes `at` bytes."""
    start = _start(path_ends, row)
    length = path_ends[row] - start
    for k in range(length):
        name[at + k] = path_bytes[start + k]
    name[at + length] = 0


@kernel
def _start(path_ends, row):
    return path_ends[row - 1] if row > 0 else 0


@kernel
def read_pieces(files, offset, at, room, width, height):
    """Read pieces of open files into one piece of memory.

    Args:
        files: int64 (n,), descriptors.
        offset: int64 (n,), where in its file each piece begins.
        at: int64 (n + 1,), where in `room` each piece begins and ends.
        room: uint8, for all pieces.
        width, height: of the photos that they are, in pixels; none: nobody asks which are plain.

    Returns int8 (n,): FAILED, READ or PLAIN.
    """
    found = np.full(len(files), FAILED, np.int8)
    for i in range(len(files)):
        size = at[i + 1] - at[i]
        if read_at(files[i], room.ctypes.data + at[i], size, size, offset[i]) == size:
            plain = len(width) > 0 and is_plain(room[at[i] : at[i + 1]], width[i], height[i])
            found[i] = PLAIN if plain else READ
    return found


@kernel
def _read_file(name, address, size):
    """Bytes read of a file that should have `size`: another number if it has not, -1 if it cannot be read."""
    file = open_file(types.uintp(name.ctypes.data), types.intc(READ_FLAGS))
    if file < 0:
        return -1
    done = read_at(np.int64(file), address, size + 1, size, 0)
    close_file(file)
    return done


@kernel
def read_at(file, address, most, enough, offset):
    """Bytes read, at most `most`: fewer than `enough` if the file ends there; -1 if it cannot be read.

    pread fails on what has no places, as a pipe, where read would wait or take what is somebody else's.
    """
    done = 0
    while done < most:
        got = _pread(types.intc(file), types.uintp(address + done), types.uintp(most - done), offset + done)
        if got < 0:
            return -1
        done += got
        if got == 0 or done >= enough:
            break
    return done
