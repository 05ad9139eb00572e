"""Networks, their normalisation, and where their weights come from."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn

from flowerfast.config import ModelConfig
from flowerfast.errors import UserError
from flowerfast.pixels.reference import augment
from flowerfast.plans.plan import make_eval_plan
from flowerfast.training.model import (
    build_network,
    describe,
    own_crop_pct,
    pretrained_cfg,
    with_normalisation,
)

THREE = ("daisy", "rose", "tulip")


# ---------------------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])  # of different mean and deviation
def test_uint8_pixels_give_the_logits_of_normalised_floats(build, name):
    network = build(name).eval()
    cfg = timm.get_pretrained_cfg(name)
    images = torch.randint(
        0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (cfg.mean, cfg.std))
    model = with_normalisation(network).eval()
    with torch.inference_mode():
        expected = network((images.double() / 255 - mean).div(std).float())
        found = model(images)
        strided = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(strided, found, rtol=1e-4, atol=1e-5)
    assert found.shape == (4, 3)


def test_normalisation_is_exact_at_the_ends_of_the_range(build):
    model = with_normalisation(build("test_efficientnet"))
    model.network = nn.Identity()
    black, white = (torch.full((1, 3, 1, 1), v, dtype=torch.uint8) for v in (0, 255))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(model(black).flatten(), -mean / std)
    torch.testing.assert_close(model(white).flatten(), (1 - mean) / std)


def test_normalisation_follows_the_models_dtype_and_is_no_weight(build):
    model = with_normalisation(build())
    assert all(key.startswith("network.") for key in model.state_dict())
    assert model.double()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).dtype == torch.float64


# ------------------------------------------------------------------------------------- building networks


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_network_describes_its_preprocessing(build, name):
    cfg = pretrained_cfg(build(name, size=48))
    assert cfg["input_size"] == (3, 48, 48)
    assert (cfg["crop_mode"], cfg["interpolation"], cfg["num_classes"]) == ("center", "bilinear", 3)
    assert (cfg["mean"], cfg["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_crop_of_the_models_own_preprocessing():
    own = build_network(ModelConfig(name="test_resnet", pretrained=False), THREE, 32, None)
    assert round(32 / pretrained_cfg(own)["crop_pct"]) == round(32 / 0.95)
    assert own_crop_pct("test_resnet") == own_crop_pct("resnet18") == 0.95
    assert own_crop_pct("resnet10t") == timm.get_pretrained_cfg("resnet10t").crop_pct


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnet81", "resnet18"),
        ("ResNet-18", "resnet18"),
        ("resnet18_imagenet", "resnet18"),
        ("efficientnet_lite", "efficientnet_lite0"),
        ("tf_efficientnet_lite.in1k", "tf_efficientnet_lite0"),
        ("mobilenet_v2", "mobilenetv2_035"),
        ("convnext_tinny", "convnext_tiny"),
        ("resnext", "resnext26ts"),
        ("vit", "vit_base_mci_224"),
        ("densenet_9000_special", "densenet121"),
        ("yolov8", None),
        ("zzz", None),
    ],
)
def test_an_unknown_model_is_refused_with_one_like_it_or_none(typed: str, meant: str | None) -> None:
    with pytest.raises(UserError) as caught:
        own_crop_pct(typed)
    line = str(caught.value)
    assert line.startswith(f"model.name={typed!r}: timm has no such model")
    if meant is None:
        assert line.endswith(", and none that is spelt alike; timm.list_models() in Python names all")
    else:
        assert f"; did you mean '{meant}'" in line


def test_networks_do_not_share_their_description(build):
    first, second = build(size=32), build(size=64, classes=("a", "b"))
    assert pretrained_cfg(first)["input_size"] == (3, 32, 32)
    assert pretrained_cfg(second)["num_classes"] == 2
    assert timm.get_pretrained_cfg("test_resnet").input_size == (3, 160, 160)


def test_random_weights_come_from_torchs_seed(build):
    networks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        networks.append(build())
    first, same, other = ([*network.state_dict().values()] for network in networks)
    assert all(map(torch.equal, first, same))
    assert not all(map(torch.equal, first, other))


@pytest.mark.parametrize("name", ["test_vit", "test_coatnet"])
def test_network_of_a_fixed_size_is_built_for_the_image_size(build, name):
    network = build(name, size=96).eval()
    with torch.inference_mode():
        assert with_normalisation(network)(torch.zeros(2, 3, 96, 96, dtype=torch.uint8)).shape == (2, 3)


# ------------------------------------------------------------------- the description and timm's own transform

DESCRIBED = {
    (cfg.crop_mode, cfg.interpolation, cfg.crop_pct): cfg
    for cfg in map(timm.get_pretrained_cfg, timm.list_pretrained())
}
"""A description of timm's for each way in which it prepares photos."""


def test_timm_has_many_ways_to_prepare_photos():
    assert {"center", "squash"} <= {mode for mode, _, _ in DESCRIBED}
    assert len(DESCRIBED) > 20


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("size", [224, 97])
def test_timms_transform_of_a_description_gives_our_evaluation_pixels(own, size, write_photo, tmp_path):
    sizes = (333, 250), (250, 347), (120, 120)
    photos = [Image.open(write_photo(tmp_path / f"{i}.png", wh, i)) for i, wh in enumerate(sizes)]
    for source in DESCRIBED.values():
        cfg = dict(source.to_dict())
        crop_pct = float(source.crop_pct) if own else 0.875
        describe(cfg, 3, size, None if own else 0.875)
        transform = create_transform(**resolve_data_config(pretrained_cfg=cfg), is_training=False)
        mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        for photo in photos:
            given = ((transform(photo) * std + mean) * 255).round().byte().permute(1, 2, 0).numpy()
            for share in (crop_pct, cfg["crop_pct"]):  # that of the run, and that of who reads best/
                wide, high = np.array([photo.width]), np.array([photo.height])
                plan = make_eval_plan(np.zeros(1), (wide, high), size, share)
                ours = np.empty((size, size, 3), np.uint8)
                augment(np.array(photo), plan, 0, ours)
                off = np.abs(given.astype(int) - ours)  # each rounds after either pass of its resize
                assert off.max() <= 2, source
                assert off.mean() < 0.25, source
