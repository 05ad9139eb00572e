"""The loaders of a run's two halves, as the settings have them."""

import torch

from flowerfast.config import Config
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos


def training_loader(
    config: Config, photos: Photos, device: str | torch.device, fold_last: bool = False
) -> Loader:
    """Loader of the training half, as the settings have it."""
    return Loader(
        photos,
        size=config.data.image_size,
        batch_size=config.train.batch_size,
        augment=config.augment,
        seed=config.train.seed,
        device=device,
        options=config.data,
        fold_last=fold_last,
    )


def validation_loader(config: Config, photos: Photos, crop_pct: float, device: torch.device) -> Loader:
    """Loader of the other half: clean or augmented, never cached, decoded once where memory allows."""
    return Loader(
        photos,
        size=config.data.image_size,
        batch_size=config.eval.batch_size or config.train.batch_size,
        augment=config.augment.unmixed() if config.eval.augmented else None,
        shuffle=False,
        seed=config.train.seed,
        crop_pct=crop_pct,
        device=device,
        cache="none",
        options=config.data,
        keep=True,
    )
