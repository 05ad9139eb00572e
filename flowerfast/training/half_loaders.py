"""The loaders of a run's two halves, as the settings have them."""

import torch

from flowerfast.config import Config
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.ranks.who import current


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
        sampling=config.train.sampling,
    )


def validation_loader(
    config: Config, photos: Photos, crop_pct: float, device: torch.device, augmented: bool
) -> Loader:
    """Loader of the other half: clean or augmented, never cached, decoded once where memory allows.

    A batch has a sample of each rank at least, for it makes no difference to the answers.
    """
    batch_size = config.eval.batch_size or config.train.batch_size
    return Loader(
        photos,
        size=config.eval.image_size or config.data.image_size,
        batch_size=max(batch_size, current().world_size),
        augment=config.augment.unmixed() if augmented else None,
        shuffle=False,
        seed=config.train.seed,
        crop_pct=crop_pct,
        device=device,
        cache="none",
        options=config.data,
        keep=True,
    )
