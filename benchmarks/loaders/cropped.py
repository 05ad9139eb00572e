"""A user's transform, and a map-style dataset with it."""

import io
from typing import Any

from PIL import Image
from torchvision.transforms import Compose, PILToTensor, RandomHorizontalFlip, RandomResizedCrop

from benchmarks.loaders import files, note_decoded


class Cropped:
    """JPEG bytes to uint8 (3, S, S) by torchvision's random crop and flip."""

    def __init__(self, size: int) -> None:
        self._steps = Compose([RandomResizedCrop(size), RandomHorizontalFlip(), PILToTensor()])

    def __call__(self, content: bytes, number: int) -> Any:
        note_decoded(number)
        return self._steps(Image.open(io.BytesIO(content)).convert("RGB"))


class Files:
    """A map-style dataset of (id, pixels)."""

    def __init__(self, photos: str, size: int) -> None:
        self._files, self._cropped = files(photos), Cropped(size)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[int, Any]:
        return number, self._cropped(self._files[number].read_bytes(), number)
