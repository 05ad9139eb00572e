"""Pictures of all kinds as a model takes them: uint8 squares, resized and cut as in an evaluation."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from flowerfast.errors import UserError
from flowerfast.files import read_bytes
from flowerfast.kernels.ready import LOOPS, loops_usable
from flowerfast.photos.decode import DecodeError, decode, decode_image, reason
from flowerfast.photos.formats import advice
from flowerfast.photos.header import checked_header
from flowerfast.photos.orientation import turn
from flowerfast.pixels.executor import Executor
from flowerfast.pixels.reference import augment
from flowerfast.plans.plan import Plan, make_eval_plan

Picture = Path | str | Image.Image | np.ndarray | torch.Tensor
"""A file, a Pillow image, or RGB pixels: uint8, (h, w, 3) as an array or (3, h, w) as a tensor."""
Square = np.ndarray | str
"""A picture as a model takes it, uint8 (S, S, 3); or why there is none, in one line."""
_UNREADABLE = (OSError, ValueError, DecodeError)


class Squares:
    """Makes squares of pictures on the calling thread; threads may share it.

    Args:
        size, crop_pct: of the evaluation plan.
        upright: files and Pillow images are turned as their EXIF says.
        max_pixels: of a file.
    """

    def __init__(self, size: int, crop_pct: float, upright: bool, max_pixels: int) -> None:
        self._size, self._crop_pct = size, crop_pct
        self._upright, self._max_pixels = upright, max_pixels
        self._under_way, self._numbers = _UnderWay(), count()
        self._wanted = False
        self._loops: Executor | None = None

    def want_loops(self) -> None:
        """Have the compiled loops make the squares of files as soon as they are there: the same pixels."""
        LOOPS.begin()
        LOOPS.go_on()
        self._wanted = True

    def of_files(self, files: list[str]) -> list[Square]:
        """Squares of some files, in their order."""
        if self._wanted and self._loops is None and loops_usable():
            from flowerfast.pixels.compiled import CompiledExecutor  # imports numba

            self._loops = CompiledExecutor(self._under_way, self._under_way)
        loops = self._loops
        squares: list[Square] = [""] * len(files)
        opened: dict[int, _File] = {}
        for row, file in enumerate(files):
            try:
                photo = self._open(file)
                if loops is None:
                    squares[row] = square(photo.pixels(), self._size, self._crop_pct)
                else:
                    opened[row] = photo
            except _UNREADABLE as error:
                squares[row] = reason(error) + advice(file)
        if loops is not None and opened:
            made = self._fill(loops, [*opened.values()])
            for row, one in zip(opened, made, strict=True):
                squares[row] = one + advice(files[row]) if isinstance(one, str) else one
        return squares

    def of_pixels(self, picture: Image.Image | np.ndarray | torch.Tensor) -> Square:
        """Square of a picture that is no file. Raises UserError for what is no picture."""
        pixels: Any = picture
        if isinstance(picture, Image.Image):
            try:
                pixels = decode_image(picture, self._upright)
            except _UNREADABLE as error:
                return reason(error)
        elif isinstance(picture, torch.Tensor) and picture.dtype == torch.uint8 and picture.dim() == 3:
            pixels = picture.permute(1, 2, 0).cpu().numpy()
        return square(checked(pixels, "predict", picture), self._size, self._crop_pct)

    def _open(self, file: str) -> "_File":
        width, height, orientation, _ = checked_header(Path(file), self._max_pixels)
        encoded = np.frombuffer(read_bytes(Path(file)), np.uint8)
        return _File(encoded, width, height, orientation if self._upright else 1)

    def _fill(self, loops: Executor, photos: list["_File"]) -> list[Square]:
        numbers = [next(self._numbers) for _ in photos]
        self._under_way.files.update(zip(numbers, photos, strict=True))
        try:
            # In one piece each: for arrays that are not, as for a loader's, the loops would be compiled anew.
            sizes = np.ascontiguousarray(np.array([photo.upright_size for photo in photos]).T)
            plan = make_eval_plan(np.array(numbers), (sizes[0], sizes[1]), self._size, self._crop_pct)
            rows = np.empty((len(photos), self._size, self._size, 3), np.uint8)
            failed = loops.fill(plan, rows, range(len(photos)))
        finally:
            for number in numbers:
                del self._under_way.files[number]
        return [failed.get(row, rows[row]) for row in range(len(photos))]


@dataclass(eq=False)
class _File:
    """A file that has been read: its bytes, uint8 (n,), its size as stored, and how it is to be turned."""

    encoded: np.ndarray
    width: int
    height: int
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        return (self.height, self.width) if self.orientation > 4 else (self.width, self.height)

    def pixels(self) -> np.ndarray:
        """uint8 (h, w, 3), turned. Raises DecodeError."""
        return turn(decode(self.encoded, self.width, self.height), self.orientation)


class _UnderWay:
    """Files that are being made squares of, by number: source and photos of an executor."""

    is_decoded = False

    def __init__(self) -> None:
        self.files: dict[int, _File] = {}

    def prepare(self, plan: Plan) -> Plan:
        return plan

    def fetch(self, indices: np.ndarray) -> list[np.ndarray | str]:
        return [self.files[number].encoded for number in indices.tolist()]

    def orientations(self, indices: np.ndarray) -> np.ndarray:
        return np.array([self.files[number].orientation for number in indices.tolist()], np.int64)

    def decode(self, index: int, encoded: np.ndarray, *, shrink: int) -> np.ndarray:
        assert encoded is self.files[index].encoded, shrink == 1
        return self.files[index].pixels()


def square(photo: np.ndarray, size: int, crop_pct: float) -> np.ndarray:
    """Pixels of a photo, uint8 (h, w, 3), resized and cut as in an evaluation: uint8 (size, size, 3)."""
    sizes = np.array([photo.shape[1]]), np.array([photo.shape[0]])
    made = np.empty((size, size, 3), np.uint8)
    augment(photo, make_eval_plan(np.zeros(1), sizes, size, crop_pct), 0, made)
    return made


def checked(pixels: Any, where: str, given: Any = None) -> np.ndarray:
    """Pixels, which are uint8 (h, w, 3), as torch wants them. Raises UserError for what is no photo."""
    if (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.shape[2:] == (3,)
        and pixels.size
    ):
        return np.require(pixels, requirements=["C", "W"])  # as torch wants it: in one piece, and writable
    given = pixels if given is None else given
    shape = tuple(getattr(given, "shape", ()))
    raise UserError(
        f"{where}: {type(given).__name__} of shape {shape} is no photo; give a path, a Pillow image, or "
        "RGB pixels, uint8 (h, w, 3) as an array or (3, h, w) as a tensor"
    )
