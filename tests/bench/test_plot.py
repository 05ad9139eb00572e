"""The figure of a result: every suffix, the same bytes each time, whatever suites were measured."""

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flowerfast.bench.plot import _figure, plot_result
from flowerfast.errors import UserError


def row(rate: float, **more: Any) -> dict[str, Any]:
    return {"images_per_sec": rate, "low": 0.95 * rate, "high": 1.03 * rate, "spread": 0.01 * rate, **more}


def result() -> dict[str, Any]:
    stages = {"read": 0.03, "decode": 0.55, "crop+resize": 0.2, "flip+rotate": 0.1, "jitter": 0.08,
              "translate": 0.01, "assemble": 0.04}  # fmt: skip
    return {
        "schema": 2,
        "kind": "bench",
        "environment": {"cpu": "Some CPU", "device": "CPU", "cores": 2},
        "data": {"photos": 408, "mean_pixels": 3.2e5, "mean_bytes": 4e4},
        "settings": {"image_size": 224, "batch_size": 32, "current": "cpu"},
        "stages": {
            "executor": "numba",
            "threads": 1,
            "rows": {
                name: {"ms": ms, "spread_ms": ms / 30, "images_per_sec": 1000 / ms}
                for name, ms in stages.items()
            },
            "sum_ms": sum(stages.values()),
            "loader_ms": 1.06,
        },
        "loader": {
            "cpu": row(1800),
            "cpu, ram cache": row(2900),
            "dali-cpu": {"error": "not installed", "skipped": True},
        },
        "model": {"training step": row(700), "forward": row(2100)},
        "train": {"cpu": row(640, data_wait=0.07)},
    }


@pytest.mark.parametrize("suffix", [".PNG", ".svg", ".pdf"])
def test_the_same_result_gives_the_same_bytes(tmp_path, suffix):
    one, two = tmp_path / f"one{suffix}", tmp_path / f"sub/two{suffix}"
    plot_result(result(), one)
    plot_result(result(), two)
    assert one.read_bytes() == two.read_bytes()
    assert [*tmp_path.rglob("*.partial")] == []


def words(file: Path) -> str:
    return " ".join(re.findall(r">([^<>]+)</text>", file.read_text()))


def test_every_row_with_figures_is_in_it(tmp_path):
    plot_result(result(), tmp_path / "a.svg")
    found = words(tmp_path / "a.svg")
    for text in (
        "read",
        "decode",
        "crop+resize",
        "1,800",
        "2,900",
        "7% waiting for data",
        "Some CPU, 2 cores",
    ):
        assert text in found
    assert "dali-cpu" not in found


@pytest.mark.parametrize(
    ("kept", "shown", "gone"),
    [(["stages"], "decode", "images/s"), (["loader"], "images/s", "decode"), (["model"], "forward", "decode"),
     (["train"], "training: cpu", "forward")],
)  # fmt: skip
def test_any_suite_may_be_absent(tmp_path, kept, shown, gone):
    suites = ("stages", "loader", "model", "train")
    part = {key: value for key, value in result().items() if key not in suites or key in kept}
    plot_result(part, tmp_path / "a.svg")
    found = words(tmp_path / "a.svg")
    assert shown in found
    assert gone not in found


@pytest.mark.parametrize(("step", "scale"), [(700, "linear"), (8.3, "log")])
def test_bars_that_are_far_apart_are_all_seen(step, scale):
    found = result()
    found["model"] = {"training step": row(step)}
    found["train"] = {"cpu": row(0.95 * step)}
    axes = _figure(found, Path("a.svg")).axes[1]
    assert axes.get_xscale() == scale
    assert ("logarithmic" in axes.get_xlabel()) == (scale == "log")
    left, right = axes.transData.transform([(axes.get_xlim()[0], 0), (axes.get_xlim()[1], 0)])[:, 0]
    ends = axes.transData.transform([(bar.get_width(), 0) for bar in axes.patches])[:, 0]
    assert (ends - left > 0.05 * (right - left)).all()
    assert (ends < left + 0.95 * (right - left)).all()


def test_names_are_no_formulas(tmp_path):
    found = result()
    found["environment"]["cpu"] = "$x_$ \\frac"
    found["loader"]["a_b^ $"] = row(1700)
    plot_result(found, tmp_path / "a.svg")
    assert "$x_$ \\frac" in words(tmp_path / "a.svg")
    assert "a_b^ $" in words(tmp_path / "a.svg")


def test_a_picture_is_not_empty(tmp_path):
    plot_result(result(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 300
        assert len(image.convert("RGB").getcolors(1 << 24)) > 10


def test_nothing_to_draw_is_refused(tmp_path):
    empty = {
        key: value for key, value in result().items() if key not in ("stages", "loader", "model", "train")
    }
    with pytest.raises(UserError, match="no figures"):
        plot_result(empty, tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.json"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"give \.png, \.svg or \.pdf"):
        plot_result(result(), tmp_path / name)


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(UserError, match="can be written"):
            plot_result(result(), path)
    assert [*tmp_path.rglob("*.partial")] == []
