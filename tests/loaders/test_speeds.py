"""What was measured on this machine: kept, found again where it says something, ignored where it does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.config import DataConfig
from flowerfast.loaders import speeds
from flowerfast.loaders.speeds import Speed, compare, remember
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config

CUDA = torch.device("cuda")
CPU_ROW, DALI_ROW = {"backend": "cpu"}, {"backend": "dali"}
GPU = {"backend": "dali", "decoder": "gpu"}
Measure = Callable[..., Path]


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's GPU has a name, and DALI need not be installed."""
    monkeypatch.setattr(speeds, "device_name", lambda _: "NVIDIA Test")


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 2, "b": 2}, sizes=[(200, 100)]))


@pytest.fixture
def measured(photos: Photos) -> Measure:
    """Function ([(settings, images/s), ...], photos, image_size, spread) → file: a run that was measured."""

    def run(
        rows: list[tuple[dict[str, Any], float]],
        of: Photos = photos,
        image_size: int = 224,
        spread: float = 0.0,
    ) -> Path:
        made = [
            (DataConfig(**settings), {"images_per_sec": rate, "spread": spread * rate})
            for settings, rate in rows
        ]
        return remember(of, CUDA, load_config(None, [f"data.image_size={image_size}"]), made)

    return run


def rates(photos: Photos, *wanted: dict[str, Any], **common: Any) -> list[float] | None:
    found = compare(photos, CUDA, [DataConfig(**{**settings, **common}) for settings in wanted])
    return None if found is None else [speed.images_per_sec for speed in found[1]]


def test_what_was_measured_is_found_with_its_date(photos: Photos, measured: Measure) -> None:
    file = measured([(CPU_ROW, 18_000), (DALI_ROW, 10_400)])
    assert rates(photos, DALI_ROW, CPU_ROW) == [10_400, 18_000]
    stored = json.loads(file.read_text())
    assert stored["machine"]["gpu"] == "NVIDIA Test"
    (run,) = stored["runs"]
    assert (run["megapixels"], run["image_size"], run["batch_size"]) == (0.02, 224, 32)
    assert {"flowerfast", "torch"} <= {*run["versions"]}
    assert {*run["speeds"][0]} == {*Speed.model_fields}
    found = compare(photos, CUDA, [DataConfig(**CPU_ROW)])
    assert found is not None
    assert found[0] == run["date"]
    assert [*file.parent.iterdir()] == [file]  # nothing half written


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": "dali-cpu"}, {"cache": "ram"}, {"workers": 3}, {"kernels": "torchvision"},
        {"decode_scale": "auto"},
    ],
)  # fmt: skip
def test_other_settings_are_another_loader(
    photos: Photos, measured: Measure, settings: dict[str, Any]
) -> None:
    measured([(CPU_ROW, 5)])
    assert rates(photos, {**CPU_ROW, **settings}) is None
    measured([({**CPU_ROW, **settings}, 6)])
    assert rates(photos, {**CPU_ROW, **settings}) == [6]


def test_the_decoder_matters_to_dali_alone_and_an_open_share_is_the_fastest(
    photos: Photos, measured: Measure
) -> None:
    rows = [({**GPU, "hw_decoder_load": share}, 10 - abs(share - 0.2)) for share in (0.0, 0.2, 0.65)]
    measured([*rows, (DALI_ROW, 8), (CPU_ROW, 7), ({**DALI_ROW, "cache": "vram"}, 20)])
    found = compare(photos, CUDA, [DataConfig(**GPU)])
    assert found is not None
    assert found[1][0].hw_decoder_load == 0.2
    assert rates(photos, {**GPU, "hw_decoder_load": 0.65}) == [9.55]
    assert rates(photos, {**GPU, "hw_decoder_load": 0.3}) is None
    assert rates(photos, DALI_ROW) == [8]
    assert rates(photos, CPU_ROW, decoder="gpu", hw_decoder_load=0.3) == [7]
    assert rates(photos, GPU, cache="vram") == [20]


def test_of_two_ways_to_augment_the_one_asked_for_counts(photos: Photos, measured: Measure) -> None:
    rows = [({**DALI_ROW, "gpu_kernels": kernels}, rate) for kernels, rate in (("triton", 9), ("dali", 8))]
    measured([*rows, (CPU_ROW, 7)])
    found = [rates(photos, DALI_ROW, gpu_kernels=kernels) for kernels in ("auto", "triton", "dali")]
    assert found == [[9], [9], [8]]
    assert rates(photos, CPU_ROW, gpu_kernels="triton") == [7]


def test_only_loaders_that_were_measured_side_by_side_are_compared(photos: Photos, measured: Measure) -> None:
    measured([(CPU_ROW, 1), (DALI_ROW, 2)])
    measured([(CPU_ROW, 3)])
    assert rates(photos, CPU_ROW, DALI_ROW) == [1, 2]
    assert rates(photos, CPU_ROW) == [3]


@pytest.mark.parametrize(("side", "size", "near"), [(199, 224, True), (201, 224, False), (130, 224, True),
                                                  (49, 224, False), (100, 310, True), (100, 320, False),
                                                  (100, 160, True), (100, 155, False)])  # fmt: skip
def test_photos_and_images_must_be_within_a_factor_of_two_in_pixels(
    photos: Photos, photo_folder: Callable[..., Path], measured: Measure, side: int, size: int, near: bool
) -> None:
    others = Photos(photo_folder({"a": 1, "b": 1}, sizes=[(200, side)], name="others"))
    measured([(CPU_ROW, 9)], of=others, image_size=size)
    assert (rates(photos, CPU_ROW) is not None) == near


def test_the_nearest_counts_and_of_equals_the_newest(
    photos: Photos, photo_folder: Callable[..., Path], measured: Measure
) -> None:
    others = Photos(photo_folder({"a": 1, "b": 1}, sizes=[(200, 150)], name="others"))
    measured([(CPU_ROW, 1)])
    measured([(CPU_ROW, 2)])
    measured([(CPU_ROW, 3)], of=others)
    assert rates(photos, CPU_ROW) == [2]
    assert rates(others, CPU_ROW) == [3]


def test_noise_is_not_gone_by(photos: Photos, measured: Measure) -> None:
    measured([(CPU_ROW, 9)], spread=0.2)
    assert rates(photos, CPU_ROW) is None


def test_a_machine_with_other_cores_is_another_one(
    photos: Photos, measured: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured([({**CPU_ROW, "workers": 2}, 5)])
    for name, value in (
        ("usable_cores", lambda: 99), ("cpu_name", lambda: "another"), ("device_name", lambda _: "other")
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(speeds, name, value)
            assert rates(photos, {**CPU_ROW, "workers": 2}) is None
    assert rates(photos, {**CPU_ROW, "workers": 2}) == [5]


@pytest.mark.parametrize("package", ["flowerfast", "torch", "nvidia-dali-cuda120"])
def test_other_versions_are_measured_anew(
    photos: Photos, measured: Measure, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    measured([(CPU_ROW, 5)])
    newer = speeds.versions() | {package: "99.0"}
    monkeypatch.setattr(speeds, "versions", lambda: newer)
    assert rates(photos, CPU_ROW) is None
    measured([(CPU_ROW, 6)])
    assert rates(photos, CPU_ROW) == [6]
    monkeypatch.undo()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "", lambda text: text[: len(text) // 2], lambda text: "[]", lambda text: "\0" * 99,
        lambda text: text.replace('"schema_version": 1', '"schema_version": 0'),
        lambda text: text.replace('"images_per_sec": 5.0', '"images_per_sec": -1'),
        lambda text: text.replace('"images_per_sec": 5.0', '"images_per_sec": NaN'),
        lambda text: text.replace('"images_per_sec"', '"rate"'),
    ],
)  # fmt: skip
def test_a_damaged_or_older_file_is_as_none_and_is_replaced(
    photos: Photos, measured: Measure, damage: Callable[[str], str]
) -> None:
    file = measured([(CPU_ROW, 5)])
    whole = file.read_text()
    file.write_text(damage(whole))
    assert file.read_text() != whole
    assert rates(photos, CPU_ROW) is None
    measured([(CPU_ROW, 6)])
    assert rates(photos, CPU_ROW) == [6]
    file.write_bytes(b"\xff\xfe\xff")
    assert rates(photos, CPU_ROW) is None


def test_the_file_stays_small(photos: Photos, measured: Measure) -> None:
    for number in range(speeds._RUNS + 3):
        file = measured([(CPU_ROW, 1 + number)])
    runs = json.loads(file.read_text())["runs"]
    assert len(runs) == speeds._RUNS
    assert runs[-1]["speeds"][0]["images_per_sec"] == speeds._RUNS + 3


def test_no_photos_are_like_none_that_were_measured(photos: Photos, measured: Measure) -> None:
    measured([(CPU_ROW, 5)])
    assert rates(photos.subset([]), CPU_ROW) is None


def test_a_folder_that_cannot_be_written_is_the_callers_to_tell(
    photos: Photos, measured: Measure, own_cache: Path
) -> None:
    (own_cache / "speeds").touch()
    with pytest.raises(OSError, match="speeds"):
        measured([(CPU_ROW, 5)])
    assert rates(photos, CPU_ROW) is None
