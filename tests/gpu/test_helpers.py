"""What the checks compare with is itself checked by sabotage: a check that cannot fail is none."""

import signal
import sys

import pytest
import torch

from tests.gpu import processes
from tests.gpu.compare import by_sample, checksums, differing, fell, growth, losses_apart, of_pixels, spread
from tests.gpu.layouts import Layouts, wrong_kernels
from tests.gpu.processes import READY, End, judge, run_to_end

FALLING = [2.0 - 0.02 * i for i in range(50)]
TRACEBACK = "Traceback (most recent call last):\nRuntimeError: left in mid-epoch"
IGNORED = "Exception ignored in: <generator object>\nAttributeError: 'NoneType' has no attribute 'Outputs'"
NHWC = "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64"


def test_checksums_see_values_and_places():
    images = torch.randint(0, 256, (3, 3, 6, 6), dtype=torch.uint8, generator=torch.manual_seed(0))
    plain = checksums(images)
    assert plain.tolist() == of_pixels(images.permute(0, 2, 3, 1).numpy()).tolist()
    assert torch.equal(checksums(images.contiguous(memory_format=torch.channels_last)), plain)
    assert (checksums(images.flip(3)) != plain).all()
    assert (checksums(images.flip(1)) != plain).all()
    images[1, 2, 4, 5] ^= 1
    assert (checksums(images) != plain).tolist() == [False, True, False]


def test_pictures_that_change_are_lost_or_too_many_differ():
    expected = by_sample(
        [(torch.tensor([3, 1]), torch.tensor([30, 10])), (torch.tensor([2]), torch.tensor([20]))]
    )
    assert expected == {1: 10, 2: 20, 3: 30}
    assert differing(expected, dict(expected)) == 0
    assert differing({1: 11, 2: 20, 3: 30}, expected) == 1
    assert differing({1: 10}, expected) == differing(expected, {1: 10}) == 2


def test_memory_that_grows_and_losses_that_differ_are_no_numbers_or_do_not_fall_are_seen():
    assert growth([0.0, 50.0, *[60.0] * 6]) == 0
    assert growth([float(i) for i in range(16)]) == 8
    assert losses_apart(FALLING, [x * 1.1 for x in FALLING]) == pytest.approx(0.1)
    assert not losses_apart(FALLING, [*FALLING[:-1], float("nan")]) <= 1
    assert fell(FALLING)
    assert not fell([1.5] * 50)


def test_two_accuracies_may_differ_by_two_standard_errors():
    assert spread(0.9, 120) == pytest.approx(2 * (2 * 0.9 * 0.1 / 120) ** 0.5)
    assert 1 / 120 < spread(1.0, 120) < 4 / 120


def test_one_layer_that_converts_is_seen_forwards_and_backwards():
    inside = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    with Layouts() as seen:
        inside(images).contiguous().sum().backward()
    assert seen.changes.total() >= 1
    with Layouts() as fine:
        inside(images).relu().mean((2, 3)).sum().backward()
    assert fine.changes.total() == 0
    assert fine.maps["last"] > 3


def test_kernels_that_convert_or_are_of_the_other_layout_are_seen():
    assert wrong_kernels({NHWC: 60}) == ""
    for name in (
        "void cudnn::ops::nchwToNhwcKernel<__half, __half, float>",
        "cudnn::ops::nhwcToNchwKernel<float>",
    ):
        assert wrong_kernels({NHWC: 60, name: 3}) == f"a kernel converts layouts: {name}"
    assert wrong_kernels({"ampere_scudnn_128x64_relu_interior_nn_v1": 60}) == "none of 1 kernels is NHWC"


@pytest.mark.parametrize(
    ("ending", "end", "problem"),
    [
        ("early break", End(0, 1, ""), ""),
        ("exception", End(1, 1, TRACEBACK), ""),
        ("ctrl-c", End(-signal.SIGINT, 1, "KeyboardInterrupt"), ""),
        ("ctrl-c", End(1, 1, "KeyboardInterrupt"), ""),
        ("ctrl-c", End(1, 1, "ValueError: x"), "ended by ValueError: x"),
        ("ctrl-c", End(0, 1, ""), "exit code 0"),
        ("early break", End(-signal.SIGSEGV, 1, "x"), "SIGSEGV"),
        ("exception", End(-signal.SIGABRT, 1, TRACEBACK), "SIGABRT"),
        ("exception", End(1, 1, f"{TRACEBACK}\n{IGNORED}"), "complains: Exception ignored"),
        ("early break", End(0, 1, "CUDA error: driver shutting down"), "complains: CUDA error"),
        ("ctrl-c", End(None, 20, "stuck here"), "still running after 20 s: stuck here"),
    ],
)
def test_ends_are_judged(ending, end, problem):
    assert judge(ending, end)[: len(problem) or None] == problem


def test_processes_that_crash_or_hang_are_seen_and_only_one_is_interrupted(monkeypatch: pytest.MonkeyPatch):
    def end(text: str, limit: float = 10, interrupt: bool = False, said: str = READY) -> End:
        lines = "import os, signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
        command = [sys.executable, "-c", f"{lines}\nprint('{said}', flush=True)\n{text}"]
        return run_to_end(command, limit, wait=True, interrupt=interrupt)

    assert "SIGSEGV" in judge("early break", end("os.kill(os.getpid(), signal.SIGSEGV)"))
    assert "still running" in judge("early break", end("sys.stderr.write('stuck'); time.sleep(100)", 1))
    assert end("time.sleep(0.2)").code == 0
    assert end("time.sleep(100)", interrupt=True).code == -signal.SIGINT
    monkeypatch.setattr(processes, "START", 1.0)
    assert end("time.sleep(100)", said="not yet").code == -signal.SIGKILL
