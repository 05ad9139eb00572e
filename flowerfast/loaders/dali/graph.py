"""The DALI graph: photos and a plan in, pixels out. One builder; where it runs and decodes are parameters.

With our own kernels DALI only decodes: the graph ends with the windows of the photos, and `pixels.gpu` makes
the rest of them. What follows here is about a graph that does it all.

The steps and their rounding follow torchvision on Pillow images. DALI casts by rounding to nearest and
saturates, Pillow truncates: `_TRUNCATE` is taken off before each cast (a little less than a half, so that
whole numbers stay whole and no tie is left for CPU and GPU to break differently).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.types as types
import torch
from nvidia.dali import Pipeline
from nvidia.dali import math as dali_math
from nvidia.dali.tensors import TensorCPU, TensorGPU

from flowerfast.loaders.dali.inputs import DeviceArray, Piece, arguments, tiny_photo, tiny_plan
from flowerfast.loaders.dali.memory import keep_batches_in_a_pool
from flowerfast.loaders.ranges import stage
from flowerfast.pixels.gpu import run_plan, stored_windows
from flowerfast.plans.plan import Plan

_TRUNCATE = 0.4999
_ARGUMENTS = {
    "start": (types.INT32, 1),
    "window": (types.INT32, 1),
    "size": (types.FLOAT, 1),
    "matrix": (types.FLOAT, 2),
    "factor_1": (types.FLOAT, 0),
    "factor_2": (types.FLOAT, 0),
    "towards_mean_1": (types.FLOAT, 0),
    "towards_mean_2": (types.FLOAT, 0),
    "corner": (types.INT32, 1),
}
"""Inputs beside the bytes, one value or small array per sample: DALI type, dimensions."""
_WINDOW_ARGUMENTS = ("start", "window")
_EVAL_ARGUMENTS = (*_WINDOW_ARGUMENTS, "size", "corner", "matrix")
Source = Literal["cpu", "gpu", "pixels"]
"""What photos are fed as: files' bytes that the CPU or the GPU decodes, or pixels where the graph runs."""


@dataclass(frozen=True)
class GraphSettings:
    """What a graph is built for.

    Attributes:
        augmented: plans may augment; else they only resize windows and cut the centre.
        image_size: side of the output, in pixels.
        turned: photos may come turned, so that plans that do not augment rotate as well.
        batch_size: largest batch.
        device_id: CUDA device, or None for a graph that runs on the CPU alone.
        threads: DALI's CPU threads.
        depth: batches that may be under way at a time.
        source: what photos are fed as.
        hw_decoder_load: share of JPEGs for the GPU's hardware decoder.
        hint: (width, height) for the GPU's decoder to preallocate for, in pixels; (0, 0): none.
        kernels: the graph ends with the windows, and kernels of our own do what follows.
    """

    augmented: bool
    image_size: int
    turned: bool
    batch_size: int
    device_id: int | None
    threads: int
    depth: int
    source: Source = "cpu"
    hw_decoder_load: float = 0.65
    hint: tuple[int, int] = (0, 0)
    kernels: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the inputs beside the bytes that the graph takes."""
        if self.kernels:
            return _WINDOW_ARGUMENTS
        return tuple(_ARGUMENTS) if self.augmented else _EVAL_ARGUMENTS[: 4 + self.turned]


def build_pipeline(settings: GraphSettings) -> Pipeline:
    """Pipeline with inputs named "photo" and as in `_ARGUMENTS`; its output is uint8 HWC.

    The images are S x S x 3; with `settings.kernels` each is as large as its window.
    """
    if settings.device_id is None:
        keep_batches_in_a_pool()
    pipe = Pipeline(
        batch_size=settings.batch_size,
        num_threads=settings.threads,
        device_id=settings.device_id,
        prefetch_queue_depth=settings.depth,
        exec_dynamic=True,  # outputs own their memory, so that DLPack can hand them over without a copy
    )
    with pipe:
        a = {name: _argument(name) for name in settings.arguments}
        x = photos(a["start"], a["window"], settings)
        pipe.set_outputs(x if settings.kernels else _augmented(x, a, settings))
    pipe.build()
    return pipe


def _augmented(x: Any, a: dict[str, Any], settings: GraphSettings) -> Any:
    # A negative width mirrors: the flip costs nothing.
    x = fn.resize(x, size=a["size"], interp_type=types.INTERP_LINEAR, antialias=True)
    if settings.augmented:
        x = _rotate(x, a["matrix"])
        x = _blend(x, a["factor_1"], a["towards_mean_1"], settings)
        x = _blend(x, a["factor_2"], a["towards_mean_2"], settings)
    side = (settings.image_size, settings.image_size)
    x = fn.slice(
        x, start=a["corner"], shape=side, axis_names="HW", out_of_bounds_policy="pad", fill_values=0.0
    )
    return _rotate(x, a["matrix"]) if settings.turned and not settings.augmented else x


def _rotate(x: Any, matrix: Any) -> Any:
    return fn.warp_affine(x, matrix=matrix, inverse_map=True, fill_value=0.0, interp_type=types.INTERP_NN)


def photos(start: Any, window: Any, settings: GraphSettings) -> Any:
    """RGB pixels of the plan's window where the graph runs.

    The CPU decodes the window alone, the GPU the whole photo, which is then cut.

    Decoded as libjpeg-turbo's defaults have it: by libjpeg-turbo itself on the CPU, closely by the GPU.
    """
    cut = {"start": start, "shape": window, "axis_names": "HW"}
    if settings.source == "pixels":
        return fn.slice(_cached_photos(settings), **cut)
    encoded = fn.external_source(name="photo", dtype=types.UINT8, ndim=1, no_copy=True)
    options = {"output_type": types.RGB, "adjust_orientation": False, "jpeg_fancy_upsampling": True}
    if settings.source == "cpu":
        options["device"] = "cpu"
        x = fn.decoders.image_slice(encoded, **cut, **options)
        return x if settings.device_id is None else x.gpu()
    width, height = settings.hint
    options |= {
        "device": "mixed",
        "hw_decoder_load": settings.hw_decoder_load,
        "preallocate_width_hint": width,
        "preallocate_height_hint": height,
    }
    x = fn.decoders.image(encoded, **options)
    return fn.slice(x, **cut)


def _cached_photos(settings: GraphSettings) -> Any:
    device = "cpu" if settings.device_id is None else "gpu"
    # DALI 2.4 gathers GPU tensors that do not lie side by side into memory of its own, whatever is asked for.
    in_place = device == "cpu"
    return fn.external_source(
        name="photo", device=device, dtype=types.UINT8, ndim=3, layout="HWC", no_copy=in_place
    )


def _argument(name: str) -> Any:
    dtype, ndim = _ARGUMENTS[name]
    return fn.external_source(name=name, dtype=dtype, ndim=ndim, no_copy=True)


def _blend(x: Any, factor: Any, towards_mean: Any, settings: GraphSettings) -> Any:
    """Clamp(factor * x + (1 - factor) * m), truncated to uint8.

    m is 0 (brightness), or the mean of the grey image rounded to a whole level (contrast), as Pillow has it.
    """
    grey = fn.color_space_conversion(x, image_type=types.RGB, output_type=types.GRAY)
    mean = dali_math.floor(fn.reductions.mean(grey, dtype=types.FLOAT) + 0.5)
    if settings.device_id is None:
        # In one pass, which is the faster there. On a GPU the means of a batch would go by way of the host.
        centre, shift = mean * towards_mean, -_TRUNCATE / 255  # the latter in units of the largest level
        return fn.brightness_contrast(
            x, contrast=factor, contrast_center=centre, brightness_shift=shift, dtype=types.UINT8
        )
    offset = mean * ((1.0 - factor) * towards_mean) - _TRUNCATE
    return fn.cast(x * factor + offset, dtype=types.UINT8)


class Graph:
    """A built pipeline, and what is under way in it. First in, first out; at most `depth` batches at once.

    Raises RuntimeError from `collect` when a photo of that batch cannot be decoded; the graph must then be
    closed, since its queue is in an unknown state.
    """

    def __init__(self, settings: GraphSettings) -> None:
        self.settings = settings
        self._device = None if settings.device_id is None else torch.device("cuda", settings.device_id)
        # Photos in GPU memory are gathered in a stream of their own: in the caller's they would wait for all
        # the training steps that it has queued.
        gathers = self._device is not None and settings.source == "pixels"
        self._gather = torch.cuda.Stream(self._device) if gathers else None
        self._stream = torch.cuda.Stream(self._device) if self._device is not None else None
        self._kept: deque[tuple[Any, torch.cuda.Event]] = deque()
        self._pipe = build_pipeline(settings)
        self._inputs: deque[Any] = deque()
        # The host does not wait for CUDA, so a collected batch's bytes may still be on their way there.
        self._spent: deque[Any] = deque(maxlen=settings.depth if self._device is not None else 0)
        self._fill_queue()

    def __len__(self) -> int:
        return len(self._inputs)

    def feed(self, plan: Plan, photos: Sequence[Piece], orientation: np.ndarray) -> None:
        """Start on a batch: its plan, its photos as `settings.source` has them. Returns at once.

        `orientation` says how those are to be turned, int64 (n,), see `photos.orientation`.
        """
        with stage("feed DALI"):
            self._feed(plan, photos, orientation)
            self._pipe.schedule_run()

    def collect(self) -> torch.Tensor:
        """Pixels of the oldest batch: uint8 (n, S, S, 3) on the device.

        On CUDA they are ready in the order of the current stream, and the host waits for nothing that this
        stream has queued: they are made on one of the graph's own. Their memory is torch's, given out again
        when the current stream has passed the point at which the batch is dropped.
        """
        with stage("collect from DALI"):
            if self._stream is None:
                return self._pixels(*self._take())
            with torch.cuda.stream(self._stream):
                plan, orientation, images = self._take()
                pixels = self._pixels(plan, orientation, images)
                self._keep(images, self._stream.record_event())
            consumer = torch.cuda.current_stream(self._device)
            consumer.wait_stream(self._stream)
            pixels.record_stream(consumer)
            return pixels

    def _pixels(self, plan: Plan, orientation: np.ndarray, images: Any) -> torch.Tensor:
        if self.settings.kernels:
            address = np.array([images[row].data_ptr() for row in range(len(plan))], np.int64)
            device = self._device or torch.device("cpu")
            return run_plan(plan, stored_windows(plan, address, orientation), device)
        pixels: torch.Tensor = torch.from_dlpack(images.as_tensor())
        return pixels if self._stream is None else pixels.clone()

    def _keep(self, images: Any, used: torch.cuda.Event) -> None:
        """Keep DALI's memory until it has been used.

        DALI 2.4 gives it to a later batch in an order of its own, whatever stream `outputs` was given.
        """
        self._kept.append((images, used))
        while self._kept and (len(self._kept) > 2 * self.settings.depth or self._kept[0][1].query()):
            self._kept.popleft()[1].synchronize()

    def _take(self) -> tuple[Plan, np.ndarray, Any]:
        """Plan, orientation and output of the oldest batch, on CUDA in the order of the graph's stream."""
        (images,) = self._pipe.outputs(cuda_stream=self._stream)
        plan, orientation, *inputs = self._inputs.popleft()
        self._spent.append(inputs)
        return plan, orientation, images

    def close(self) -> None:
        """Wait for what is under way and free the pipeline."""
        for stream in filter(None, (self._gather, self._stream)):
            stream.synchronize()  # the photos may be freed after this, and what DALI has made of them
        self._kept.clear()
        pipe, self._pipe = self._pipe, None
        del pipe  # its destructor stops the executor's threads
        self._inputs.clear()
        self._spent.clear()

    def _feed(self, plan: Plan, photos: Sequence[Piece], orientation: np.ndarray) -> None:
        taken, made = self.settings.arguments, arguments(plan, orientation)
        inputs = {name: made[name] for name in taken}
        wrapped = self._wrap(photos)
        self._pipe.feed_input(
            "photo", wrapped, cuda_stream=self._gather, use_copy_kernel=self._gather is not None
        )
        for name, values in inputs.items():
            self._pipe.feed_input(name, values)
        # Photos and inputs are read in place: they must live until collected.
        self._inputs.append((plan, orientation, wrapped, photos, inputs))

    def _wrap(self, photos: Sequence[Piece]) -> list[Any]:
        """DALI's own tensors: its feed_input would make them too, but looks at each array for 5 us."""
        if self._gather is None:
            return [TensorCPU(photo) for photo in photos]
        for store in {
            id(photo.store): photo.store for photo in photos if isinstance(photo, DeviceArray)
        }.values():
            store.record_stream(self._gather)  # photos without a place in the cache are freed after use
        device_id = self._gather.device_index
        return [TensorGPU(photo, "", device_id) for photo in photos]

    def _fill_queue(self) -> None:
        """Run a tiny batch through.

        DALI's first `schedule_run` starts as many batches as the queue is deep, later ones exactly one;
        running the former here keeps the rest simple, and the first real batch finds a warm graph.
        """
        plan = tiny_plan(self.settings.augmented, self.settings.image_size)
        photo = tiny_photo(self._device, self.settings.source == "pixels")
        for _ in range(self.settings.depth):
            self._feed(plan, [photo], np.ones(1, np.int64))
        self._pipe.schedule_run()
        while len(self):
            self._take()
