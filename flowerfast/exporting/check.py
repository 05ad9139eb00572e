"""Whether an ONNX file answers as the model in PyTorch does: on photos, one and several at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from flowerfast.errors import RunFailed, one_line
from flowerfast.exporting.onnx_file import INPUT, Probabilities
from flowerfast.machine import Progress
from flowerfast.training.trained import TrainedModel

BOUND = 1e-4
"""Most by which a probability may differ."""
_EQUAL = 1e-6
"""Classes whose probabilities differ by less are both the most likely one: that is rounding."""


@dataclass(frozen=True)
class Checked:
    """What was compared.

    Attributes:
        photos: how many.
        on: which ones, in words.
        difference: largest of a probability.
    """

    photos: int
    on: str
    difference: float


def check_onnx(
    content: bytes,
    trained: TrainedModel,
    batches: Iterable[np.ndarray],
    on: str,
    total: int,
    bar: Progress | None = None,
) -> Checked:
    """Compare an ONNX file, run by onnxruntime on the CPU, with the model it was made of.

    Args:
        content: the file.
        trained: the model, on the CPU.
        batches: uint8 (n, 3, S, S) of any n above 0; the first image is also asked about alone.
        on: what they are, for messages.
        total: images in all, for `bar`.

    Raises RunFailed when a probability differs by more than `BOUND`, or the most likely class does, and when
    onnxruntime does not take the file.
    """
    module, worst = Probabilities(trained.model, trained.flip, trained.multilabel).eval(), 0.0
    others = seen = 0
    try:
        session = _session(content)
    except Exception as error:  # of classes of its own, by kind of fault
        raise RunFailed(f"onnxruntime does not take the ONNX file ({one_line(error)}); {_WAY_OUT}") from error
    for images in batches:
        for part in (images[:1], images) if not seen else (images,):
            with torch.inference_mode():
                expected = module(torch.from_numpy(part)).numpy()
            try:
                (given,) = session.run(None, {INPUT: part})
            except Exception as error:  # as above
                raise RunFailed(
                    f"onnxruntime cannot run the ONNX file on {len(part)} images ({one_line(error)}); "
                    f"{_WAY_OUT}"
                ) from error
            difference = np.abs(given - expected).max() if given.shape == expected.shape else np.inf
            worst = max(worst, float(np.nan_to_num(difference, nan=np.inf)))
            if given.shape == expected.shape:
                others += _other_classes(expected, given)
        seen += len(images)
        if bar:
            bar(seen, total)
    if worst > BOUND or others:
        raise RunFailed(
            f"the ONNX file does not answer as PyTorch does on {seen} {on}: probabilities differ by up to "
            f"{worst:.1e}, the most likely class on {others}; nothing is written: {_WAY_OUT}"
        )
    return Checked(seen, on, worst)


_WAY_OUT = "try another version of torch or onnxruntime, or --format safetensors"


def _other_classes(expected: np.ndarray, given: np.ndarray) -> int:
    rows = np.arange(len(given))
    return int((expected.max(1) - expected[rows, given.argmax(1)] > _EQUAL).sum())


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: what goes wrong is raised too
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
