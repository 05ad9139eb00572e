"""What a profile says of a step, from a trace that is known."""

from typing import Any

import pytest

from benchmarks.step_profile import LOADER, OTHER, STEPS, profile, summarise

MAIN, BACKWARD, DALI = 1, 2, 3


def span(cat: str, name: str, ts: float, dur: float, tid: int = MAIN, **args: int) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def launched(
    name: str, at: float, starts: float, dur: float, number: int, tid: int = MAIN
) -> list[dict[str, Any]]:
    """A kernel and the call that launched it."""
    call = span("cuda_runtime", "cudaLaunchKernel", at, 1, tid, correlation=number)
    return [call, span("kernel", name, starts, dur, 70, correlation=number)]


TRACE = [
    {"ph": "M", "name": "process_name"},
    span("user_annotation", "next batch", 0, 100),
    span("user_annotation", "collect from DALI", 20, 50),
    span("user_annotation", "forward", 200, 100),
    span("user_annotation", "backward", 300, 100),
    span("user_annotation", "Optimizer.step#SGD.step", 440, 20),  # torch's own
    span("cpu_op", "aten::conv2d", 210, 50),
    span("cpu_op", "aten::add", 220, 5),
    span("cpu_op", "ConvolutionBackward", 310, 50, BACKWARD),
    *launched("gather", 30, 1000, 10, 1),
    *launched("conv_nhwc", 230, 1020, 400, 2),
    *launched("wgrad_nhwc", 320, 1400, 2000, 3, BACKWARD),  # 20 us of it beside conv_nhwc
    *launched("cudnn nchwToNhwcKernel", 330, 3500, 500, 4, BACKWARD),
    *launched("resize", 325, 3420, 30, 5, DALI),
    *launched("late", 450, 4000, 40, 6),
    span("cuda_runtime", "cudaStreamSynchronize", 350, 5),
    span("cuda_runtime", "cudaEventSynchronize", 330, 5, DALI),
    span("cuda_runtime", "cudaDeviceSynchronize", 500, 5),  # the profile's own, when all is over
]


def test_kernels_belong_to_the_stage_that_launched_them() -> None:
    found = summarise(TRACE, steps=2)
    assert {name: row["ms"] for name, row in found["stages"].items()} == {
        "collect from DALI": 0.005, "forward": 0.2, "backward": 1.25, LOADER: 0.015, OTHER: 0.02
    }  # fmt: skip
    assert found["stages"]["backward"]["launches"] == 1.0
    assert [row["name"] for row in found["top"][:2]] == ["wgrad_nhwc", "cudnn nchwToNhwcKernel"]
    assert found["conversions"] == {"cudnn nchwToNhwcKernel": {"launches": 0.5, "ms": 0.25}}
    assert found["syncs"] == {
        "torch": {"cudaStreamSynchronize": 0.5}, LOADER: {"cudaEventSynchronize": 0.5}
    }  # fmt: skip
    assert found["idle_share"] == pytest.approx((10 + 20 + 50) / 3040)


def test_without_a_gpu_outermost_operations_stand_for_kernels() -> None:
    found = summarise([event for event in TRACE if event.get("cat") in ("user_annotation", "cpu_op")], 1)
    assert {name: row["launches"] for name, row in found["stages"].items()} == {"forward": 1, "backward": 1}
    assert [row["name"] for row in found["top"]] == ["aten::conv2d", "ConvolutionBackward"]
    assert found["syncs"] == {"torch": {}, LOADER: {}}
    assert summarise([], 1)["idle_share"] is None


def test_a_training_step_is_profiled(photo_folder: Any) -> None:
    settings = [
        "train.batch_size=4",
        "data.image_size=32",
        "model.name=test_resnet",
        "data.kernels=torchvision",
    ]
    options = {"data": str(photo_folder()), "settings": [*settings, "data.backend=cpu", "data.workers=1"]}
    source = {"target": "flowerfast.bench.sources:loader", "options": options}
    found = profile(source, settings, "cpu", classes=3)
    assert found["steps"] == STEPS
    assert {"forward", "backward", "optimizer"} <= found["stages"].keys()
    assert 0 <= found["idle_share"] < 1
    assert found["wall_ms"] > sum(found["stages"][name]["ms"] for name in ("forward", "backward"))
