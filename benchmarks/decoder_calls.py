"""Other people's decoders, each as a function from a file's bytes to RGB pixels, by its defaults.

Run as a process of its own by `decoders.py`: decodes files named on its standard input, one after the other,
and prints what came of each, so that a crash costs one file.
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

Decode = Callable[[bytes], np.ndarray]
"""A file's bytes to pixels, (h, w, 3); some give uint16, or all frames, (n, h, w, 3)."""


class BatchLost(Exception):
    """The good files that came in the same batch are lost with this one."""


class Decoder(NamedTuple):
    """What makes the function, in a process that has imported nothing yet, and the packages that it needs."""

    make: Callable[[], Decode]
    packages: tuple[str, ...]


def _pillow() -> Decode:
    import io

    from PIL import Image

    def decode(encoded: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.array(image.convert("RGB"))

    return decode


def _simplejpeg() -> Decode:
    import simplejpeg

    return lambda encoded: simplejpeg.decode_jpeg(encoded, "RGB")


def _torchvision(turned: bool) -> Callable[[], Decode]:
    def make() -> Decode:
        import torch
        from torchvision.io import ImageReadMode, decode_image

        def decode(encoded: bytes) -> np.ndarray:
            data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
            found = decode_image(data, ImageReadMode.RGB, apply_exif_orientation=turned)
            return np.moveaxis(found.numpy(), -3, -1)

        return decode

    return make


def _torchcodec() -> Decode:
    import torch
    from torchcodec.decoders import decode_image

    def decode(encoded: bytes) -> np.ndarray:
        found = decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), mode="RGB")
        return np.moveaxis(found.numpy(), -3, -1)

    return decode


def _opencv(turned: bool) -> Callable[[], Decode]:
    def make() -> Decode:
        import cv2

        flags = cv2.IMREAD_COLOR_RGB | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION)

        def decode(encoded: bytes) -> np.ndarray:
            found = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
            if found is None:
                raise ValueError("imdecode returned None")
            return found

        return decode

    return make


def _dali() -> Decode:
    """A batch of a good photo and of the file: what fails loses both."""
    from nvidia.dali import Pipeline, fn, types

    good: list[bytes] = []

    def decode(encoded: bytes) -> np.ndarray:
        if not good:
            good.append(encoded)
        pipe = Pipeline(batch_size=2, num_threads=1, device_id=None, prefetch_queue_depth=1)
        with pipe:
            files = fn.external_source(name="files", dtype=types.UINT8, ndim=1, batch=True)
            pipe.set_outputs(fn.decoders.image(files, device="cpu", output_type=types.RGB))
        pipe.build()
        pipe.feed_input("files", [np.frombuffer(each, np.uint8) for each in (good[0], encoded)])
        try:
            (found,) = pipe.run()
        except RuntimeError as error:
            raise BatchLost(str(error)) from error
        return np.array(found.at(1))

    return decode


def _spdl() -> Decode:
    import spdl.io

    def decode(encoded: bytes) -> np.ndarray:
        packets = spdl.io.demux_image(encoded)
        frames = spdl.io.decode_packets(packets, filter_desc="format=rgb24")
        return np.array(spdl.io.to_numpy(spdl.io.convert_frames(frames)))

    return decode


def _tensorflow() -> Decode:
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    return lambda encoded: tf.io.decode_image(encoded, channels=3).numpy()


def _ffcv() -> Decode:
    from ffcv.libffcv import imdecode
    from simplejpeg import decode_jpeg_header  # ffcv keeps sizes in its own file

    def decode(encoded: bytes) -> np.ndarray:
        height, width = decode_jpeg_header(encoded)[:2]
        out, source = np.zeros((height, width, 3), np.uint8), np.frombuffer(encoded, np.uint8)
        if imdecode(source, out, height, width, height, width, 0, 0, 1, 1, False, False):
            raise ValueError("imdecode failed")
        return out

    return decode


DECODERS = {
    "Pillow": Decoder(_pillow, ("pillow",)),
    "simplejpeg": Decoder(_simplejpeg, ("simplejpeg",)),
    "torchvision.io": Decoder(_torchvision(False), ("torchvision",)),
    "torchvision.io, exif": Decoder(_torchvision(True), ("torchvision",)),
    "torchcodec": Decoder(_torchcodec, ("torchcodec",)),
    "OpenCV": Decoder(_opencv(True), ("opencv-python-headless",)),
    "DALI CPU": Decoder(_dali, ("nvidia-dali-cuda120",)),
    "SPDL": Decoder(_spdl, ("spdl-io",)),
    "TensorFlow": Decoder(_tensorflow, ("tensorflow-cpu",)),
    "ffcv": Decoder(_ffcv, ("ffcv", "simplejpeg")),
}


def versions(name: str) -> dict[str, str]:
    """Of a decoder's packages. Raises importlib.metadata.PackageNotFoundError."""
    return {package: version(package) for package in DECODERS[name].packages}


def main() -> None:
    """Arguments: a decoder's name and the folder for pixels; answers each line, a file, with a line."""
    decode, out = DECODERS[sys.argv[1]].make(), Path(sys.argv[2])
    for line in sys.stdin:
        file = Path(line.rstrip("\n"))
        try:
            np.save(out / f"{file.name}.npy", decode(file.read_bytes()))
            said = {"end": "pixels"}
        except BatchLost as error:
            said = {"end": "batch lost", "error": str(error)}
        except Exception as error:  # whatever a decoder raises is its answer
            said = {"end": "refused", "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
