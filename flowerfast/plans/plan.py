"""Plans: what becomes of each sample, decided before any pixel is touched; and which samples come when.

A plan is a pure function of (seed, epoch, sample index, photo size, settings). Numbers come from
`numpy.random.Philox`, a counter-based generator: the key is (seed, purpose and epoch), and each sample owns a
fixed block of the counter, so that neither batch size, order of calls, backend nor number of workers matters.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from flowerfast.augment import Augment
from flowerfast.philox import generator, stream_key, uniforms
from flowerfast.photos.photos import Photos
from flowerfast.plans.balance import Balance
from flowerfast.plans.finish import Finish, make_finish
from flowerfast.plans.geometry import Sizes, around, moved, random_windows, resized
from flowerfast.plans.mixing import Mix, make_mix, pairs, part_of
from flowerfast.plans.order import Order, block_order

_BLOCKS = 8  # of four draws each per sample; 2 x 10 attempts and 9 more are used
_AGAIN = 1 << 37  # samples there are never so many: from here on lie the random numbers of repeats
_STRIP, _LARGE = 32, 1 << 26
"""Photos more than so many times as long as wide, and of so many pixels after the resize, are strips."""


@dataclass(frozen=True)
class Plan:
    """What becomes of n samples; arrays of length n, but for the last four.

    Of a photo, decoded to 1 / shrink of its size and then of photo_height x photo_width pixels, the window
    (top, left, height, width) is resized to out_height x out_width. Of that the square of `size` pixels at
    (from_row, from_column) is taken, black beyond the edge, then mirrored, rotated, jittered, shifted,
    finished, and mixed with another.

    Attributes:
        indices: int64, sample indices.
        shrink: int64, 1, 2, 4 or 8.
        photo_height, photo_width, top, left, height, width: int64, pixels of the decoded photo.
        out_height, out_width, from_row, from_column: int64, pixels of the resized window.
        flip: bool, mirror horizontally.
        angle: float32, degrees, counter-clockwise.
        brightness, contrast: float32, factors around 1.
        contrast_first: bool, contrast before brightness.
        shift_x, shift_y: int64, pixels to the right and down.
        size: side of the output, in pixels.
        augmented: False when nothing follows the resize and the cut: the plan of an evaluation.
        finish: what is done to the finished squares, None: nothing.
        mix: how they are mixed with each other once they are a batch, None: not at all.
    """

    indices: np.ndarray
    shrink: np.ndarray
    photo_height: np.ndarray
    photo_width: np.ndarray
    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    out_height: np.ndarray
    out_width: np.ndarray
    from_row: np.ndarray
    from_column: np.ndarray
    flip: np.ndarray
    angle: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    contrast_first: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    size: int
    augmented: bool
    finish: Finish | None = None
    mix: Mix | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, rows: np.ndarray) -> "Plan":
        """The plan of some of its samples: `rows` are positions, int64 (m,), or a mask, bool (n,)."""
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in COLUMNS}
        finish = self.finish.select(rows) if self.finish is not None else None
        mix = self.mix.select(rows) if self.mix is not None else None
        return replace(self, **columns, finish=finish, mix=mix)

    def without(self, indices: list[int]) -> "Plan":
        """The plan of all samples but those with these indices."""
        return self.select(~np.isin(self.indices, indices)) if indices else self

    def at(self, sizes: Sizes, shrink: np.ndarray | None = None) -> "Plan":
        """The plan for the same photos at other sizes (width, height): windows move to whole pixels."""
        width, height = (np.asarray(s, np.int64) for s in sizes)
        top, tall = moved(self.top, self.height, self.photo_height, height)
        left, wide = moved(self.left, self.width, self.photo_width, width)
        return replace(
            self,
            shrink=self.shrink if shrink is None else shrink,
            photo_height=height,
            photo_width=width,
            top=top,
            left=left,
            height=tall,
            width=wide,
        )


COLUMNS = tuple(
    field.name for field in fields(Plan) if field.name not in ("size", "augmented", "finish", "mix")
)
"""Names of a plan's arrays."""


def still_plan(indices: np.ndarray, sizes: Sizes, size: int) -> Plan:
    """Plan of photos of `sizes` (width, height) that resizes each whole photo to the square and no more."""
    width, height = (np.asarray(s, np.int64) for s in sizes)
    n = len(indices)
    none, side, off, one = np.zeros(n, np.int64), np.full(n, size), np.zeros(n, bool), np.ones(n, np.float32)
    return Plan(
        indices=np.asarray(indices, np.int64),
        shrink=np.ones(n, np.int64),
        photo_height=height,
        photo_width=width,
        top=none,
        left=none,
        height=height,
        width=width,
        out_height=side,
        out_width=side,
        from_row=none,
        from_column=none,
        flip=off,
        angle=np.zeros(n, np.float32),
        brightness=one,
        contrast=one,
        contrast_first=off,
        shift_x=none,
        shift_y=none,
        size=size,
        augmented=False,
    )


def make_plan(seed: int, epoch: int, indices: np.ndarray, sizes: Sizes, augment: Augment, size: int) -> Plan:
    """Plan of the samples `indices` (int64, n) in an epoch.

    `sizes` is (width, height) of those photos in pixels, each (n,). The distributions are torchvision's:
    RandomResizedCrop, RandomHorizontalFlip, RandomRotation, ColorJitter(brightness, contrast) with a random
    order of the two, RandomAffine(translate) with its rounding to whole pixels.
    """
    u = uniforms(stream_key("augment", seed, epoch), indices, _BLOCKS)
    top, left, height, width = random_windows(u, sizes, augment)
    reach = augment.translate * size
    low_b, low_c = 1 - augment.brightness, 1 - augment.contrast
    return replace(
        still_plan(indices, sizes, size),
        top=top,
        left=left,
        height=height,
        width=width,
        flip=u[:, 22] < augment.flip,
        angle=((2 * u[:, 23] - 1) * augment.rotate).astype(np.float32),
        brightness=(low_b + 2 * augment.brightness * u[:, 24]).astype(np.float32),
        contrast=(low_c + 2 * augment.contrast * u[:, 25]).astype(np.float32),
        contrast_first=u[:, 26] < 0.5,
        shift_x=np.rint((2 * u[:, 27] - 1) * reach).astype(np.int64),
        shift_y=np.rint((2 * u[:, 28] - 1) * reach).astype(np.int64),
        augmented=True,
        finish=make_finish(seed, epoch, indices, augment, size),
    )


def make_eval_plan(indices: np.ndarray, sizes: Sizes, size: int, crop_pct: float) -> Plan:
    """Plan of torchvision's Resize(round(size / crop_pct)) and CenterCrop(size); `sizes` as above.

    Of a strip, which would take gigabytes when it is resized whole, only the part that the crop needs is.
    """
    out_width, out_height = resized(sizes, size, crop_pct)
    plan = replace(
        still_plan(indices, sizes, size),
        out_height=out_height,
        out_width=out_width,
        from_row=np.rint((out_height - size) / 2).astype(np.int64),
        from_column=np.rint((out_width - size) / 2).astype(np.int64),
    )
    long = np.maximum(out_width, out_height)
    strips = (long > _STRIP * np.minimum(out_width, out_height)) & (out_width * out_height > _LARGE)
    return _within(plan, strips) if strips.any() else plan


def _within(plan: Plan, strips: np.ndarray) -> Plan:
    """The plan with windows around the crop, along the long side of the `strips`, bool (n,)."""
    wide = plan.out_width > plan.out_height
    changes: dict[str, Any] = {}
    for rows, names, length in (
        (strips & wide, ("left", "width", "out_width", "from_column"), plan.photo_width),
        (strips & ~wide, ("top", "height", "out_height", "from_row"), plan.photo_height),
    ):
        parts = around(length, getattr(plan, names[2]), getattr(plan, names[3]), plan.size)
        for name, part in zip(names, parts, strict=True):
            changes[name] = np.where(rows, part, getattr(plan, name))
    return replace(plan, **changes)


def epoch_order(seed: int, epoch: int, count: int) -> Order:
    """Permutation of range(count) for an epoch; slices of it are int64 arrays."""
    return Order(count, generator("order", seed, epoch))


@dataclass(frozen=True)
class Sampler:
    """Which samples share a batch, and their plan, in any epoch: a function of the settings alone.

    Attributes:
        photos: the samples.
        size: side of the output, in pixels.
        batch_size: samples per batch of all ranks together; the last batch of an epoch may be shorter.
        seed: of order and augmentation.
        augment: distributions of the random plan; None: the evaluation plan (resize, centre crop).
        shuffle: a new order each epoch; False: the order of `photos`.
        crop_pct: size / short side of the resized photo, for the evaluation plan.
        rank, world_size: this process takes the `rank`-th of `world_size` parts of each batch (they differ by
            one sample at most; where samples are mixed by one pair, since no pair is cut), so that all ranks
            together see the same samples, however many they are.
        fold_last: a last batch of one sample is joined to the batch before it.
        sampling: natural, each sample once an epoch; or balanced: as many samples, all classes equally often
            (`Balance`). A sample that comes again in an epoch has a plan of its own.
        order: with shuffle, how: `random`, all samples as one; `blocks`, shard by shard (`block_order`);
            `blocks-first`, so in the first epoch alone.
    """

    photos: Photos
    size: int
    batch_size: int
    seed: int = 0
    augment: Augment | None = None
    shuffle: bool = False
    crop_pct: float = 0.875
    rank: int = 0
    world_size: int = 1
    fold_last: bool = False
    sampling: Literal["natural", "balanced"] = "natural"
    order: Literal["random", "blocks-first", "blocks"] = "random"

    def __len__(self) -> int:
        return -(-len(self.photos) // self.batch_size) - self._folded

    @property
    def full_batch(self) -> int:
        """Samples that this rank has of a batch of `batch_size`."""
        first, end = part_of(self.batch_size, self.rank, self.world_size, self._mixing is not None)
        return end - first

    @property
    def largest_batch(self) -> int:
        """Most samples that a rank has of a batch."""
        held, unit = self.batch_size + self._folded, 1 if self._mixing is None else 2
        return min(-(-held // (unit * self.world_size)) * unit, held)

    @property
    def _mixing(self) -> Augment | None:
        return self.augment if self.augment is not None and self.augment.mixes else None

    @property
    def _folded(self) -> bool:
        return (
            self.fold_last and len(self.photos) > self.batch_size and len(self.photos) % self.batch_size == 1
        )

    def plans(self, epoch: int, start_batch: int = 0) -> Iterator[Plan]:
        """Plans of the epoch's batches in order, from `start_batch` on."""
        mixing = self._mixing
        for start, end, places, repeats in self._places(epoch, start_batch):
            plan = self.plan(epoch, self.photos.indices[places], repeats)
            if mixing is not None:
                pair = pairs(start, end - len(places), end)
                plan = replace(plan, mix=make_mix(self.seed, epoch, pair, mixing, self.size))
            yield plan

    def batches(self, epoch: int, start_batch: int = 0) -> Iterator[np.ndarray]:
        """Samples of the epoch's batches in order, from `start_batch` on: int64 (m,)."""
        for *_, places, _ in self._places(epoch, start_batch):
            yield self.photos.indices[places]

    def plan(self, epoch: int, indices: np.ndarray, repeats: np.ndarray | None = None) -> Plan:
        """Plan of some samples in an epoch, int64 (n,); `repeats`: how often the epoch had each before.

        Without their batch they are not mixed.
        """
        sizes = self.photos.sizes(indices)
        if self.augment is None:
            return make_eval_plan(indices, sizes, self.size, self.crop_pct)
        if repeats is None:
            return make_plan(self.seed, epoch, indices, sizes, self.augment, self.size)
        places = indices + _AGAIN * repeats
        return replace(make_plan(self.seed, epoch, places, sizes, self.augment, self.size), indices=indices)

    def in_blocks(self, epoch: int) -> bool:
        """Whether an epoch takes shard after shard."""
        return self.shuffle and (self.order == "blocks" or (self.order == "blocks-first" and epoch == 0))

    def _places(
        self, epoch: int, start_batch: int
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray | None]]:
        """Of each batch where it begins in the epoch, where this rank's part ends, and that part: places of
        samples in `photos`, and how often the epoch had each before.
        """
        count = len(self.photos)
        order = self._order(epoch)
        for number in range(start_batch, len(self)):
            start = number * self.batch_size
            held = count - start if number == len(self) - 1 else self.batch_size
            first, end = part_of(held, self.rank, self.world_size, self._mixing is not None)
            places, repeats = order[start + first : start + end], None
            if self.sampling == "balanced":
                places, repeats = self._balance.draw(epoch, places)
            yield start, start + end, places, repeats

    def _order(self, epoch: int) -> Order | np.ndarray:
        count, shards = len(self.photos), self.photos.table.shards
        if not self.shuffle:
            return np.arange(count)
        if shards is None or not self.in_blocks(epoch):
            return epoch_order(self.seed, epoch, count)
        return block_order(shards.shard[self.photos.indices], generator("blocks", self.seed, epoch))

    @cached_property
    def _balance(self) -> Balance:
        return Balance(self.photos.table.label[self.photos.indices], self.seed)
