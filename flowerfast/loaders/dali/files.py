"""Files for DALI: read ahead in threads, and only what DALI decodes as the reference (Pillow) would.

DALI 2.4 crashes the process on bytes whose format it cannot recognise, and one damaged file fails its whole
batch. So a file goes to DALI as it is only when its header says that it is of a kind known to agree, of the
size that the scan found, and it ends as it should. Anything else is decoded here, as the CPU executor
does, and goes on as plain pixels. All photos come as they are stored: the graph turns them upright. A JPEG
that is not in perfect order, such as with stray markers amid its data, is decoded here once before DALI gets
it: DALI goes on where Pillow gives up.
"""

import io

import numpy as np

from flowerfast.loaders.dali.inputs import as_ppm
from flowerfast.loaders.reading import Reading, Ready
from flowerfast.photos.decode import DecodeError, jpeg_header
from flowerfast.photos.formats import open_image
from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import Workers, iter_chunks, results
from flowerfast.plans.plan import Plan

_CHUNK = 16  # files per task: reading one takes less than handing over a task
_START_OF_JPEG = b"\xff\xd8"
_PILLOW_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})


class FileReader:
    """Reads the photos of plans.

    Args:
        photos: the set that plans speak of.
        threads: how many read at a time.
        compiled: read and check in compiled loops where they can be had.
    """

    def __init__(self, photos: Photos, threads: int, compiled: bool = True) -> None:
        self._photos, self._compiled = photos, compiled
        self._pool = Workers(threads, "flowerfast-read")
        self._whole: set[int] = set()  # JPEGs that are not plain, but have been decoded once
        self._pixels: set[int] = set()  # DALI refused them, the reference does not
        self._damaged: dict[int, str] = {}  # look well, but the reference cannot decode them

    def start(self, plan: Plan) -> Reading:
        """Begin to read the files of a plan."""
        chunks = iter_chunks(plan.indices, _CHUNK)
        tasks = [self._pool.submit(chunk, self._read_all, chunk) for chunk in chunks]
        return Reading(self._photos, plan, tasks, _join)

    def check(self, plan: Plan) -> None:
        """Decode a plan's samples as the reference does; those that fail are bad from now on."""
        chunks = iter_chunks(plan.indices, 1)
        tasks = [self._pool.submit(chunk, self._photos.problem, int(chunk[0])) for chunk in chunks]
        problems = zip(plan.indices.tolist(), results(tasks, self._photos.place), strict=True)
        self._damaged |= {index: error for index, error in problems if error}

    def as_pixels(self, index: int) -> None:
        """From now on decode this sample here instead of in DALI."""
        self._pixels.add(index)

    @property
    def notes(self) -> list[str]:
        """Fallbacks that were taken, one line each."""
        count = len(self._pixels)
        return [f"photos that DALI refused and the CPU decodes instead: {count}"] if count else []

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()

    def _read_all(self, indices: np.ndarray) -> list[np.ndarray | str]:
        files, plain = self._photos.read(indices, self._compiled, look=True)
        rows = zip(indices.tolist(), files, plain.tolist(), strict=True)
        return [self._checked(index, file, known) for index, file, known in rows]

    def _checked(self, index: int, file: np.ndarray | OSError, plain: bool) -> np.ndarray | str:
        """What DALI shall be given of a sample, or why it is bad; `plain` files need no closer look."""
        if index in self._damaged:
            return self._damaged[index]
        if isinstance(file, OSError):
            return str(file)
        if plain and index not in self._pixels:
            return file
        try:
            table = self._photos.table
            if index in self._pixels or not agrees(file, int(table.width[index]), int(table.height[index])):
                return as_ppm(self._photos.decode(index, file, upright=False))
            if file[:2].tobytes() == _START_OF_JPEG and index not in self._whole:
                self._photos.decode(index, file)
                self._whole.add(index)
        except DecodeError as error:
            return str(error)
        return file


def _join(plan: Plan, parts: list[list[np.ndarray | str]]) -> Ready:
    """Batch of what was read: bytes, or the reason why there are none, per sample in order."""
    files = [*zip(plan.indices.tolist(), (file for part in parts for file in part), strict=True)]
    bad = {index: file for index, file in files if isinstance(file, str)}
    # By index, as `without`: of a sample that comes twice one read may have failed.
    return plan.without([*bad]), [file for index, file in files if index not in bad], bad


def agrees(encoded: np.ndarray, width: int, height: int) -> bool:
    """Whether DALI decodes these bytes, uint8 (n,), to the pixels of the reference, as far as headers tell.

    True for grey and YCbCr JPEG, for PNG of up to 8 bits and for simple WebP, of the promised size. False
    for the rest (CMYK, 16 bits, animation, other formats, damage), which may still be a good photo.
    """
    start = encoded[:26].tobytes()
    if start[:2] == _START_OF_JPEG:
        return jpeg_header(encoded) in ((width, height, "YCbCr"), (width, height, "Gray"))
    png = start[:8] == b"\x89PNG\r\n\x1a\n" and start[24] <= 8
    webp = start[:4] == b"RIFF" and start[8:16] in (b"WEBPVP8 ", b"WEBPVP8L")
    if not (png or webp):
        return False
    try:
        with open_image(io.BytesIO(encoded.tobytes())) as image:
            plain = image.mode in _PILLOW_MODES and not getattr(image, "is_animated", False)
            return plain and image.size == (width, height)
    except Exception:  # of damage Pillow's plugins make almost any: `decode` says what it is
        return False
