"""Which loaders stand beside the present one, and what each of them changes."""

from dataclasses import replace

import pytest
import torch

from flowerfast.bench.trials import loader_trials, overrides, pack_sample
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config
from tests.bench.small import bench_of, tiny

pytestmark = pytest.mark.usefixtures("short_rounds")


def test_each_trial_changes_one_thing(photo_folder):
    trials, _ = loader_trials(bench_of(tiny(photo_folder())), quick=False)
    names = [trial.name for trial in trials]
    assert names[0] == "cpu"
    assert {"cpu, ram cache", "cpu, disk cache", "cpu, batch 16"} <= {*names}
    assert not any("packed" in name or "decode_scale" in name for name in names)  # photos are small already
    assert len({*names}) == len(names)


@pytest.mark.parametrize(
    ("decoder", "names"),
    [("cpu", ["dali, decoder=gpu", "dali, decoder=gpu, load=0", "dali, decoder=gpu, load=0.1",
              "dali, decoder=gpu, load=0.65"]),
     ("gpu", ["dali, decoder=gpu, load=0", "dali, decoder=gpu, load=0.1", "dali, decoder=gpu, load=0.65"])],
)  # fmt: skip
def test_shares_of_the_hardware_decoder_are_set_beside(photo_folder, monkeypatch, decoder, names):
    settings = pytest.importorskip("flowerfast.loaders.dali.settings")
    monkeypatch.setattr(settings, "choose_share", lambda data, device, photos: 0.2)
    config = tiny(photo_folder(), "data.backend=dali", f"data.decoder={decoder}", "data.cache_gb=1")
    trials, _ = loader_trials(replace(bench_of(config), device=torch.device("cuda")), quick=False)
    by_gpu = [trial for trial in trials if "decoder" in trial.name]
    assert [trial.name for trial in by_gpu] == names
    for trial in by_gpu:
        data, load = trial.config(bench_of(config)).data, float(trial.name.partition("load=")[2] or 0.2)
        assert (data.decoder, data.hw_decoder_load) == ("gpu", load)
        assert trial.about(bench_of(config))["hw_decoder_load"] == load


def test_a_cache_without_room_for_all_is_left_out(photo_folder):
    config = tiny(photo_folder(), "data.cache_gb=0.00001")
    trials, left_out = loader_trials(bench_of(config), quick=False)
    assert not any("cache" in trial.name for trial in trials)
    assert "the budget is" in left_out["cpu, ram cache"]


def test_with_a_cache_the_trial_is_to_do_without(photo_folder):
    trials, _ = loader_trials(bench_of(tiny(photo_folder(), "data.cache=ram")), quick=True)
    assert [t.name for t in trials[:2]] == ["cpu, ram cache", "cpu"]


def test_large_photos_are_packed_and_shrunk(photo_folder, tmp_path):
    bench = bench_of(tiny(photo_folder(sizes=[(300, 200)])), tmp_path / "scratch")
    trials, _ = loader_trials(bench, quick=False)
    by_setting = {trial.setting: trial for trial in trials}
    packed = by_setting["flowerfast pack --max-side 48"].data
    assert packed is not None
    photos = Photos(packed)
    assert len(photos) == 8
    assert set(photos.sizes(photos.indices)[1].tolist()) == {48}
    assert "data.decode_scale=auto" in by_setting


def test_packed_photos_are_not_packed_again(photo_folder, tmp_path):
    packed = pack_sample(bench_of(tiny(photo_folder(sizes=[(300, 200)])), tmp_path / "a"), 150)
    _, left_out = loader_trials(bench_of(tiny(packed), tmp_path / "b"), quick=False)
    assert left_out["cpu, packed --max-side 48"] == "the photos are packed already"


def test_overrides_make_the_same_configuration():
    paths = ["data.cache_dir=a: b", "model.weights=123"]
    texts = ["train.lr=0.5", *paths, "augment.crop_scale=[0.2, 0.9]", "train.amp=off"]
    config = load_config("paper", texts)
    assert load_config(None, overrides(config)) == config
