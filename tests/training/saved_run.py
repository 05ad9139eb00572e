"""A run folder with a model that was never trained and that tells photos apart all the same."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from flowerfast.config import Exif, ModelConfig
from flowerfast.training.model import build_network
from flowerfast.training.run_folder import RunFolder

CLASSES = ("daisy", "rose", "tulip")


def save_run(
    path: Path, classes: Sequence[str] = CLASSES, exif: Exif = "apply", threshold: float | None = None
) -> nn.Module:
    """A run folder with a best model of random weights, whose answers differ from photo to photo."""
    torch.manual_seed(0)
    network = build_network(ModelConfig(name="test_resnet", pretrained=False), classes, 32, 0.8)
    network.eval()
    head = network.get_classifier()
    with torch.no_grad():
        blotches = nn.functional.interpolate(torch.rand(32, 3, 5, 7) * 2 - 1, (32, 32), mode="bicubic")
        features = network.forward_head(network.forward_features(blotches), pre_logits=True)
        head.weight.copy_(torch.randn(head.weight.shape) / features.std())
        head.bias.copy_(-head.weight @ features.mean(0))  # so that no class wins always
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True)
    folder.save_epoch(0, network.state_dict(), None)
    folder.save_best(network, classes, 0, exif, threshold=threshold)
    return network
