"""Decoders and resizes that photos are served by.

Where a photo is cut and how large it is before that is the same for all, torchvision's Resize and CenterCrop,
so that only the decoder and the rule of the resize differ.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

Resize = Callable[[np.ndarray, int, int], np.ndarray]
"""uint8 (h, w, 3) to uint8 (height, width, 3): (pixels, height, width)."""


class Way(NamedTuple):
    """A decoder of `decoder_calls`, a maker of the resize, and what both import."""

    decoder: str
    resize: Callable[[], Resize]
    modules: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """The first module that is not installed."""
        return next((name for name in self.modules if find_spec(name) is None), None)


def _trained() -> Resize:
    from flowerfast.pixels.reference import resize

    return resize


def _pillow(filter_: str) -> Callable[[], Resize]:
    def make() -> Resize:
        from PIL import Image

        def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
            return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling[filter_]))

        return resize

    return make


def _torchvision(version: int, antialias: bool = True) -> Callable[[], Resize]:
    def make() -> Resize:
        import torch

        if version == 1:
            from torchvision.transforms.functional import resize as call
        else:
            from torchvision.transforms.v2.functional import resize as call

        def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
            photo = torch.from_numpy(pixels).permute(2, 0, 1)
            return call(photo, [height, width], antialias=antialias).permute(1, 2, 0).contiguous().numpy()

        return resize

    return make


def _opencv(name: str) -> Callable[[], Resize]:
    def make() -> Resize:
        import cv2

        rule = getattr(cv2, name)
        return lambda pixels, height, width: cv2.resize(pixels, (width, height), interpolation=rule)

    return make


def _dali(antialias: bool) -> Callable[[], Resize]:
    def make() -> Resize:
        from nvidia.dali import Pipeline, fn, types

        pipe = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
        with pipe:
            photo = fn.external_source(name="photo", dtype=types.UINT8, ndim=3, layout="HWC", batch=True)
            size = fn.external_source(name="size", dtype=types.FLOAT, ndim=1, batch=True)
            made = fn.resize(photo, size=size, interp_type=types.INTERP_LINEAR, antialias=antialias)
            pipe.set_outputs(made)
        pipe.build()

        def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
            pipe.feed_input("photo", [pixels])
            pipe.feed_input("size", [np.array([height, width], np.float32)])
            return np.array(pipe.run()[0].at(0))

        return resize

    return make


def _onnx(antialias: bool) -> Callable[[], Resize]:
    def make() -> Resize:
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper

        node = helper.make_node(
            "Resize", ["photo", "", "", "sizes"], ["out"], mode="linear", antialias=int(antialias),
            coordinate_transformation_mode="half_pixel",
        )  # fmt: skip
        photo, out = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None])
            for name in ("photo", "out")
        )
        sizes = helper.make_tensor_value_info("sizes", TensorProto.INT64, [4])
        graph = helper.make_graph([node], "resize", [photo, sizes], [out])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(model.SerializeToString())

        def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
            planes = pixels.transpose(2, 0, 1)[None].astype(np.float32)
            made: Any = session.run(None, {"photo": planes, "sizes": np.array([1, 3, height, width])})[0]
            return np.ascontiguousarray(made[0].transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8))

        return resize

    return make


def _tensorflow(method: str, antialias: bool = False) -> Callable[[], Resize]:
    def make() -> Resize:
        import tensorflow as tf

        def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
            made = tf.image.resize(pixels, [height, width], method=method, antialias=antialias).numpy()
            return np.ascontiguousarray(made.round().clip(0, 255).astype(np.uint8))

        return resize

    return make


WAYS = {
    "as in training": Way("Pillow", _trained),
    "Pillow, bilinear": Way("Pillow", _pillow("BILINEAR")),
    "Pillow, bicubic": Way("Pillow", _pillow("BICUBIC")),
    "Pillow, nearest": Way("Pillow", _pillow("NEAREST")),
    "torchvision v1, uint8": Way("torchvision.io", _torchvision(1)),
    "torchvision v2, uint8": Way("torchvision.io", _torchvision(2)),
    "torchvision v2, antialias=False": Way("torchvision.io", _torchvision(2, False)),
    "torchcodec, torchvision v2": Way("torchcodec", _torchvision(2), ("torchcodec",)),
    "OpenCV, INTER_LINEAR": Way("OpenCV", _opencv("INTER_LINEAR"), ("cv2",)),
    "OpenCV, INTER_AREA": Way("OpenCV", _opencv("INTER_AREA"), ("cv2",)),
    "DALI, antialias": Way("Pillow", _dali(True), ("nvidia",)),
    "DALI, antialias=False": Way("Pillow", _dali(False), ("nvidia",)),
    "SPDL, Pillow bilinear": Way("SPDL", _pillow("BILINEAR"), ("spdl",)),
    "ONNX Resize, antialias": Way("Pillow", _onnx(True), ("onnx", "onnxruntime")),
    "ONNX Resize, linear": Way("Pillow", _onnx(False), ("onnx", "onnxruntime")),
    "TensorFlow's decoder, torchvision v2": Way("TensorFlow", _torchvision(2), ("tensorflow",)),
    "TensorFlow, bilinear": Way("TensorFlow", _tensorflow("bilinear"), ("tensorflow",)),
    "TensorFlow, bilinear, antialias": Way("TensorFlow", _tensorflow("bilinear", True), ("tensorflow",)),
    "TensorFlow, area": Way("TensorFlow", _tensorflow("area"), ("tensorflow",)),
}
"""DALI's own decoder gives Pillow's pixels of the JPEGs that it takes (docs/decoders.md): only its resize is
here."""
