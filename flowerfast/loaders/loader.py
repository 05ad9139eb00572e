"""`Loader`: photos to batches on the training device, by whatever is fastest here."""

import time
import zlib
from collections.abc import Generator, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch

from flowerfast.arguments import of_kind, whole
from flowerfast.augment import Augment
from flowerfast.config import DataConfig, speaking_of, validate
from flowerfast.errors import UserError
from flowerfast.kernels.ready import LOOPS
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.cache.choice import choose_cache, device_memory, open_cache
from flowerfast.loaders.device import pick_device
from flowerfast.loaders.engine import choose_augmenter, choose_backend, open_engine, workplace
from flowerfast.loaders.kept import KeptEngine
from flowerfast.loaders.mixing import mixed
from flowerfast.loaders.speeds import gpu_decodes
from flowerfast.philox import STREAMS as EPOCHS
from flowerfast.photos.photos import Photos
from flowerfast.pixels.executor import compiling_notes
from flowerfast.plans.plan import Plan, Sampler
from flowerfast.ranks.who import current

_ARGUMENTS = {
    "data.image_size": "size",
    "train.batch_size": "batch_size",
    "train.seed": "seed",
    "train.sampling": "sampling",
    "eval.crop_pct": "crop_pct",
}
"""Arguments of `Loader` by the settings whose bounds they share."""


class Loader:
    """Batches of one set of photos, epoch by epoch: `for images, labels in loader.epoch(0)`.

    Which samples share a batch, and their random parameters, follow from (seed, epoch) alone: not from the
    number of workers, the backend, or where an epoch was entered. Use it as a context manager, or `close` it.

    Args:
        photos: the samples.
        size: side of the square images, in pixels.
        batch_size: samples per batch, of all ranks together; the last batch of an epoch may be shorter.
        augment: distributions of the random augmentation; None: resize and centre crop, as for evaluation.
        shuffle: a new order each epoch, or that of the photos; None: shuffle when there is augmentation.
        seed: of order and augmentation.
        crop_pct: without augmentation, size / short side of the resized photo.
        device: where batches are wanted: auto, cpu, cuda, or a torch.device; auto is the GPU if there is one.
        backend: auto, cpu, dali-cpu or dali; None: that of `options`.
        cache: where decoded photos are kept: none, ram, disk, vram or auto; None: that of `options`. Without
            augmentation there is none: an evaluation decodes its photos exactly.
        workers: threads that make pixels, 0: one per usable core; None: those of `options`.
        options: more settings, as in the section `data` of a configuration (prefetch, cache_gb, cache_side,
            decoder, ...); its path, image_size, val_fraction and exif are not looked at.
        keep: without augmentation, keep the batches of the first epoch where memory allows and yield them
            again in the next.
        rank, world_size: this process takes the `rank`-th of `world_size` parts of each batch, which differ
            by one sample at most, or where samples are mixed by one pair, for no pair is cut; the short last
            batch may leave a process without any. All have as many batches. None: those of torch.distributed
            where it runs, else all of each batch.
        fold_last: a last batch of one sample, which batch normalisation cannot train on, is joined to the
            batch before it: an epoch has one batch less, all else stays as it is.
        sampling: natural, each photo once an epoch; or balanced: as many photos, all classes equally often,
            and within a class all photos. One that comes again in an epoch is augmented in another way.

    Raises UserError when the backend, cache or device asked for is not to be had here.

    Attributes:
        photos, device: as given, the device resolved.
        plan_sampler: which samples come when, and their plans (Lightning takes what has a `sampler` for a
            DataLoader).
        backend, backend_reason: who makes the pixels, and why.
        cache, cache_reason: where decoded photos are kept, and why.
        hw_decoder_load: share of the GPU's hardware decoder; None where the GPU decodes nothing.
        gpu_kernels: who augments them on the GPU, triton or dali; None: nobody, the CPU does.
    """

    def __init__(
        self,
        photos: Photos,
        *,
        size: int = 224,
        batch_size: int = 32,
        augment: Augment | None = None,
        shuffle: bool | None = None,
        seed: int = 0,
        crop_pct: float = 0.875,
        device: str | torch.device = "auto",
        backend: str | None = None,
        cache: str | None = None,
        workers: int | None = None,
        options: DataConfig | None = None,
        keep: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        fold_last: bool = False,
        sampling: str = "natural",
    ) -> None:
        of_kind("Loader: photos", photos, Photos, "ff.Photos(...)")
        of_kind("Loader: augment", augment, Augment | None, "ff.Augment(...)")
        of_kind("Loader: options", options, DataConfig | None, "ff.DataConfig(...)")
        of_kind("Loader: shuffle", shuffle, bool | np.bool_ | None, "True, False or None")
        of_kind("Loader: keep", keep, bool | np.bool_, "True or False")
        of_kind("Loader: fold_last", fold_last, bool | np.bool_, "True or False")
        if (rank is None) is not (world_size is None):
            raise UserError("Loader: rank and world_size: give both, or neither")
        if rank is None:
            rank, world_size = current().rank, current().world_size
        ranks = {"rank": rank, "world_size": world_size}
        chosen = {"batch_size": batch_size, "seed": seed, "sampling": sampling}
        checked = {"data": {"image_size": size}, "train": chosen}
        with speaking_of(_ARGUMENTS):
            config = validate({**checked, "eval": {"crop_pct": crop_pct}}, "Loader")
        size, batch_size, seed = config.data.image_size, config.train.batch_size, config.train.seed
        share = config.eval.crop_pct
        if share is None:
            raise UserError("Loader: crop_pct=None: give a share of 1, as 0.875")
        rank, world_size = (whole(f"Loader: {name}", n, -(2**63)) for name, n in ranks.items())
        if not 0 <= rank < world_size <= batch_size:
            raise UserError(
                f"Loader: rank={rank}, world_size={world_size}, batch_size={batch_size}: rank counts from 0, "
                "and each process needs a sample of every batch"
            )
        if augment is not None and augment.mixes and world_size > -(-batch_size // 2):
            raise UserError(
                f"Loader: world_size={world_size}, batch_size={batch_size}: samples are mixed in pairs, "
                f"which no processes share; give a batch_size of {2 * world_size - 1} or more, or turn off "
                "mixup and cutmix"
            )
        if photos.multilabel and sampling == "balanced":
            raise UserError(
                f"train.sampling=balanced: {photos.source} has several labels a photo, which cannot all come "
                "equally often; use natural, and train.class_weights=balanced where rare ones are to count"
            )
        shuffled = augment is not None if shuffle is None else bool(shuffle)
        self.photos = photos
        self.plan_sampler = Sampler(
            photos,
            size,
            batch_size,
            seed,
            augment,
            shuffled,
            share,
            rank,
            world_size,
            bool(fold_last),
            config.train.sampling,
            self._order(options, sampling),
        )
        given = {"backend": backend, "cache": cache, "workers": workers}
        given = {name: value for name, value in given.items() if value is not None}
        typed = {f"data.{name}": name for name in given}
        with speaking_of(typed | ({"train.device": "device"} if isinstance(device, str) else {})):
            self.device = pick_device(device)
            self._open(_options(options, given), keep)
        self._next, self._resumed, self._closed = (0, 0), False, False

    def _open(self, data: DataConfig, keep: bool) -> None:
        """Choose backend and cache, and open the engine."""
        photos, sampler, self._compiled = self.photos, self.plan_sampler, data.kernels != "torchvision"
        augmented = sampler.augment is not None
        data = data.model_copy(
            update={"image_size": sampler.size, **({} if augmented else {"cache": "none"})}
        )
        self.backend, self.backend_reason = choose_backend(data, self.device, photos)
        self.cache, self.cache_reason = choose_cache(data, self.backend, self.device, photos)
        if not augmented:
            self.cache_reason = "without augmentation photos are decoded exactly"
        data = data.model_copy(update={"backend": self.backend, "cache": self.cache})
        self.hw_decoder_load = None
        if augmented and gpu_decodes(data):
            from flowerfast.loaders.dali.settings import choose_share  # imports DALI: only when it is there

            self.hw_decoder_load = choose_share(data, self.device, photos)
            data = data.model_copy(update={"hw_decoder_load": self.hw_decoder_load})
        self.gpu_kernels, why = choose_augmenter(data, self.backend, self.cache, self.device, sampler.size)
        fallback = self.gpu_kernels == "dali" and data.gpu_kernels == "auto"
        self._notes = [f"DALI's own operators augment on the GPU: {why}"] if fallback else []
        data = data.model_copy(update={"gpu_kernels": self.gpu_kernels or "dali"})
        if data.kernels == "numba":
            self._notes += compiling_notes(data.kernels)
        store = open_cache(self.cache, data, photos, workplace(self.backend, self.device, self.cache))
        self._engine = open_engine(self.backend, sampler, data, self.device, store)
        if self._compiled:
            LOOPS.begin()
        if self.backend != "cpu":
            LOOPS.go_on()  # without compiled reading DALI's files cost a second decoding here
        mine = len(photos) // sampler.world_size * 3 * sampler.size**2
        if keep and not augmented and mine < device_memory(self.device) / 4:
            self._engine = KeptEngine(self._engine)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.plan_sampler)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        """Batches of the next epoch, for code that knows no epochs: of the one `load_state_dict` was given,
        else of the one after that begun last.
        """
        return self.epoch(self.next_epoch)

    @property
    def next_epoch(self) -> int:
        """The epoch to begin, or to go on with after `load_state_dict`."""
        epoch, batch = self._next
        return epoch if batch == 0 or (self._resumed and batch < len(self)) else epoch + 1

    @property
    def notes(self) -> list[str]:
        """What whoever runs this should know, a line each: how the folder was read, photos turned, fallbacks,
        what the cache did.
        """
        compiled = LOOPS.notes if self._compiled else []
        return [*self.photos.notes, *self._notes, *self._engine.notes, *compiled]

    def epoch(self, epoch: int, start_batch: int | None = None) -> Iterator[Batch]:
        """Batches of an epoch, from `start_batch` on; an abandoned iterator stops its workers.

        None: from the batch that `load_state_dict` named if it is of this epoch, else from the first.
        A file that cannot be decoded is left out of its batch (shorter then, at worst empty) and noted in
        `photos.bad`. Raises UserError when there are too many, or the photos say that none may be, for a
        number of an epoch or batch that there is not, and when the loader is closed.
        """
        self._check_open()
        if start_batch is None:
            start_batch = self._next[1] if self._resumed and epoch == self._next[0] else 0
        epoch = whole("epoch", epoch, 0, EPOCHS)
        start_batch = whole("start_batch", start_batch, 0, len(self) + 1)
        self._next, self._resumed = (epoch, start_batch), False
        has_all = isinstance(self._engine, KeptEngine) and self._engine.has_all
        if self.cache == "none" and not has_all:  # of a decoded cache nobody knows what it will ask for
            sampler = self.plan_sampler
            self.photos.expect(sampler.batches(epoch, start_batch), sampler.in_blocks(epoch))
        return self._counted(epoch, start_batch, self._engine.epoch(epoch, start_batch))

    def warm_up(self, compiler: bool = True) -> float:
        """Make the pixels of one sample and drop them: seconds that took.

        What is compiled, loaded or started for a first batch is there then, and no part of an epoch's time.
        Without `compiler` the compiled loops are not waited for: the same pixels come slower until they are
        there.
        """
        started = time.perf_counter()
        if compiler and self._compiled:
            LOOPS.demand()
        plan = next(self.plan_sampler.plans(0), None)
        if plan is not None:
            with suppress(UserError):  # a file that is bad is told of when its batch comes
                self._engine.execute(plan.select(np.arange(min(len(plan), 1))))
        return time.perf_counter() - started

    def execute(self, plan: Plan) -> np.ndarray:
        """Pixels of one plan: uint8 (n, S, S, 3). Raises UserError on a file that cannot be decoded."""
        self._check_open()
        of_kind("execute: plan", plan, Plan, "one of `plan_sampler.plans(...)`")
        return self._engine.execute(plan)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, in plain types: next epoch and batch, and what decides their pixels."""
        epoch, batch = self._next
        return {"epoch": epoch, "batch": batch, **self._identity(), **self.choice()}

    def choice(self) -> dict[str, Any]:
        """What was chosen, by name of the setting, for a record from which a resumed run keeps it."""
        chosen = {"backend": self.backend, "cache": self.cache}
        more = {"hw_decoder_load": self.hw_decoder_load, "gpu_kernels": self.gpu_kernels}
        return chosen | {name: value for name, value in more.items() if value is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a loader of the same photos and settings stood, perhaps with other workers or ranks.

        The backend and cache in it are a record, not compared. Raises UserError when the state is of other
        photos or settings.
        """
        if not isinstance(state, dict):
            raise UserError(f"loader state: expected what state_dict gave, got {type(state).__name__}")
        # Absent from what earlier versions saved.
        state = {"fold_last": False, "sampling": "natural", "order": "random", **state}
        if isinstance(state.get("augment"), dict):
            state["augment"] = Augment().model_dump(mode="json") | state["augment"]
        for name, mine in self._identity().items():
            if state.get(name) != mine:
                raise UserError(
                    f"loader state: {name} is {state.get(name)!r}, this loader has {mine!r}; open it "
                    "with the photos and settings of the state"
                )
        epoch, batch = state.get("epoch"), state.get("batch")
        if not (
            isinstance(epoch, int)
            and isinstance(batch, int)
            and 0 <= epoch < EPOCHS
            and 0 <= batch <= len(self)
        ):
            raise UserError(
                f"loader state: epoch={epoch!r}, batch={batch!r}: no place among {len(self)} batches an epoch"
            )
        self._next, self._resumed = (epoch, batch), True

    def close(self) -> None:
        """Free threads, memory and device resources; may be called twice."""
        self._closed = True
        self._engine.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UserError("this loader is closed; open another")

    def _identity(self) -> dict[str, Any]:
        sampler = self.plan_sampler
        return {
            "photos": self.photos.fingerprint,
            "samples": f"{len(self.photos)}, {zlib.crc32(self.photos.indices.data):08x}",
            "seed": sampler.seed,
            "batch_size": sampler.batch_size,
            "size": sampler.size,
            "shuffle": sampler.shuffle,
            "augment": sampler.augment.model_dump(mode="json") if sampler.augment else None,
            "crop_pct": sampler.crop_pct,
            "fold_last": sampler.fold_last,
            "sampling": sampler.sampling,
            "order": sampler.order,
        }

    def _order(
        self, options: DataConfig | None, sampling: str
    ) -> Literal["random", "blocks-first", "blocks"]:
        """How an epoch is shuffled. Raises UserError where there is no such order."""
        order = "random" if options is None else options.order
        if order != "random" and self.photos.table.shards is None:
            raise UserError(f"data.order={order}: {self.photos.source} holds no shards; use random, or pack")
        if order != "random" and sampling == "balanced":
            raise UserError(f"data.order={order}: not with train.sampling=balanced; use random")
        return order

    def _counted(
        self, epoch: int, start_batch: int, batches: Iterator[Batch]
    ) -> Generator[Batch, None, None]:
        try:
            for number, batch in enumerate(batches, start_batch + 1):
                self._next = epoch, number
                yield mixed(batch)
                LOOPS.go_on()  # the first step is done: what loads takes the interpreter lock from it
        except RuntimeError:
            self._check_open()  # closed meanwhile
            raise
        self._next = epoch + 1, 0


def _options(options: DataConfig | None, given: dict[str, Any]) -> DataConfig:
    base = options or DataConfig()
    return validate({"data": base.model_dump() | given}, "Loader").data if given else base
