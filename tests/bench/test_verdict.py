"""The verdict is a function of the result alone: made-up figures, and the words that follow from them."""

from typing import Any

import pytest

from flowerfast.bench.verdict import verdict


def row(rate: float, spread: float = 0.01, **more: Any) -> dict[str, Any]:
    return {"images_per_sec": rate, "spread": spread * rate, "rounds": [rate] * 5, **more}


def stages(**ms: float) -> dict[str, Any]:
    found = {"read": 0.05, "decode": 1.3, "crop+resize": 0.4, "flip+rotate": 0.1, "jitter": 0.1, **ms}
    rows = {
        name: {"ms": value, "spread_ms": 0.01, "images_per_sec": 1000 / value}
        for name, value in found.items()
    }
    return {"executor": "numba", "threads": 1, "rows": rows, "sum_ms": sum(found.values()),
            "loader_ms": sum(found.values())}  # fmt: skip


def result(loader: float, model: float, device: str = "cuda", **more: Any) -> dict[str, Any]:
    return {
        "settings": {"backend": "cpu", "current": "cpu", "device": device},
        "stages": stages(),
        "loader": {
            "cpu": row(loader),
            "cpu, packed": row(1640, setting="flowerfast pack --max-side 320", note="smaller"),
            "cpu, workers=1": row(loader / 2, setting="data.workers=1"),
        },
        "model": {"training step": row(model)},
        **more,
    }


def test_decode_bound() -> None:
    found = verdict(result(870, 3400))
    assert found["bound"] == "decode"
    assert (found["loader_images_per_sec"], found["model_images_per_sec"]) == (870, 3400)
    assert found["data_wait"] is None
    (best,) = found["advice"]
    assert best == {"setting": "flowerfast pack --max-side 320", "images_per_sec": 1640,
                    "gain": pytest.approx(1640 / 870), "note": "smaller", "measured": True}  # fmt: skip
    said = " ".join(found["findings"])
    assert said.startswith("decode-bound: the loader makes 870 images/s, the model could take 3,400")
    assert "`flowerfast pack --max-side 320` measured 1,640" in said
    assert "workers=1" not in said


def test_read_bound() -> None:
    found = verdict(result(100, 3400, stages=stages(read=9)))
    assert found["bound"] == "read"
    assert "read is 83% of the loader's time" in found["findings"][0]


def test_a_stage_that_runs_beside_the_loader_is_no_bound() -> None:
    found = result(870, 3400)
    found["stages"]["rows"]["host-to-device"] = {"ms": 50, "spread_ms": 0, "images_per_sec": 20}
    assert verdict(found)["bound"] == "decode"


def test_stages_say_nothing_of_another_backend() -> None:
    found = result(870, 3400)
    found["settings"]["backend"] = "dali"
    assert verdict(found)["bound"] == "loader"


def test_model_bound_on_a_cpu_says_when_it_would_not_be() -> None:
    train = {"cpu": row(8, data_wait=0.01)}
    found = verdict(result(870, 8, device="cpu", train=train))
    assert (found["bound"], found["data_wait"], found["advice"]) == ("model", 0.01, [])
    said = " ".join(found["findings"])
    assert "a faster loader will not help" in said
    assert "more than 870 images/s the loader would be the wall; decode is 67% of the loader's time" in said
    assert "there, `flowerfast pack --max-side 320` measured 1,640" in said


@pytest.mark.parametrize(
    ("device", "busy", "ways"),
    [
        ("cpu", 1.9, "(model.name is resnet18), more cores (the step keeps 1.9 of 2 busy) or a GPU"),
        ("cpu", 1.0, "a smaller network (model.name is resnet18) or a GPU"),
        ("cuda", 1.0, "or a smaller network (model.name is resnet18)"),
    ],
)  # fmt: skip
def test_model_bound_says_what_would_help_and_how_far(device: str, busy: float, ways: str) -> None:
    found = result(900, 9, device=device, environment={"cores": 2})
    found["settings"] |= {"image_size": 224, "model": "resnet18"}
    found["model"]["training step"]["cpu_cores"] = busy
    told = verdict(found)["findings"][1]
    assert told.startswith(
        "what makes the step lighter helps, until it is 100.0 times as fast and the loader the wall: "
        "smaller images (data.image_size is 224)"
    )
    assert told.endswith(ways)


def test_model_bound_on_a_gpu_advises_what_makes_the_model_faster() -> None:
    found = result(9000, 3400)
    found["model"]["training step, torch.compile"] = row(4500)
    found = verdict(found)
    assert found["bound"] == "model"
    assert [entry["setting"] for entry in found["advice"]] == ["train.compile=on"]


def test_balanced() -> None:
    assert verdict(result(1000, 1050))["bound"] == "balanced"


@pytest.mark.parametrize(
    ("rate", "spread"), [(1040, 0.001), (1100, 0.06), (5000, 0.45)], ids=["small", "noise", "wide"]
)
def test_what_is_not_clearly_faster_is_not_advised(rate: float, spread: float) -> None:
    found = result(1000, 9000)
    found["loader"]["cpu, packed"] = row(rate, spread, setting="data.cache=ram")
    assert verdict(found)["advice"] == []


def test_advice_comes_best_first_and_says_what_the_model_cannot_use() -> None:
    found = result(870, 1700)
    found["loader"]["cpu, ram cache"] = row(2500, setting="data.cache=ram", note="")
    found = verdict(found)
    assert [entry["images_per_sec"] for entry in found["advice"]] == [2500, 1640]
    assert any("`--set data.cache=ram` measured 2,500" in t and "model can take (1,700)" in t
               for t in found["findings"])  # fmt: skip


def test_too_noisy() -> None:
    found = result(870, 1300)
    found["loader"]["cpu"] = row(870, 0.3)
    found = verdict(found)
    assert (found["bound"], found["advice"]) == ("unclear", [])
    assert "too noisy" in found["findings"][0]
    assert any("cpu" in text and "30%" in text for text in found["findings"][1:])


def test_noise_that_changes_nothing_is_told_and_borne() -> None:
    found = result(870, 34000)
    found["model"]["training step"] = row(34000, 0.3)
    found = verdict(found)
    assert found["bound"] == "decode"
    assert any("training step is too noisy" in text for text in found["findings"])


def test_a_stopped_suite_is_told() -> None:
    found = result(870, 34000)
    found["settings"]["rounds"] = 5
    assert not any("stopped" in text for text in verdict(found)["findings"])
    for each in found["loader"].values():
        each |= {"rounds": [870] * 3, "spread": 0.4 * each["images_per_sec"]}
    told = [text for text in verdict(found)["findings"] if "stopped" in text]
    assert told[0].startswith("the suite loader was stopped after 3 of 5 rounds: its figures spread by 40%")
    assert len(told) == 1


def test_nothing_measured() -> None:
    found = verdict({"settings": {}})
    assert (found["bound"], found["advice"], found["loader_images_per_sec"]) == ("unclear", [], None)
    assert "measure" in found["findings"][0]


def test_a_failed_loader_is_no_figure() -> None:
    found = result(870, 3400)
    found["loader"] = {"cpu": {"error": "killed", "skipped": False}}
    assert verdict(found)["loader_images_per_sec"] is None


def test_stages_alone_name_the_largest() -> None:
    found = verdict({"settings": {"backend": "cpu"}, "stages": stages(jitter=7)})
    assert found["bound"] == "jitter"
    assert "79%" in found["findings"][0]


def test_training_alone_goes_by_its_waiting() -> None:
    settings = {"backend": "dali", "current": "dali"}
    busy, waiting = ({"settings": settings, "train": {"dali": row(900, data_wait=w)}} for w in (0.01, 0.6))
    busy["model"] = waiting["model"] = {"training step": row(1500)}
    assert verdict(busy)["bound"] == "model"
    assert verdict(waiting)["bound"] == "loader"


def test_stages_that_do_not_add_up_are_reported() -> None:
    found = result(870, 3400)
    found["stages"]["loader_ms"] *= 1.5
    assert "do not trust the stages" in verdict(found)["findings"][-1]
    assert not any("trust" in text for text in verdict(result(870, 3400))["findings"])
