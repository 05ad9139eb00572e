"""Encoded photos of several samples: loose files in one call that does not hold the interpreter lock."""

import os
from importlib.util import find_spec

import numpy as np

from flowerfast.data.manifest import Manifest


class Reader:
    """Reads photos as they lie on the disk; threads may share it.

    Args:
        manifest: all photos.
        compiled: by compiled loops where they can be had; packed photos need none, they are views of a map.
    """

    def __init__(self, manifest: Manifest, compiled: bool) -> None:
        self._manifest = manifest
        self._folder: np.ndarray | None = None
        if compiled and manifest.shards is None and os.name == "posix" and find_spec("numba") is not None:
            self._folder = np.frombuffer(os.fsencode(manifest.root) + b"/", np.uint8)

    def read(self, indices: np.ndarray) -> tuple[list[np.ndarray | OSError], np.ndarray]:
        """Encoded bytes of some samples, int64 (n,), as they are now.

        Each is uint8 (bytes,), read-only, or why it cannot be read. Beside them bool (n,): whether the photo
        is known to be a plain JPEG of the promised size, see `jpeg_header.is_plain`; False says nothing.
        """
        if self._folder is None:
            return [self._one(index) for index in indices.tolist()], np.zeros(len(indices), np.bool_)
        from flowerfast.kernels.files import FAILED, PLAIN, read_files

        m = self._manifest
        at = np.zeros(len(indices) + 1, np.int64)
        np.cumsum(m.size[indices] + 1, out=at[1:])
        room = np.empty(at[-1], np.uint8)
        sizes = m.width[indices], m.height[indices]
        found = read_files(self._folder, m.path_bytes, m.path_ends, indices, at, room, *sizes)
        room.flags.writeable = False
        files: list[np.ndarray | OSError] = []
        for k, index in enumerate(indices.tolist()):
            read = found[k] != FAILED  # else: what is wrong, or a file that has changed since the scan
            files.append(room[at[k] : at[k + 1] - 1] if read else self._one(index))
        return files, found == PLAIN

    def _one(self, index: int) -> np.ndarray | OSError:
        try:
            return self._manifest.read(index)
        except OSError as error:
            return error
