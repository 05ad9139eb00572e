"""A resumed run: what it may change, and what it keeps to."""

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.config import Config, known_keys
from flowerfast.errors import UserError
from flowerfast.files import to_json
from flowerfast.loaders.cache.choice import cache_places
from flowerfast.loaders.device import pick_device
from flowerfast.loaders.engine import choose_backend
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.settings import change_config
from flowerfast.training.progress import Standing
from flowerfast.training.run_folder import RunFolder

MAY_CHANGE = (
    "data.path",
    "data.layout",
    "data.classes",
    "data.path_column",
    "data.label_column",
    "data.split_column",
    "data.label_separator",
    "data.label_columns",
    "data.backend",
    "data.workers",
    "data.kernels",
    "data.gpu_kernels",
    "data.prefetch",
    "data.cache",
    "data.cache_gb",
    "data.cache_dir",
    "data.dali_prefetch",
    "data.on_bad",
    "data.max_bad",
    "train.compile",
    "train.patience",
    "checkpoints.keep",
    "checkpoints.every_seconds",
    "checkpoints.on_full",
    "log.tensorboard",
    "log.nvtx",
)
"""Settings that a resumed run may change: they do not alter what has been computed so far. Another backend is
within the bounds of `flowerfast parity`, a compiled network within rounding; another cache must give the
same pixels (`check_pixels`), and however the folder is read, it must hold the photos, labels and classes of
split.json."""
_PLACES = (
    *("path", "classes", "path_column", "label_column", "split_column"),
    *("label_separator", "label_columns"),
)


def began_with(config: Config) -> str:
    """A short digest of the settings that a run has when it begins, but for those that may change."""
    tree = config.model_dump(mode="json")
    parts = (key.partition(".") for key in known_keys() if key not in MAY_CHANGE)
    kept = {f"{section}.{name}": tree[section][name] for section, _, name in parts}
    return hashlib.sha256(to_json(kept).encode()).hexdigest()[:16]


def resume_config(stored: Config, changes: Mapping[str, Any]) -> Config:
    """Configuration of a resumed run. Raises UserError when it would alter what has been computed."""
    config = change_config(stored, (), changes)
    before, after = stored.model_dump(), config.model_dump()
    by_epoch = stored.train.schedule in ("step", "constant")
    for key in known_keys():
        section, _, name = key.partition(".")
        free = key in MAY_CHANGE or (key == "train.epochs" and by_epoch)
        if not free and before[section][name] != after[section][name]:
            if key == "train.epochs":
                raise UserError(
                    f"{key}={after[section][name]}: the run began with {before[section][name]}, on which its "
                    f"schedule {stored.train.schedule} depends; train on from its weights in a new run, "
                    "flowerfast train --from RUN"
                )
            raise UserError(
                f"{key}={after[section][name]!r}: the run began with {before[section][name]!r} and must keep "
                f"that; a resumed run may change {', '.join(MAY_CHANGE)}"
            )
    return config


def check_resume(
    out: Path | str | None, config: Path | str | None, start_from: Path | str | None
) -> RunFolder:
    """The folder of the run to go on with. Raises UserError where that makes no sense."""
    if start_from is not None:
        raise UserError(
            f"--from {start_from}: a resumed run goes on with its own weights; drop --from or --resume"
        )
    if out is None:
        raise UserError("--resume: name the run to go on with, --out RUN")
    if config is not None:
        raise UserError(
            f"--config {config}: a resumed run keeps its own config.yaml; drop --config or --resume"
        )
    folder = RunFolder(Path(out))
    if not folder.path.is_dir():
        folder.open()  # which says that there is no run
    return folder


def reopen(folder: RunFolder, changes: Mapping[str, Any]) -> tuple[Config, dict[str, Any] | None]:
    """The run to go on with: its configuration, changed, and its last save, None before the first."""
    stored = folder.open()
    folder.check_places()
    if folder.is_unsaved():
        return change_config(stored, (), changes), None
    saved = folder.load_last()
    if not folder.split.is_file():
        raise UserError(f"{folder.split}: missing; bring it back, or start a new run")
    mine = folder.identity()
    if saved.get("loader", {}).get("run", mine) != mine:  # absent from what earlier versions saved
        raise UserError(
            f"{folder.last}: of another run, or {folder.config.name} or {folder.split.name} is not as the "
            "run wrote it; bring back those of this run, or start a new run"
        )
    config = resume_config(stored, changes)
    check_length(config, stored, saved)
    return as_recorded(config, stored, saved), saved


def as_recorded(config: Config, stored: Config, saved: Mapping[str, Any]) -> Config:
    """The settings with what the run chose when it began, backend, cache, share of the hardware decoder and
    compiling, where that still can be had.

    What `auto` would choose today may be something else, with other pixels.
    """
    record: dict[str, Any] = dict(saved.get("loader", {}))
    changes: dict[str, Any] = {}
    if "backend" in record and config.data.backend == stored.data.backend:
        changes["data.backend"] = record["backend"]
        try:
            choose_backend(change_config(config, (), changes).data, pick_device(config.train.device))
        except UserError:  # not on this machine
            changes = {}
    if "cache" in record and config.data.cache == stored.data.cache:
        backend = changes.get("data.backend", config.data.backend)
        cache, places = record["cache"], cache_places(backend, pick_device(config.train.device))
        if cache != "none" and cache not in places:
            cache = "auto" if backend == "auto" else places[0]
        changes["data.cache"] = cache
    if "hw_decoder_load" in record and stored.data.hw_decoder_load == "auto":
        changes["data.hw_decoder_load"] = record["hw_decoder_load"]
    if "compile" in record and config.train.compile == stored.train.compile:
        chose = "off" if record["compile"] == "off" else "on"
        if chose == "off" or pick_device(config.train.device).type == "cuda":
            changes["train.compile"] = chose
    if changes.get("data.backend") == "dali" and config.data.gpu_kernels == stored.data.gpu_kernels == "auto":
        # A run from before there were kernels of our own, or where they failed, keeps DALI's pixels.
        changes["data.gpu_kernels"] = "auto" if record.get("gpu_kernels") == "triton" else "dali"
    return change_config(config, (), changes)


def check_length(config: Config, stored: Config, saved: Mapping[str, Any]) -> None:
    """Raise UserError when a resumed run is given another number of epochs and would not heed it."""
    epochs = config.train.epochs
    if epochs == stored.train.epochs:
        return
    done = len(saved["progress"]["history"])
    if epochs < done:
        raise UserError(f"train.epochs={epochs}: the run has {done} epochs already; give as many or more")
    patience = config.train.patience
    if epochs > done and Standing(**saved["progress"]).out_of_patience(patience):
        raise UserError(
            f"train.epochs={epochs}: train.patience={patience} ended the run after {done} epochs; to go on "
            "set train.patience=null or a higher one"
        )


def keep_changes(config: Config, folder: RunFolder) -> None:
    """Have config.yaml say how long a resumed run is now, and where its photos are."""
    stored = folder.open()
    places = {f"data.{name}": getattr(config.data, name) for name in _PLACES}
    changed = change_config(stored, (), {"train.epochs": config.train.epochs, **places})
    if changed != stored:
        folder.write_config(changed)


def photo_sizes(train: Photos, val: Photos) -> int:
    """A number that tells whether all photos of both halves have the sizes they had."""
    rows = np.sort(np.concatenate([train.indices, val.indices]))
    sizes = np.stack([train.table.width[rows], train.table.height[rows]])
    return zlib.crc32(np.ascontiguousarray(sizes).data)


def check_pixels(loader: Loader, val: Photos, saved: Mapping[str, Any], config: Config) -> None:
    """Raise UserError when a resumed run would see other pixels than the run that was saved."""
    record, sizes = saved.get("loader", {}), photo_sizes(loader.photos, val)
    if record.get("photo_sizes", sizes) != sizes:  # absent from what earlier versions saved
        raise UserError(
            f"{loader.photos.source}: photos have other sizes in pixels than when the run began; bring "
            "those back or start a new run"
        )
    short = int(np.minimum(*loader.photos.sizes(loader.photos.indices)).max())
    before = record.get("cache", loader.cache)
    if (before == "none") != (loader.cache == "none") and short > config.data.cache_side:
        raise UserError(
            f"data.cache={loader.cache}: the run began with {before}, and a cache shrinks these photos to "
            f"data.cache_side={config.data.cache_side}; set data.cache={before}"
        )
