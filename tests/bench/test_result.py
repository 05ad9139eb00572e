"""Results of earlier versions."""

from pathlib import Path

from flowerfast.bench.compare import read_result
from flowerfast.bench.result import present


def test_a_result_with_the_older_name_of_the_backend_is_read_with_the_present_one():
    old = read_result(Path(__file__).parents[2] / "benchmarks/results/bench-cpu-2cores.json")
    assert (old["settings"]["backend"], old["settings"]["current"]) == ("cpu", "cpu")
    assert present(old, "loader") == old["loader"]["cpu"]
    assert {row["backend"] for row in old["loader"].values()} == {"cpu", "dali-cpu"}
    assert old["loader"]["cpu, kernels=torchvision"]["kernels"] == "torchvision"
