"""A trained run at work: its model, and what it says of single photos.

Preprocessing (size, crop, mean, standard deviation, class names) comes from the folder that was saved with
the weights, never from the caller.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch

from flowerfast.arguments import of_kind, path, whole
from flowerfast.config import DataConfig, EvalConfig, Exif
from flowerfast.errors import UserError, one_line
from flowerfast.loaders.device import pick_device
from flowerfast.training.allocator import keep_freed_memory
from flowerfast.training.described import WEIGHTS, Described, check_shapes, on_meta
from flowerfast.training.evaluation import answer, probabilities
from flowerfast.training.image_size import check_eval_size
from flowerfast.training.model import Classifier, with_normalisation
from flowerfast.training.pictures import batches
from flowerfast.training.seal import Damaged, check
from flowerfast.training.squares import Picture, Squares, checked, square

_MAX_PIXELS = DataConfig().max_pixels
BATCH = 32
"""Photos that go through the model at a time, unless it is told otherwise."""


@dataclass(frozen=True)
class Prediction:
    """What is on one photo.

    Attributes:
        path: the file, or the place in the sequence of what was no file.
        top: (class, probability), most likely first; empty when the file cannot be read.
        error: why it cannot be read, in one line, or None.
        labels: of a model that gives several labels a photo those whose probability is its threshold or more,
            most likely first; else None.
    """

    path: str
    top: tuple[tuple[str, float], ...]
    error: str | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TrainedModel:
    """A trained classifier and what it expects.

    Attributes:
        model: uint8 (N, 3, S, S) to logits (N, classes), in evaluation mode.
        classes: names of the logits.
        image_size, crop_pct: of the evaluation plan.
        device: where the model is.
        exif: whether photos are turned upright as their EXIF orientation says, as in training.
        flip: whether the probabilities of a photo and of its mirror image are averaged, as in validation.
        threshold: of several labels a photo, probability from which one counts as given; None: one a photo.
    """

    model: Classifier
    classes: tuple[str, ...]
    image_size: int
    crop_pct: float
    device: torch.device
    exif: Exif
    flip: bool = False
    threshold: float | None = None

    @property
    def multilabel(self) -> bool:
        """Whether it gives a photo any number of labels."""
        return self.threshold is not None

    def at(self, protocol: EvalConfig) -> "TrainedModel":
        """The same model, asked as those fields say that `protocol` was given: image_size, crop_pct, flip,
        threshold.

        Raises UserError for an image size that the network does not take, and for a threshold where it gives
        one label a photo.
        """
        of_kind("at: protocol", protocol, EvalConfig, "ff.EvalConfig(...)")
        fields = {"image_size", "crop_pct", "flip", "threshold"}
        given = protocol.model_dump(include=fields & protocol.model_fields_set)
        if "threshold" in given and not self.multilabel:
            raise UserError(
                f"eval.threshold={given['threshold']:g}: the model gives a photo one label, the most likely; "
                "drop it"
            )
        changed = replace(self, **{name: value for name, value in given.items() if value is not None})
        if changed.image_size != self.image_size:
            check_eval_size(self.model.network, "the model", changed.image_size)
        return changed

    def predict(
        self, images: Picture | Sequence[Picture], top_k: int = 3, max_pixels: int = _MAX_PIXELS
    ) -> list[Prediction]:
        """The `top_k` most likely classes of each photo, in their order.

        A file that cannot be read, or of more than `max_pixels`, gives a `Prediction` with an `error`. Raises
        UserError for what is no photo at all.
        """
        listed = [images] if isinstance(images, Picture) or not isinstance(images, Iterable) else images
        return list(self.predict_each(listed, top_k, max_pixels))

    def predict_each(
        self,
        images: Iterable[Picture],
        top_k: int = 3,
        max_pixels: int = _MAX_PIXELS,
        batch_size: int = BATCH,
    ) -> Generator[Prediction, None, None]:
        """As `predict`, of any number of photos: each answer when it is asked for, none kept.

        `batch_size` photos go through the model at a time, and a few batches are taken from `images` ahead of
        the answers, see `pictures.batches`. With 1 each photo is answered before the next is taken.
        """
        top_k, max_pixels = whole("top_k", top_k, 1), whole("max_pixels", max_pixels, 1)
        batch_size = whole("batch_size", batch_size, 1)
        squares = Squares(self.image_size, self.crop_pct, self.exif == "apply", max_pixels)
        with closing(batches(images, squares, batch_size)) as ready:
            for names, made in ready:
                answers = self._answer([one for one in made if not isinstance(one, str)], top_k)
                for name, one in zip(names, made, strict=True):
                    if isinstance(one, str):
                        yield Prediction(name, (), one)
                        continue
                    top, labels = next(answers)
                    yield Prediction(name, top, labels=labels)

    @torch.inference_mode()
    def _answer(
        self, squares: list[np.ndarray], top_k: int
    ) -> Iterator[tuple[tuple[tuple[str, float], ...], tuple[str, ...] | None]]:
        """The most likely classes of each square, and the labels that it is given, see `Prediction`."""
        if not squares:
            return iter(())
        images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
        logits = answer(self.model, images.to(self.device), self.flip, self.multilabel)
        chances = probabilities(logits, self.multilabel)
        best = chances.topk(len(self.classes) if self.multilabel else min(top_k, len(self.classes)))
        answers = []
        for row in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            ranked = tuple((self.classes[i], chance) for i, chance in zip(*row, strict=True))
            labels = None
            if self.threshold is not None:
                labels = tuple(name for name, chance in ranked if chance >= self.threshold)
            answers.append((ranked[:top_k], labels))
        return iter(answers)

    def prepare(self, photo: np.ndarray) -> torch.Tensor:
        """A photo, uint8 (h, w, 3), as the model takes it: uint8 (3, S, S), resized and cut."""
        made = square(checked(photo, "prepare"), self.image_size, self.crop_pct)
        return torch.from_numpy(made).permute(2, 0, 1)


def load_run(run: Path | str, device: str | torch.device = "auto") -> TrainedModel:
    """Best model of a run folder (or of its best/). Raises UserError when there is none, or it is damaged."""
    run, where = path("run", run), pick_device(device)
    folder = run / "best" if (run / "best").is_dir() else run
    try:
        stored = Described.read(folder)
        classes = stored.classes
        if not (folder / WEIGHTS).is_file():  # timm would look for a pickle
            raise ValueError(f"{WEIGHTS} is missing")
        check(folder / WEIGHTS)
        name = f"local-dir:{folder}"
        empty = on_meta(partial(timm.create_model, name))
        if empty is not None:
            check_shapes(empty, folder / WEIGHTS)
        network = timm.create_model(name, pretrained=True)  # else random weights
    except Damaged:
        raise
    except Exception as error:  # networks raise whatever comes of arguments that do not fit
        raise UserError(
            f"{run}: no trained model there ({one_line(error)}); give the --out folder of a finished epoch"
        ) from error
    cfg, exif = stored.pretrained_cfg, stored.exif
    keep_freed_memory(where)
    return TrainedModel(
        with_normalisation(network).to(where).eval(),
        classes,
        cfg.input_size[-1],
        cfg.crop_pct,
        where,
        "apply" if exif == "apply" else "ignore",  # earlier versions ignored it
        stored.flip,
        stored.threshold,
    )
