"""The clock of the stages."""

import pytest

from flowerfast.bench.sources import sample
from flowerfast.bench.stages import StageClock, cold_read
from flowerfast.config import DataConfig
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.settings import load_config
from tests.bench.small import CPU, slower_decode, tiny

pytestmark = pytest.mark.usefixtures("short_rounds")


def test_a_cached_photo_is_neither_read_nor_decoded_again(photo_folder, monkeypatch):
    config = tiny(photo_folder(), "data.cache=ram")
    clock = StageClock(config, Photos(str(config.data.path)), "ram")
    clock.warm_up()
    slower_decode(monkeypatch, 0.05)
    stages = clock.measure(2, CPU)
    clock.close()
    assert stages["rows"]["decode"]["ms"] < 50
    assert stages["rows"]["read"]["ms"] < stages["loader_ms"] < 50


@pytest.mark.parametrize("packed", [False, True])
def test_a_cold_read_is_measured_or_says_why_not(photo_folder, tmp_path, packed):
    folder = photo_folder()
    if packed:
        pack(folder, tmp_path / "packed", PackSettings(), DataConfig())
    figures = cold_read(Photos(tmp_path / "packed" if packed else folder), 3)
    assert ("ms" in figures) != ("not_measured" in figures)
    assert "mapped" not in figures.get("not_measured", "")


@pytest.mark.real_data
def test_stages_of_real_photos_are_all_there(real_photos):
    clock = StageClock(load_config(), sample(Photos(real_photos), 32))
    clock.warm_up()
    stages = clock.measure(5, CPU)
    clock.close()
    assert max(stages["rows"], key=lambda name: stages["rows"][name]["ms"]) in ("decode", "crop+resize")
