"""Predictions for other machines: what they keep, what they refuse, and whether simulated queues agree."""

from typing import Any

import numpy as np
import pytest
from rich.console import Console

from flowerfast.bench.queueing import Cost, core_rate, loader_rates, through
from flowerfast.bench.whatif import KEYS, what_if
from flowerfast.errors import UserError


def row(rate: float, workers: int = 1, spread: float = 0.01, **more: Any) -> dict[str, Any]:
    facts = {"backend": "cpu", "cache": "none", "batch_size": 32, "workers": workers}
    return {"images_per_sec": rate, "spread": spread * rate, "cpu_cores": workers, **facts, **more}


def result(cores: int = 1, stages: bool = True, device: str = "cuda", **loaders: Any) -> dict[str, Any]:
    """One millisecond a photo, of which a tenth is the interpreter's."""
    rows = {"read": 0.05, "decode": 0.6, "crop+resize": 0.3, "assemble": 0.03}
    part = {
        "rows": {
            name: {"ms": ms, "spread_ms": 0.001, "images_per_sec": 1000 / ms} for name, ms in rows.items()
        },
        "sum_ms": 0.98,
        "loader_ms": 1.0,
        "loader_spread_ms": 0.01,
    }
    return {
        "schema": 2,
        "kind": "bench",
        "environment": {"cores": cores, "device": device},
        "settings": {"backend": "cpu", "batch_size": 32, "round_seconds": 1.0, "device": device},
        **({"stages": part} if stages else {}),
        **({"loader": loaders} if loaders else {}),
    }


# ------------------------------------------------------------------------------------------------- the loader


@pytest.mark.parametrize("stages", [True, False])
def test_the_measured_machine_is_predicted_as_it_was_measured(stages):
    known = result(4, stages, now=row(3300, 4))
    found = what_if(known, "cores=4")
    assert found.loader_images_per_sec == pytest.approx(3300)
    assert found.loader_interval[0] < 3300 < found.loader_interval[1]


def test_stages_alone_are_enough():
    one, two, many = (what_if(result(), f"cores={n}") for n in (1, 2, 64))
    assert one.loader_images_per_sec == pytest.approx(1000)
    assert 1900 < two.loader_images_per_sec < 2000
    assert one.cost.locked == pytest.approx(0.1)  # read, assemble, and 0.02 that no stage accounts for
    assert many.loader_images_per_sec == pytest.approx(1000 / 0.1, rel=0.01)  # the lock is the wall


def test_each_gpu_has_a_lock_of_its_own():
    together, apart = what_if(result(), "cores=64"), what_if(result(), "cores=64,gpus=8")
    assert apart.loader_images_per_sec > 4 * together.loader_images_per_sec


def test_scaling_that_was_measured_is_carried_on():
    curve = {f"workers={n}": row(1000 * n * 0.9 ** np.log2(n), n) for n in (1, 2, 4)}
    found = what_if(result(4, stages=False, **curve), "cores=8")
    assert found.cost.sharing == pytest.approx(0.1, abs=0.02)
    assert found.loader_images_per_sec == pytest.approx(8000 * 0.9**3, rel=0.05)
    assert found.loader_interval[0] < 8000 * 0.9**3 < found.loader_interval[1]


def test_rows_that_are_something_else_do_not_count():
    others = {
        "cached": row(9000, 2, cache="ram"),
        "other kernels": row(300, 2, kernels="torchvision"),
        "packed": row(5000, 2, setting="flowerfast pack --max-side 320"),
        "too many": row(2500, 4),
        "broken": {"error": "killed by SIGSEGV", "skipped": False},
    }
    found = what_if(result(2, now=row(1800, 2), **others), "cores=2")
    assert found.loader_images_per_sec == pytest.approx(1800)


def test_a_long_way_is_called_so_and_has_a_wider_interval():
    near, far = what_if(result(), "cores=2"), what_if(result(), "cores=64")
    widths = [(p.loader_interval[1] - p.loader_interval[0]) / p.loader_images_per_sec for p in (near, far)]
    assert widths[1] > 2 * widths[0]
    assert any("far from what was measured" in text for text in far.remarks)
    assert not any("far from" in text for text in near.remarks)
    assert any("memory bandwidth" in text for text in near.remarks)


@pytest.mark.parametrize("cores", [1, 2, 5, 16])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_a_simulated_lock_gives_the_rates_of_the_model(cores, share):
    cost = Cost(1 - share, share, 0.0, 0.0, cores, "")
    exponential = simulated_lock(cores, lambda r, mean: r.exponential(mean), share)
    assert core_rate(cost, cores) == pytest.approx(exponential, rel=0.03)
    low, high = loader_rates(cost, cores, 1)[1]
    for draw in (lambda r, mean: mean, lambda r, mean: r.gamma(10, mean / 10)):
        assert low * 0.99 <= simulated_lock(cores, draw, share) <= high * 1.01


def simulated_lock(cores: int, draw: Any, share: float, photos: int = 20_000) -> float:
    """Photos/s of cores that compute for 1 - share and then hold the lock for share milliseconds."""
    random = np.random.default_rng(0)
    asks = [draw(random, 1 - share) for _ in range(cores)]
    free = 0.0
    for _ in range(photos):
        core = min(range(cores), key=asks.__getitem__)
        free = max(free, asks[core]) + draw(random, share)
        asks[core] = free + draw(random, 1 - share)
    return 1000 * photos / free


# --------------------------------------------------------------------------------------------------- training


def test_training_is_the_slower_of_both_less_what_the_queue_loses():
    known = result(2, now=row(1800, 2))
    slow, fast, even = (what_if(known, f"model={rate}") for rate in (500, 20_000, 1800))
    assert (slow.bound, fast.bound, even.bound) == ("model", "loader", "either")
    assert slow.training_images_per_sec == pytest.approx(500, rel=0.01)
    assert fast.training_images_per_sec == pytest.approx(1800, rel=0.01)
    assert 0.9 * 1800 < even.training_images_per_sec < 1800
    assert even.training_interval[0] < even.training_images_per_sec <= even.training_interval[1]


def test_gpus_multiply_the_model():
    found = what_if(result(), "cores=64,gpus=8,model=500")
    assert found.model_images_per_sec == 4000
    assert found.bound == "model"


def test_the_measured_step_counts_on_a_gpu_only():
    step = {"training step": row(700)}
    assert what_if({**result(), "model": step}, "cores=4").model_images_per_sec == 700
    on_cpu = what_if({**result(device="cpu"), "model": step}, "cores=4")
    assert on_cpu.training_images_per_sec is None
    assert on_cpu.bound == "unclear"
    assert any("as model=" in text for text in on_cpu.remarks)


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0, 1.1, 2.0])
@pytest.mark.parametrize(("squared", "tolerance"), [(1.0, 0.02), (0.25, 0.02), (0.04, 0.02)])
def test_a_simulated_queue_loses_what_the_formula_says(ratio, squared, tolerance):
    simulated = simulated_training(1 / ratio, 1.0, squared)
    assert through(ratio, 1.0, 3, 2 * squared) == pytest.approx(simulated, rel=tolerance)


def simulated_training(make: float, step: float, squared: float, prefetch: int = 3) -> float:
    """Batches/s of a loader and a model whose times are gamma with this squared coefficient of variation."""
    random, count = np.random.default_rng(1), 40_000
    makes, steps = (random.gamma(1 / squared, mean * squared, count) for mean in (make, step))
    taken, made, done = np.zeros(count), 0.0, 0.0
    for i in range(count):
        # While the model works on a batch, `prefetch` others may be under way or ready.
        made = max(made, taken[i - prefetch] if i >= prefetch else 0.0) + makes[i]
        taken[i] = max(made, done)
        done = taken[i] + steps[i]
    return count / done


def test_without_variation_nothing_is_lost():
    assert through(100.0, 90.0, 3, 0.0) == 90
    assert through(0.0, 90.0, 3, 0.5) == 0
    assert through(1e7, 1.0, 3, 1e-6) == pytest.approx(1.0)  # powers that would overflow


# -------------------------------------------------------------------------------------------------- the words


@pytest.mark.parametrize("spec", ["", "corse=2", "cores", "cores=0", "cores=1.5", "cores=two", "model=nan",
                                  "cores=2,cores=4", "gpus=-1", "cores=1e9", "model=inf"])  # fmt: skip
def test_a_bad_specification_is_refused_in_one_line(spec):
    with pytest.raises(UserError, match="--what-if") as caught:
        what_if(result(), spec)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_names_those_that_are_known():
    with pytest.raises(UserError) as caught:
        what_if(result(), "corse=2")
    assert all(key in str(caught.value) for key in KEYS)


def test_a_result_that_does_not_tell_is_refused():
    with pytest.raises(UserError, match="stages and loader"):
        what_if(result(stages=False), "cores=2")
    with pytest.raises(UserError, match="schema"):
        what_if({**result(), "schema": 1}, "cores=2")


def test_the_table_holds_the_figures_and_the_remarks():
    console = Console(width=150)
    found = what_if(result(), "cores=16,gpus=8,model=12000")
    with console.capture() as captured:
        console.print(found.table())
    text = captured.get()
    assert f"{found.loader_images_per_sec:,.0f}" in text
    assert f"{found.training_images_per_sec:,.0f}" in text
    assert "bound: loader" in text
