"""Two results set against each other: slower is said when it is so, and not when it is noise."""

import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from flowerfast.bench.compare import Comparison, compare_results, read_result
from flowerfast.bench.result import summary
from flowerfast.errors import UserError

RATES = {"cpu": 1800.0, "cpu, ram cache": 2900.0}


def row(rate: float, noise: float, seed: int, rounds: int = 5, **more: Any) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    drawn = rate * (1 + noise * random.normal(size=rounds))
    facts = {
        "backend": "cpu",
        "cache": "none",
        "workers": 2,
        "batch_size": 32,
        "cpu_cores": 1.9,
        "memory_bytes": None,
    }
    return {**summary([float(value) for value in drawn]), **facts, **more}


def result(seed: int = 0, noise: float = 0.02, rounds: int = 5, **slower: float) -> dict[str, Any]:
    """A whole result; `slower` multiplies rates of rows, by name."""
    stages = {"decode": 0.6, "jitter": 0.2, "translate": 0.004}
    rows = {}
    for name, ms in stages.items():
        ms /= slower.get(name, 1.0)
        rows[name] = {"ms": ms, "spread_ms": noise * ms, "images_per_sec": 1000 / ms}
    return {
        "schema": 2,
        "kind": "bench",
        "environment": {
            "cpu": "Some CPU",
            "cores": 2,
            "device": "CPU",
            "versions": {"torch": "9"},
            "git": None,
            "git_changed": None,
        },
        "data": {"folder": "photos", "photos": 408, "mean_pixels": 3e5, "mean_bytes": 4e4},
        "settings": {
            "batch_size": 32,
            "image_size": 224,
            "photos_per_epoch": 400 + seed,
            "model": "resnet18",
            "workers": 2,
            "rounds": rounds,
        },
        "stages": {
            "repeats": rounds,
            "rows": rows,
            "sum_ms": sum(each["ms"] for each in rows.values()),
            "executor": "numba",
            "photos": 300,
            "loader_ms": 1.0,
            "cold_read": {"not_measured": "no root"},
        },
        "loader": {
            name: row(rate * slower.get(name, 1.0), noise, seed + i, rounds)
            for i, (name, rate) in enumerate(RATES.items())
        },
        "model": {"training step": row(700, noise, seed + 7, rounds)},
        "verdict": {"bound": "model", "advice": [], "findings": ["model-bound"]},
    }


def verdicts(found: Comparison) -> dict[str, str]:
    return {each.name: each.verdict for each in found.rows}


@pytest.mark.parametrize("seed", range(5))
def test_an_unchanged_run_passes(seed):
    found = compare_results(result(2 * seed), result(100 + 2 * seed), 0.1)
    assert not found.slower
    assert {*verdicts(found).values()} == {"same"}
    assert not found.differences


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["cpu, ram cache", "decode"])
def test_a_slowdown_of_a_fifth_in_one_row_is_flagged(seed, name):
    found = compare_results(result(seed), result(100 + seed, **{name: 0.8}), 0.1)
    assert found.slower
    assert [each for each, verdict in verdicts(found).items() if verdict == "slower"] == [name]


def test_one_disturbed_round_hides_nothing_and_invents_nothing():
    old, new, good = result(1), result(2, cpu=0.8), result(3)
    for each in (old, new, good):
        rounds = each["loader"]["cpu"]["rounds"]
        each["loader"]["cpu"] |= summary([*rounds[:-1], rounds[-1] * 0.5])
    assert verdicts(compare_results(old, new, 0.1))["cpu"] == "slower"
    assert verdicts(compare_results(old, good, 0.1))["cpu"] == "same"


def test_noisy_rows_are_not_flagged():
    old, new = result(1), result(2)
    old["loader"]["cpu"] |= summary([1500.0, 2100.0, 1800.0, 1300.0, 2200.0])
    new["loader"]["cpu"] |= summary([1200.0, 1700.0, 1500.0, 1900.0, 1100.0])
    found = compare_results(old, new, 0.1)
    assert verdicts(found)["cpu"] == "within noise"
    assert not found.slower


def test_by_chance_noise_is_seldom_called_slower():
    random, crossed, trials = np.random.default_rng(0), 0, 2000
    old, new = ({**result(), "stages": {}, "model": {}, "loader": {"a": row(1, 0, 0)}} for _ in range(2))
    for _ in range(trials):
        for each in (old, new):
            each["loader"]["a"] |= summary([float(v) for v in 1000 + 100 * random.normal(size=5)])
        crossed += compare_results(old, new, 0.0).slower
    assert 0.02 < crossed / trials < 0.06


def test_the_tolerance_decides():
    old, new = result(1, 0.001), result(2, 0.001, cpu=0.85)
    assert compare_results(old, new, 0.1).slower
    assert not compare_results(old, new, 0.2).slower
    with pytest.raises(UserError, match="tolerance"):
        compare_results(old, new, 1.0)


def test_what_is_faster_is_no_failure():
    found = compare_results(result(1), result(2, cpu=1.5), 0.1)
    assert verdicts(found)["cpu"] == "faster"
    assert not found.slower


def test_a_stage_that_hardly_counts_may_double():
    assert not compare_results(result(1), result(2, translate=0.5), 0.1).slower


def test_rows_of_one_side_only_are_shown_and_not_judged():
    old, new = result(1), result(2)
    new["loader"]["dali-cpu"] = old["loader"].pop("cpu")
    new["loader"]["cpu, ram cache"] = {"error": "killed by SIGSEGV", "skipped": False}
    del new["model"]
    remarks = {
        each.name: each.remark for each in compare_results(old, new, 0.1).rows if each.verdict == "not judged"
    }
    assert remarks == {
        "cpu": "not in the old result",
        "dali-cpu": "not in the old result",
        "cpu, ram cache": "new: killed by SIGSEGV",
        "training step": "not in the new result",
    }


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("environment", "cpu", "Other"),
        ("environment", "cores", 4),
        ("data", "photos", 9),
        ("settings", "image_size", 64),
    ],
)
def test_other_conditions_are_said_and_nothing_is_judged(part, key, value):
    new = result(2, cpu=0.5)
    new[part][key] = value
    found = compare_results(result(1), new, 0.1)
    assert not found.slower
    assert len(found.differences) == 1
    assert str(value) in found.differences[0]
    assert {*verdicts(found).values()} == {"not judged"}
    assert "so nothing is judged" in printed(found)


def test_other_versions_are_said_and_judged():
    new = result(2, cpu=0.5)
    new["environment"]["versions"]["torch"] = "10"
    found = compare_results(result(1), new, 0.1)
    assert found.slower
    assert found.notes == ["torch was 9, is 10"]


def test_a_row_with_other_settings_is_not_judged():
    new = result(2, cpu=0.5)
    new["loader"]["cpu"]["workers"] = 1
    found = compare_results(result(1), new, 0.1)
    assert not found.slower
    assert verdicts(found)["cpu"] == "not judged"
    assert verdicts(found)["decode"] == "same"


def test_two_rounds_are_too_few():
    found = compare_results(result(1, rounds=2), result(2, rounds=2, cpu=0.5), 0.1)
    assert not found.slower
    assert "fewer than 3 rounds" in printed(found)


def test_the_table_holds_ratio_noise_and_verdict():
    text = printed(compare_results(result(1), result(2, cpu=0.5), 0.1))
    line = next(line for line in text.splitlines() if "cpu " in line and "ram" not in line)
    assert "slower" in line
    assert "±" in line
    assert "0.5" in line or "0.4" in line


def printed(found: Comparison) -> str:
    console = Console(width=150)
    with console.capture() as captured:
        console.print(found.table())
    return captured.get()


def test_files_that_are_no_results_are_refused(tmp_path):
    file = tmp_path / "old.json"
    with pytest.raises(UserError, match=r"old\.json: No such file"):
        read_result(file)
    for content, match in (
        ("{", "not JSON"),
        ("[]", "no result"),
        (json.dumps({**result(), "schema": 1}), "schema 1"),
        (json.dumps({**result(), "kind": "compare"}), "kind 'compare'"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=match):
            read_result(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not JSON"):
        read_result(file)
    file.write_text(json.dumps(result()))
    assert read_result(file) == result()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("environment",), None),
        (("verdict",), {}),
        (("loader", "cpu", "images_per_sec"), None),
        (("loader", "cpu", "images_per_sec"), "x"),
        (("loader", "cpu", "images_per_sec"), 0),
        (("loader", "cpu"), {}),
        (("stages", "rows", "decode", "ms"), -1),
        (("settings", "left_out"), 5),
    ],
    ids=str,
)
def test_damaged_results_are_refused_in_one_line(tmp_path, place, value):
    damaged = part = result()
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    file = tmp_path / "old.json"
    file.write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=rf"lacks what a result .* has \(.*{place[-1]}.*\); measure again"):
        read_result(file)
