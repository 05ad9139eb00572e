"""DALI executor: plans to pixels on the GPU, or by the same graph on the CPU.

Files are read ahead in threads, the graph is kept `dali_prefetch` batches ahead of the caller, and batches
stay where DALI made them. The graph is built once and serves every epoch.
"""

import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from weakref import ref

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch, place_batch
from flowerfast.loaders.cache.filling import CachedPhotos
from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.dali.cached import window_rows
from flowerfast.loaders.dali.files import FileReader
from flowerfast.loaders.dali.graph import Graph
from flowerfast.loaders.dali.inputs import Piece
from flowerfast.loaders.dali.settings import graph_settings
from flowerfast.loaders.reading import Reading
from flowerfast.loaders.transfer import copy_ahead
from flowerfast.machine import usable_cores
from flowerfast.photos.watch import Watch
from flowerfast.photos.workers import iter_chunks, leave
from flowerfast.pixels.finish_batch import finish_images
from flowerfast.plans.plan import Plan, Sampler

READERS = 8
"""Threads that wait for the disk; they need little of the processor."""

_Fed = tuple[Plan, Sequence[Piece]]


@dataclass
class _Epoch:
    """What is under way: photos being read, then batches in the graph (or empty, with no sample left)."""

    plans: Iterator[Plan]
    reading: deque[Reading] = field(default_factory=deque)
    flying: deque[_Fed] = field(default_factory=deque)


class DaliEngine:
    """Decodes and augments with DALI. See `Engine` for the contract.

    Args:
        sampler: which samples come when.
        data: workers, prefetch, dali_prefetch, decoder, hw_decoder_load, gpu_kernels.
        device: where the graph runs: the CPU, or a CUDA device.
        cache: decoded photos on the graph's device, to read from and fill, or None.
        target: where batches are wanted; None: where the graph runs.

    On CUDA a batch is ready in the order of the stream that is current when it is drawn, and its memory is
    reused in that order: work on another stream must be waited for before the batch is dropped. One epoch
    runs at a time; starting one abandons the one before.
    """

    def __init__(
        self,
        sampler: Sampler,
        data: DataConfig,
        device: torch.device,
        cache: PhotoCache | None = None,
        target: torch.device | None = None,
    ) -> None:
        self._sampler, self._photos, self._device = sampler, sampler.photos, device
        self._target, self._ahead = target or device, data.prefetch
        self._files = FileReader(sampler.photos, READERS, data.kernels != "torchvision")
        threads = data.workers or usable_cores()
        self._cached = CachedPhotos(cache, threads, window_rows) if cache is not None else None
        self._settings = graph_settings(sampler, data, device, self._cached is not None)
        self._graphs: dict[bool, Graph] = {}
        self._running: ref[Generator[Batch, None, None]] | None = None
        self._watch = Watch(sampler.photos.place, "DALI, or a driver below it, may hang")

    @property
    def notes(self) -> list[str]:
        """Fallbacks that were taken, and what the cache had to say, one line each."""
        return self._files.notes + (self._cached.notes if self._cached is not None else [])

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, from `start_batch` on."""
        self._abandon()
        batches = self._batches(epoch, start_batch)
        self._running = ref(batches)
        return batches if self._target == self._device else copy_ahead(batches, self._target)

    def execute(self, plan: Plan) -> np.ndarray:
        """Pixels of one plan: uint8 (n, S, S, 3). Raises UserError on a file that cannot be decoded."""
        self._abandon()
        parts = [np.empty((0, plan.size, plan.size, 3), np.uint8)]
        for rows in iter_chunks(np.arange(len(plan)), self._settings.batch_size):
            part, images = self._execute(plan.select(rows))
            if len(part) < len(rows):
                lost = np.setdiff1d(plan.indices[rows], part.indices)[0]
                raise UserError(f"{self._photos.where(int(lost))}: cannot be decoded; remove or mend it")
            parts.append(images.cpu().numpy())
        return np.concatenate(parts)

    def close(self) -> None:
        """Stop the threads and free the graph."""
        self._abandon()
        self._drop_graphs()
        self._watch.close()
        self._files.close()
        if self._cached is not None:
            self._cached.close()

    def _graph(self, augmented: bool) -> Graph:
        if augmented not in self._graphs:
            # Only `execute` asks for the other kind than the sampler's own; exact decoding suits it best.
            own = augmented == self._settings.augmented
            other = replace(self._settings, augmented=augmented, source="cpu")
            self._graphs[augmented] = Graph(self._settings if own else other)
        return self._graphs[augmented]

    def _drop_graphs(self) -> None:
        while self._graphs:
            self._graphs.popitem()[1].close()

    def _abandon(self) -> None:
        batches = self._running() if self._running is not None else None
        if batches is not None:
            batches.close()
        self._running = None

    def _batches(self, epoch: int, start_batch: int) -> Generator[Batch, None, None]:
        run = _Epoch(self._sampler.plans(epoch, start_batch))
        try:
            while self._advance(run):
                plan, images = self._collect(run)
                self._advance(run)
                yield place_batch(images, self._photos, plan)
        except GeneratorExit:
            # A process that ends takes its generators down after DALI has stopped all pipelines.
            while run.flying and not sys.is_finalizing():
                self._collect(run)
            raise
        except BaseException:
            # An interrupt may have struck between DALI's queue and ours: start with an empty graph.
            self._drop_graphs()
            raise
        finally:
            leave([task for reading in run.reading for task in reading.tasks])

    def _advance(self, run: _Epoch) -> bool:
        """Keep readers and graph busy; whether a batch is under way.

        Waits for files only when the graph has nothing to do.
        """
        while True:
            while len(run.reading) < self._ahead and (plan := next(run.plans, None)) is not None:
                run.reading.append(self._start(plan))
            full = len(run.flying) >= self._settings.depth
            if not run.reading or full or not (run.reading[0].done or not run.flying):
                return bool(run.flying)
            fed = self._finish(run.reading.popleft())
            if len(fed[0]):
                self._feed(*fed)
            run.flying.append(fed)

    def _start(self, plan: Plan) -> Reading:
        if self._takes_from_cache(plan):
            assert self._cached is not None
            return self._cached.start(plan)
        return self._files.start(plan)

    def _takes_from_cache(self, plan: Plan) -> bool:
        return self._cached is not None and plan.augmented

    def _finish(self, reading: Reading) -> _Fed:
        """Plan and photos of the readable samples of a batch; takes note of the others."""
        plan, photos, bad = reading.result()
        for index, error in bad.items():
            self._photos.report_bad(index, error)
        return plan, photos

    def _collect(self, run: _Epoch) -> tuple[Plan, torch.Tensor]:
        """The oldest batch: its plan and its pixels."""
        plan, _ = run.flying[0]
        try:
            images = self._made(plan, self._settings.augmented)
        except RuntimeError as error:
            plan, images = self._recover(plan, error)
            for fed in list(run.flying)[1:]:
                if len(fed[0]):
                    self._feed(*fed)
        run.flying.popleft()
        return plan, images

    def _recover(self, plan: Plan, error: RuntimeError) -> tuple[Plan, torch.Tensor]:
        """Redo a batch that DALI refused, without its damaged files.

        First those go that the reference cannot decode either; if DALI still refuses, each sample is tried
        alone and what only DALI cannot decode is decoded on the CPU from then on.
        """
        if self._takes_from_cache(plan):
            self._drop_graphs()
            raise error  # nothing was decoded: it is no file's fault
        for mend in (self._files.check, self._find_refused):
            self._drop_graphs()
            mend(plan)
            plan, photos = self._finish(self._files.start(plan))
            try:
                return plan, self._run(plan, photos)
            except RuntimeError as again:
                error = again
        self._drop_graphs()
        raise error

    def _find_refused(self, plan: Plan) -> None:
        for row in range(len(plan)):
            one, photos = self._finish(self._files.start(plan.select(np.array([row]))))
            try:
                self._run(one, photos)
            except RuntimeError:
                self._drop_graphs()
                self._files.as_pixels(int(one.indices[0]))

    def _execute(self, plan: Plan) -> tuple[Plan, torch.Tensor]:
        read, photos = self._finish(self._start(plan))
        try:
            return read, self._run(read, photos)
        except RuntimeError as error:
            return self._recover(read, error)

    def _run(self, plan: Plan, photos: Sequence[Piece]) -> torch.Tensor:
        """Pixels of one batch while nothing else is under way."""
        if len(plan):
            self._feed(plan, photos)
        return self._made(plan, plan.augmented)

    def _made(self, plan: Plan, augmented: bool) -> torch.Tensor:
        """Pixels of the batch that the graph is asked for next."""
        if not len(plan):
            return self._no_pixels(plan)
        with self._watch.over(plan.indices):
            images = self._graph(augmented).collect()
        return finish_images(images, plan.finish)

    def _feed(self, plan: Plan, photos: Sequence[Piece]) -> None:
        """Start on a batch. Files hold photos as they are stored, the cache holds them upright."""
        orientation = self._photos.orientations(plan.indices)
        if self._takes_from_cache(plan):
            orientation = np.ones_like(orientation)
        self._graph(plan.augmented).feed(plan, photos, orientation)

    def _no_pixels(self, plan: Plan) -> torch.Tensor:
        return torch.empty((0, plan.size, plan.size, 3), dtype=torch.uint8, device=self._device)
