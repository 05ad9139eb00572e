"""Does it run at all: DALI beside this torch, and the GPU's decoder on photos of many sizes."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Place
from flowerfast.loaders.dali_probe import dali_problem

_ORDERS = {"torch first": "torch, nvidia.dali", "DALI first": "nvidia.dali, torch"}
_USE = """
import {modules}
from nvidia.dali import Pipeline, fn
import numpy as np
device = None if sys.argv[1] == "cpu" else 0
pipe = Pipeline(batch_size=1, num_threads=1, device_id=device)
with pipe:
    made = fn.external_source(lambda: [np.full((8, 8, 3), 5, np.uint8)])
    pipe.set_outputs(fn.resize(made if device is None else made.gpu(), size=[4, 4]))
pipe.build()
(out,) = pipe.run()
place = torch.device(sys.argv[1])
ours = torch.nn.Conv2d(3, 4, 3).to(place)(torch.ones(1, 3, 8, 8, device=place))
theirs = torch.from_dlpack(out.as_tensor())
assert theirs.device.type == place.type and int(theirs.float().mean()) == 5 and ours.isfinite().all()
"""
"""Both libraries at work in one process: a DALI graph, a convolution (cuDNN), one's tensor in the other."""
_TRIAL_SECONDS = 100.0


def imports(place: Place) -> Outcome:
    """DALI and torch load into one process in either order, and work on the device beside each other."""
    problem = dali_problem(place.torch_device)
    if problem is not None:
        return Outcome(False, 0, f"{len(_ORDERS)} orders of import", problem)
    errors = {name: _try_order(modules, place.device) for name, modules in _ORDERS.items()}
    failed = [f"{name}: {error}" for name, error in errors.items() if error]
    works = len(_ORDERS) - len(failed)
    detail = "; ".join(failed) or f"torch {torch.__version__}, DALI {_dali_version()}"
    return Outcome(not failed, works, f"{len(_ORDERS)} orders of import", detail, _unseen(place))


def _try_order(modules: str, device: str) -> str:
    code = "import sys\n" + _USE.format(modules=modules)
    command = [sys.executable, "-c", code, device]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False
    )
    last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return f"exit code {done.returncode}: {last}" if done.returncode else ""


def _dali_version() -> str:
    for package in ("nvidia-dali-cuda120", "nvidia-dali-cuda130"):
        try:
            return f"{version(package)} ({package})"
        except PackageNotFoundError:
            continue
    return "of unknown version"


def _unseen(place: Place) -> str:
    return "" if place.cuda else "CUDA libraries of both in one process"


def window_decode(place: Place) -> Outcome:
    """The GPU's decoder, by windows where it can and else by the fallback, gets through photos of many sizes.

    The fallback that was taken is named, and so are photos that DALI refused and the CPU decoded.
    """
    manifest = place.manifest("many")
    loader = place.open(manifest, "gpu")
    came, black = np.zeros(len(manifest), np.int64), 0
    for batch in loader.epoch(0):
        np.add.at(came, batch.indices.numpy(), 1)
        black += int((batch.images.amax((1, 2, 3)) == 0).sum())
    bad, notes = len(loader.bad), loader.notes
    loader.close()
    wrong = int((came != 1).sum())
    way = "; ".join(notes) or "windows were decoded where the graph ran, no fallback"
    detail = f"{way}; {bad} bad, {black} black"
    bound = f"all {len(manifest)} photos once"
    return Outcome(wrong == bad == black == 0, len(manifest) - wrong, bound, detail, place.unseen("gpu"))
