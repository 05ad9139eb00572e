"""torch.compile: whether a run is long enough to pay for it, and the compiled network at work.

Only batches of `train.batch_size` samples, of a rank its full part of one, go through compiled code. An
epoch's last batch, and one that bad files have made shorter, go through the network as it is: the same
weights, and answers that differ by rounding. So there is one shape, compiled once before the first batch. A
length that torch is told to keep open instead would cost every step some of its speed, and CUDA graphs are
recorded anew for each length all the same.

Evaluation and checkpoints use the plain network. Compiled code reads and writes its parameters and buffers.
"""

import time
from collections.abc import Callable

import torch

from flowerfast.config import Config
from flowerfast.errors import UserError, one_line
from flowerfast.loaders.batch import Batch
from flowerfast.ranks.who import current
from flowerfast.training.state import TrainState

MODES = ("off", "on", "graphs")
"""How training steps run: one kernel after another, compiled, or compiled and replayed as CUDA graphs."""
COMPILE_SECONDS = 60.0
"""What compiling costs a run. An assumption; `benchmarks/gpu.py` measures it."""
SAVED_SECONDS = 1 / 11_820 - 1 / 16_048
"""Saved per image of 224 × 224: benchmarks/results/speed-nvidia-h100-224px.json, ResNet18, batch 256."""
_SIDE = 224
SMALL_BATCH = 64
"""Up to so many samples a step is taken to last as long as launching its kernels one by one, which CUDA
graphs spare. An assumption; `benchmarks/gpu.py` measures steps of both kinds."""
_TRIALS = 3  # CUDA graphs: torch warms up in the first, records in the second, replays from the third on


class CompileFailed(UserError):
    """The network cannot be compiled here."""


def choose_compile(config: Config, device: torch.device, samples: int) -> tuple[str, str]:
    """(one of `MODES`, why) for `train.compile` and a training set of so many samples.

    auto compiles on a CUDA GPU where all full batches of the run would save more than compiling takes. The
    answer follows from the settings, the number of samples, the kind of device and the number of ranks alone.
    """
    train = config.train
    steps = train.epochs * (samples // train.batch_size)
    # The next replay of a graph would write over gradients that wait for it, or for other ranks.
    small = train.batch_size <= SMALL_BATCH and train.accumulate == 1
    replayed = device.type == "cuda" and small and not current().are_many
    mode = "graphs" if replayed else "on"
    if train.compile == "off":
        return "off", "train.compile=off"
    if not steps:
        return "off", f"no batch has train.batch_size={train.batch_size} samples"
    if train.compile == "on":
        return mode, "train.compile=on"
    if device.type != "cuda":
        return "off", "on a CPU only when asked for, train.compile=on"
    counted = max(train.batch_size, SMALL_BATCH)  # a step of fewer takes no less, and saves no less
    saved = steps * counted * SAVED_SECONDS * (config.data.image_size / _SIDE) ** 2
    why = (
        f"{steps:,} full batches would save about {saved:,.0f} s, compiling takes about {COMPILE_SECONDS:.0f}"
    )
    return (mode if saved > COMPILE_SECONDS else "off"), why


def compile_network(state: TrainState, image_size: int, mode: str, backend: str = "inductor") -> float:
    """Have full batches go through compiled code from now on: seconds that took. `off` takes none.

    Compiles and tries it on a black batch, forwards and backwards, and leaves weights, buffers, gradients and
    random numbers as they were: what goes wrong does so before the first step.

    Args:
        state: the training; its model is what is compiled.
        image_size: side of the batches' images, in pixels.
        mode: one of `MODES`.
        backend: torch.compile's; `eager` runs what was captured, without a compiler.

    Raises CompileFailed where there is no C compiler or no Triton, or the network cannot be compiled; steps
    are as before then.
    """
    if mode == "off":
        return 0.0
    started, graphs = time.perf_counter(), mode == "graphs"
    try:
        compiled = torch.compile(
            state.model, dynamic=False, backend=backend, mode="reduce-overhead" if graphs else None
        )
        state.forward = _for_full(compiled, state.model, state.full_batch, graphs)
        _try(state, image_size)
    except Exception as error:  # whatever a compiler can raise: the caller says so, and goes on without one
        state.forward = state.model
        torch.compiler.reset()
        cause = one_line(getattr(error, "inner_exception", error))
        raise CompileFailed(
            f"torch.compile failed: {type(error).__name__}: {cause}; set train.compile=off, or mend that"
        ) from error
    return time.perf_counter() - started


def _for_full(
    compiled: Callable[[torch.Tensor], torch.Tensor],
    plain: Callable[[torch.Tensor], torch.Tensor],
    full: int,
    graphs: bool,
) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(images: torch.Tensor) -> torch.Tensor:
        if len(images) != full:
            return plain(images)
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()  # the step before is done with what it was given
        return compiled(images)

    return forward


def _try(state: TrainState, image_size: int) -> None:
    """Forward and backward of black batches, without a trace."""
    full, device = state.full_batch, state.device
    pixels = torch.zeros((full, image_size, image_size, 3), dtype=torch.uint8, device=device)
    labels = torch.zeros(full, dtype=torch.int64, device=device)
    batch = Batch(pixels.permute(0, 3, 1, 2), labels, torch.arange(full))
    state.begin_epoch(0)
    kept = [(buffer, buffer.clone()) for buffer in state.model.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for _ in range(_TRIALS):
                state.gradients(batch)
                state.drop_gradients()
    finally:
        state.drop_gradients()
        for buffer, before in kept:
            buffer.copy_(before)
