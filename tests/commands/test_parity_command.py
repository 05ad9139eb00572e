"""`flowerfast parity`: what it says, writes and refuses."""

import json
from collections.abc import Callable
from functools import partial

import pytest
import torch

from flowerfast.commands import parity
from flowerfast.commands.differences import BOUNDS
from flowerfast.commands.parity import STEPS
from flowerfast.config import DataConfig
from flowerfast.loaders import engine
from flowerfast.training.trained import TrainedModel

CPU = torch.device("cpu")
Arrange = Callable[[str], None]


@pytest.fixture
def cli_parity(cli: Callable) -> Callable:
    """`flowerfast parity` with two workers, on small pictures."""
    return partial(cli, "parity", "--set", "data.workers=2", "--set", "data.image_size=48")


def test_cli_within_the_bounds(cli_parity, flowers, tmp_path):
    code, out, err = cli_parity(flowers, "--backend", "cpu", "--samples", 9, "--json", "result.json")
    assert (code, err) == (0, "")
    assert "cpu (decoding on the CPU) against torchvision: within the bounds" in out.splitlines()[-1]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["ok"]
    assert (result["photos"], result["epochs"], result["image_size"]) == (9, 1, 48)
    assert [step["step"] for step in result["steps"]] == list(STEPS)
    assert set(result["steps"][0]) == {
        "step", "samples", "mean", "p99", "max", "worst_photo", "worst_mean", "top1_differs",
    }  # fmt: skip
    assert result["bounds"] == {
        "mean": 0.5,
        "p99": 3,
        "steps": ["whole chain", "more operations", "evaluation"],
    }
    assert (result["backend"], result["decoder"], result["reference"]) == ("cpu", "cpu", "torchvision")
    assert result["data"] == "flowers"
    assert result["settings"]["data"]["hw_decoder_load"] == DataConfig().hw_decoder_load
    assert str(flowers.parent) not in json.dumps(result)  # a record to publish does not tell where
    assert {"torch", "pillow"} <= set(result["versions"])
    assert result["device"]


def test_cli_outside_the_bounds(cli_parity, flowers, sabotage: Arrange):
    sabotage("rotation")
    code, out, err = cli_parity(flowers, "--backend", "cpu")
    assert (code, err) == (1, "")
    assert "outside the bounds" in out.splitlines()[-1]
    code, out, _ = cli_parity(flowers, "--backend", "cpu", "--json", "-")
    assert code == 1
    assert json.loads(out)["ok"] is False


def test_cli_names_skipped_files(cli_parity, photo_folder):
    root = photo_folder(sizes=[(80, 70)])
    (root / "rose/rose_000.jpg").write_bytes(b"no photo")
    code, _, err = cli_parity(root, "--backend", "cpu")
    assert code == 0
    assert err == "skipped: rose/rose_000.jpg: not an image\n"


def test_cli_compares_rendered_flowers_with_dali_by_default(cli_parity, flowers, monkeypatch):
    pytest.importorskip("nvidia.dali")
    monkeypatch.setattr(parity, "demo_photos", lambda bar: flowers)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, _ = cli_parity()
    assert code == 0
    assert out.splitlines()[-1].startswith("dali-cpu (decoding on the CPU) against torchvision: within")


def test_cli_without_dali_compares_the_compiled_loops_and_says_so(cli_parity, flowers, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    code, out, err = cli_parity(flowers)
    assert (code, err) == (0, "")
    assert (
        "compared: the compiled loops, since dali-cpu cannot run here: data.backend=dali-cpu: NVIDIA" in out
    )
    assert out.splitlines()[-1].startswith("cpu (decoding on the CPU) against torchvision: within the bounds")


def test_cli_refuses_what_cannot_run(cli_parity, flowers, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = cli_parity(flowers, "--backend", "dali")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "use data.backend=dali-cpu or cpu" in err
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    code, _, err = cli_parity(flowers, "--backend", "dali-cpu")
    assert (code, len(err.splitlines())) == (2, 1)
    assert 'NVIDIA DALI is not installed; on Linux: pip install "flowerfast[dali]"' in err
    monkeypatch.setattr(parity, "numba_problem", lambda: "numba is not installed; pip install numba")
    code, _, err = cli_parity(flowers)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "nothing else is there to compare, for numba is not installed" in err
    code, _, err = cli_parity("nowhere", "--backend", "cpu")
    assert (code, "no such folder" in err) == (2, True)
    code, _, err = cli_parity(flowers, "--backend", "cpu", "--run", "nowhere")
    assert (code, "no trained model there" in err) == (2, True)
    assert cli_parity(flowers, "--samples", 0)[0] == 2


def test_cli_takes_the_models_own_crop_when_told_to(cli_parity, flowers, tmp_path):
    found = []
    for crop_pct, share in (("null", 0.95), ("0.875", 0.875), (None, 0.875)):
        more = () if crop_pct is None else ("--set", f"eval.crop_pct={crop_pct}")
        code, _, err = cli_parity(flowers, "--backend", "cpu", "--samples", 5, "--json", "result.json", *more)
        assert (code, err) == (0, "")
        found.append((json.loads((tmp_path / "result.json").read_text())["crop_pct"], share))
    assert all(said == share for said, share in found)


class DarkOrLight(torch.nn.Module):
    """A model of two classes: uint8 (N, 3, S, S) to logits (N, 2)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = images.float().mean((1, 2, 3)) - 127.5
        return torch.stack([-light, light], 1)


def test_cli_counts_where_a_models_answers_differ(
    cli_parity, flowers, sabotage: Arrange, tmp_path, monkeypatch
):
    trained = TrainedModel(DarkOrLight(), ("dark", "light"), 32, 0.8, CPU, "apply")
    monkeypatch.setattr(parity, "load_run", lambda run, device: trained)
    arguments = (flowers, "--backend", "cpu", "--run", "run", "--json", "result.json")
    for mistake, share in ((None, 0), ("inverted", 1)):
        if mistake:
            sabotage(mistake)
        _, out, _ = cli_parity(*arguments)
        assert f"{share:.2%}" in out
        result = json.loads((tmp_path / "result.json").read_text())
        assert (result["run"], result["image_size"], result["crop_pct"]) == ("run", 32, 0.8)
        shares = {step["step"]: step["top1_differs"] for step in result["steps"]}
        assert shares == {step: share if step in BOUNDS.steps else None for step in STEPS}
