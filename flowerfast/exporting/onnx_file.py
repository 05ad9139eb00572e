"""A trained model as ONNX: uint8 pixels in, probabilities out, and what its photos need in its metadata."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from flowerfast.errors import RunFailed, UserError, one_line
from flowerfast.exporting.source import Source
from flowerfast.machine import ignore_warnings, versions
from flowerfast.training.evaluation import answer, probabilities

INPUT, OUTPUT = "images", "probabilities"
OPSET = 18
"""The oldest that torch's exporter writes without converting, so that older runtimes read it too."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LARGEST = 2**31 - 2**20
"""Bytes of weights: the format (protobuf) ends at 2 GiB with all else."""
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


class Probabilities(nn.Module):
    """Normalisation, network and softmax, of `several` labels a photo sigmoid; with `flip` the mean over each
    image and its mirror image.

    Takes uint8 (N, 3, S, S), gives float32 (N, classes).
    """

    def __init__(self, model: nn.Module, flip: bool, several: bool = False) -> None:
        super().__init__()
        self.model, self.flip, self.several = model, flip, several

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities of each class."""
        return probabilities(answer(self.model, images, self.flip, self.several), self.several)


def check_packages() -> None:
    """Raise UserError when a package that this needs is not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f'--format onnx: {" and ".join(missing)} not installed; pip install "flowerfast[onnx]"'
        )


def onnx_bytes(source: Source) -> bytes:
    """The model as an ONNX file. Takes seconds, and prints nothing.

    Raises UserError for a model that is too large for the format, RunFailed for a network that torch's
    exporter does not take.
    """
    trained = source.model
    weights = sum(tensor.nbytes for tensor in trained.model.state_dict().values())
    if weights > _LARGEST:
        raise UserError(
            f"--format onnx: {weights:,} bytes of weights, and an ONNX file holds 2 GiB; "
            "give --format safetensors"
        )
    module = Probabilities(trained.model, trained.flip, trained.multilabel).eval()
    size = trained.image_size
    # Two images: of one, the exporter would take the size of the batch for a constant.
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (images,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                verbose=False,
            )
    except Exception as error:  # it raises whatever comes of what networks do
        name = source.described.architecture
        raise RunFailed(
            f"{name}: torch's ONNX exporter does not take this network ({one_line(error)}); "
            "give --format safetensors"
        ) from error
    assert program is not None
    model: Any = program.model_proto
    model.producer_name, model.producer_version = "flowerfast", versions().get("flowerfast", "")
    for key, value in about(source).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def about(source: Source) -> dict[str, str]:
    """What an ONNX file of a model says of it: `metadata_props`, all ASCII.

    `resize` is the short side in pixels to which photos are resized before the square of `image_size` pixels
    is cut from their centre; `exif` says whether they are turned upright first. `threshold`, from which a
    label counts as given, is there where a photo may have several.
    """
    trained = source.model
    several = {} if trained.threshold is None else {"threshold": str(trained.threshold)}
    return {
        "classes": json.dumps(trained.classes),
        "architecture": source.described.architecture,
        "image_size": str(trained.image_size),
        "resize": str(round(trained.image_size / trained.crop_pct)),
        "interpolation": "bilinear, antialias",
        "crop": "center",
        "exif": trained.exif,
        "flip": json.dumps(trained.flip),
        "layout": "NCHW, RGB",
        **several,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, torch's exporter and its libraries say nothing: what comes of them is checked."""
    ignore_warnings(r"(torch|onnxscript|onnx_ir|onnx|copyreg)(\..*)?$")
    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in _LOGGERS]
    for logger, _ in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
