"""Rows about training: they hold here, and each sees what it is there to see."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from benchmarks.acceptance import layout, resuming, training
from benchmarks.acceptance.layout import Layouts, verdict
from benchmarks.acceptance.place import Place
from flowerfast.loaders.torchvision import TorchvisionLoader

FALLING = [2.0 - 0.02 * i for i in range(50)]


# ------------------------------------------------------------------------------------------- mixed precision


def test_mixed_precision_holds_on_the_cpu(place: Place):
    found = training.mixed_precision(place, "bf16")
    assert found.figure > 0  # the types did differ
    assert found.figure <= training.LOSS_APART


@pytest.mark.parametrize(
    ("losses", "holds"),
    [
        (FALLING, True),
        ([x * 1.01 for x in FALLING], True),
        ([x * 1.1 for x in FALLING], False),
        ([*FALLING[:-1], float("nan")], False),
        ([*FALLING[:-1], float("inf")], False),
        ([1.5] * 50, False),
    ],
)
def test_losses_that_differ_or_are_no_numbers_are_seen(losses, holds):
    assert training.losses_agree(FALLING, losses).holds is holds


def test_losses_that_do_not_fall_prove_nothing():
    assert training.losses_agree([1.5] * 50, [1.5] * 50).holds is False


# ------------------------------------------------------------------------------------------------ compilation


@pytest.mark.parametrize(
    ("plain", "fast", "holds"), [(0.9, 0.87, True), (0.9, 0.7, False), (0.2, 0.21, False)]
)
def test_accuracies_that_differ_or_are_no_better_than_chance_are_seen(
    place: Place, monkeypatch: pytest.MonkeyPatch, plain, fast, holds
):
    def train(config, folder, reporter):
        accuracy = fast if config.train.compile else plain
        return {"best_val_acc": accuracy, "seconds": 1.0, "val_samples": 120}

    monkeypatch.setattr(training, "train_run", train)
    assert training.compiled(place).holds is holds


def test_two_accuracies_may_differ_by_two_standard_errors():
    assert training.spread(0.9, 120) == pytest.approx(2 * (2 * 0.9 * 0.1 / 120) ** 0.5)
    assert 1 / 120 < training.spread(1.0, 120) < 4 / 120


# ----------------------------------------------------------------------------------------------------- layout


def test_channels_last_holds_on_the_cpu(place: Place):
    found = layout.channels_last(place)
    assert (found.holds, found.figure) == (True, 0)
    assert "CUDA kernels" in found.unseen


def test_a_model_that_lies_channels_first_is_seen(place: Place, monkeypatch: pytest.MonkeyPatch):
    real = layout.settings
    off = {"train__channels_last": "off"}
    monkeypatch.setattr(layout, "settings", lambda place, **changes: real(place, **changes | off))
    found = layout.channels_last(place)
    assert found.holds is False
    assert "conversions: aten." in found.detail


def test_one_layer_that_converts_is_seen_forwards_and_backwards(place: Place):
    inside = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    with Layouts() as seen:
        inside(images).contiguous().sum().backward()
    assert seen.changes.total() >= 1
    with Layouts() as fine:
        inside(images).relu().mean((2, 3)).sum().backward()
    assert fine.changes.total() == 0
    assert fine.maps["last"] > 3


NHWC = "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64"


@pytest.mark.parametrize(
    ("kernels", "holds"),
    [
        ({NHWC: 60}, True),
        ({NHWC: 60, "void cudnn::ops::nchwToNhwcKernel<__half, __half, float>": 3}, False),
        ({NHWC: 60, "void cudnn::ops::nhwcToNchwKernel<float>": 3}, False),
        ({"ampere_scudnn_128x64_relu_interior_nn_v1": 60}, False),
        ({}, False),
    ],
)
def test_kernels_that_convert_or_are_of_the_other_layout_are_seen(kernels, holds):
    seen = Layouts()
    seen.maps["last"] = 100
    assert verdict(seen, Counter(kernels), cuda=True).holds is holds


def test_no_feature_map_at_all_proves_nothing():
    assert verdict(Layouts(), Counter(), cuda=False).holds is False


# ----------------------------------------------------------------------------------------------------- resume


def test_a_resumed_run_holds(place: Place):
    found = resuming.resume(place, "torchvision", "under test")
    assert (found.holds, found.figure) == (True, 0), found


def test_a_resume_that_begins_at_another_batch_is_seen(place: Place, monkeypatch: pytest.MonkeyPatch):
    real: Callable[..., object] = TorchvisionLoader.epoch
    monkeypatch.setattr(
        TorchvisionLoader,
        "epoch",
        lambda self, epoch, start_batch=0: real(self, epoch, max(start_batch - 1, 0)),
    )
    found = resuming.resume(place, "under test", "torchvision")
    assert found.holds is False
    assert found.figure > 0


def test_a_run_that_does_not_stop_is_seen(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resuming.signal, "raise_signal", lambda signum: None)
    assert resuming.resume(place, "torchvision", "under test").holds is False
