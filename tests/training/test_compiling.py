"""torch.compile: when it is chosen, that it happens once, what becomes of a run where it cannot be."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from flowerfast.errors import Stopped
from flowerfast.loaders.batch import Batch
from flowerfast.settings import load_config
from flowerfast.training import resuming
from flowerfast.training import run as run_module
from flowerfast.training.compiling import CompileFailed, choose_compile, compile_network
from flowerfast.training.fit import train_step
from flowerfast.training.model import Classifier
from flowerfast.training.progress import Stop
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.state import TrainState

Train = Callable[..., TrainResult]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
FULL, SIDE = 4, 32


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was compiled, torch keeps by the code of a function, not by the network."""
    yield
    torch.compiler.reset()


@pytest.fixture
def counter() -> CompileCounterWithBackend:
    """A backend of torch.compile that runs what it is given, and counts how often that is."""
    return CompileCounterWithBackend("eager")


def opened() -> TrainState:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Classifier(nn.Sequential(*layers, nn.Linear(4, 3)), [0.5] * 3, [0.5] * 3)
    config = load_config(settings={"train.batch_size": FULL, "train.lr": 0.1, "train.schedule": "constant"})
    return TrainState(model, config.train, CPU, 1)


def batch(samples: int, seed: int = 0) -> Batch:
    made = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (samples, SIDE, SIDE, 3), dtype=torch.uint8, generator=made)
    return Batch(images.permute(0, 3, 1, 2), torch.arange(samples) % 3, torch.arange(samples))


# ------------------------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("settings", "samples", "device", "expected", "why"),
    [
        ({}, 2495, CUDA, "off", "1,155 full batches would save about 2 s, compiling takes about 60"),
        ({}, 1_000_000, CUDA, "graphs", "468,750 full batches"),  # the recipe's batches are small
        ({"train.batch_size": 256}, 1_000_000, CUDA, "on", "would save about 334 s"),
        ({"train.batch_size": 256, "train.epochs": 2}, 1_000_000, CUDA, "off", "would save about 45 s"),
        ({"train.batch_size": 256, "data.image_size": 64}, 1_000_000, CUDA, "off", "would save about 27 s"),
        ({}, 1_000_000, CPU, "off", "on a CPU only when asked for, train.compile=on"),
        ({"train.compile": "off"}, 1_000_000, CUDA, "off", "train.compile=off"),
        ({"train.compile": "on"}, 64, CUDA, "graphs", "train.compile=on"),
        ({"train.compile": "on", "train.batch_size": 64}, 64, CUDA, "graphs", "train.compile=on"),
        ({"train.compile": "on", "train.batch_size": 65}, 65, CUDA, "on", "train.compile=on"),
        ({"train.compile": "on", "train.accumulate": 2}, 64, CUDA, "on", "train.compile=on"),  # no graphs
        ({"train.compile": "on"}, 32, CPU, "on", "train.compile=on"),
        ({"train.compile": "on"}, 31, CUDA, "off", "no batch has train.batch_size=32 samples"),
    ],
)
def test_long_runs_on_a_gpu_are_compiled_and_small_batches_become_graphs(
    settings: dict[str, Any], samples: int, device: torch.device, expected: str, why: str
) -> None:
    mode, reason = choose_compile(load_config(settings=settings), device, samples)
    assert mode == expected
    assert why in reason


# ------------------------------------------------------------------------------------------------ the network


def test_compiling_leaves_no_trace_and_every_length_is_trained_by_one_compiled_network(
    counter: CompileCounterWithBackend,
) -> None:
    plain, state = opened(), opened()
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    rng = torch.get_rng_state()
    assert compile_network(state, SIDE, "on", counter) > 0
    assert counter.frame_count == 1
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert all(parameter.grad is None for parameter in state.model.parameters())
    # The last batch of an epoch, and those that bad files have made shorter, in no order and again.
    for each in (plain, state):
        torch.manual_seed(1)
        for seed, samples in enumerate((4, 4, 3, 4, 2, 3, 4)):
            loss, correct = train_step(each, batch(samples, seed))
            assert loss.isfinite()
            assert 0 <= correct <= samples
    assert counter.frame_count == 1
    weights = state.state_dict()["network"]
    assert not [name for name in weights if "_orig_mod" in name]
    torch.testing.assert_close(weights, plain.state_dict()["network"])
    assert not torch.equal(weights["5.weight"], before["network.5.weight"])


def test_full_batches_alone_go_through_compiled_code() -> None:
    state, seen = opened(), list[int]()

    def backend(module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        def call(*inputs: torch.Tensor) -> Any:
            seen.append(next(len(x) for x in inputs if x.dtype == torch.uint8))
            return module(*inputs)

        return call

    compile_network(state, SIDE, "on", backend)
    seen.clear()
    for samples in (4, 3, 4, 1):
        state.forward(batch(samples).images)
    assert seen == [4, 4]


def test_a_network_that_cannot_be_compiled_stays_as_it_was() -> None:
    state, plain = opened(), opened()

    def broken(*_: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.\nand more")

    with pytest.raises(CompileFailed, match=r"^torch\.compile failed: \w+: Failed to find C compiler\.;"):
        compile_network(state, SIDE, "on", broken)
    for each in (plain, state):
        torch.manual_seed(1)
        train_step(each, batch(FULL))
    torch.testing.assert_close(state.state_dict()["network"], plain.state_dict()["network"], rtol=0, atol=0)


def test_a_failure_in_the_backward_pass_leaves_no_trace_either() -> None:
    state, plain = opened(), opened()

    def backend(module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        class Fails(torch.autograd.Function):
            @staticmethod
            def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
                return x.clone()

            @staticmethod
            def backward(_: Any, *__: torch.Tensor) -> Any:
                raise RuntimeError("no kernel for that")

        return lambda *inputs: tuple(Fails.apply(x) for x in module(*inputs))

    with pytest.raises(CompileFailed, match="no kernel for that"):
        compile_network(state, SIDE, "on", backend)
    assert all(parameter.grad is None for parameter in state.model.parameters())
    torch.testing.assert_close(state.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------- the run


@pytest.fixture
def compile_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Function (backend) that has runs compile with it."""
    return lambda backend: monkeypatch.setattr(
        run_module, "compile_network", partial(compile_network, backend=backend)
    )


def test_a_compiled_run_compiles_once_and_ends_as_an_eager_one(
    train_tiny: Train,
    photos: Path,
    counter: CompileCounterWithBackend,
    compile_by: Callable[[Any], None],
    stop_after: Callable[[int], AbstractContextManager[Stop]],
) -> None:
    compile_by(counter)
    for name in ("blue/01.jpg", "red/03.jpg"):  # their batches are one short, wherever they are in an epoch
        file = photos / name
        file.write_bytes(file.read_bytes()[:700])
    settings = {"data.max_bad": 0.2, "train.epochs": 3, "data.kernels": "torchvision"}
    eager = train_tiny("eager", settings)
    assert counter.frame_count == 0
    with pytest.raises(Stopped):
        train_tiny(settings={**settings, "train.compile": True}, stop=stop_after(6))  # what it was once
    compiled = train_tiny(resume=True)
    assert counter.frame_count == 1
    assert (compiled.summary["compile"], compiled.summary["compile_reason"]) == ("on", "train.compile=on")
    assert 0 < compiled.summary["compile_seconds"] < compiled.summary["startup_seconds"]
    assert {key: eager.summary[key] for key in ("compile", "compile_reason", "compile_seconds")} == {
        "compile": "off",
        "compile_reason": "on a CPU only when asked for, train.compile=on",
        "compile_seconds": 0.0,
    }
    for name in ("best/model.safetensors", "checkpoints/epoch_002.safetensors"):
        found, expected = load_file(compiled.folder / name), load_file(eager.folder / name)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_run_that_cannot_compile_goes_on_without_and_says_so(
    train_tiny: Train, compile_by: Callable[[Any], None]
) -> None:
    compile_by("no such compiler")
    result = train_tiny(settings={"train.compile": "on", "data.kernels": "torchvision"})
    (note,) = result.summary["notes"]
    assert "no such compiler" in note
    assert note.endswith("this run goes on without")
    assert result.summary["compile"] == "off"
    assert result.summary["compile_reason"] in note
    assert RunFolder(result.folder).load_last()["loader"]["compile"] == "off"


@pytest.mark.parametrize(
    ("began", "device", "expected"),
    [
        ("off", "cpu", "off"),  # a run that could not compile, or found itself too short
        ("graphs", "cpu", "auto"),  # began on a GPU
        ("off", "cuda", "off"),
        ("graphs", "cuda", "on"),
        (None, "cuda", "auto"),  # saved by an earlier version
    ],
)
def test_a_resumed_run_keeps_what_was_chosen(
    monkeypatch: pytest.MonkeyPatch, began: str | None, device: str, expected: str
) -> None:
    monkeypatch.setattr(resuming, "pick_device", lambda _: torch.device(device))
    stored = load_config(settings={"data.backend": "cpu"})
    saved = {"loader": {} if began is None else {"compile": began}}
    assert resuming.as_recorded(stored, stored, saved).train.compile == expected
    asked = load_config(settings={"data.backend": "cpu", "train.compile": "on"})
    assert resuming.as_recorded(asked, stored, saved).train.compile == "on"
