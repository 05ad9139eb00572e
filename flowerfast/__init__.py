"""Fine-tune an image classifier on a folder of photos without waiting for the data.

    import flowerfast as ff

    train, val = ff.Photos("photos").split(0.2, seed=0)
    with ff.Loader(train, size=224, batch_size=64, augment=ff.Augment()) as loader:
        for epoch in range(10):
            for images, labels in loader.epoch(epoch):
                ...

The names below are the public ones. Each is imported when it is first used: `import flowerfast` alone imports
neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flowerfast.augment import Augment
    from flowerfast.config import DataConfig, EvalConfig
    from flowerfast.errors import RunFailed, Stopped, UserError
    from flowerfast.exporting.export import Exported, export
    from flowerfast.fetching.fetch import Fetched, fetch
    from flowerfast.loaders.batch import Batch
    from flowerfast.loaders.loader import Loader
    from flowerfast.photos.photos import Photos
    from flowerfast.scanning.scan import ScanResult, scan
    from flowerfast.training.callbacks import Callback, RunFacts
    from flowerfast.training.compare import Report, report
    from flowerfast.training.evaluate_run import evaluate
    from flowerfast.training.model import with_normalisation
    from flowerfast.training.run import TrainResult, train
    from flowerfast.training.trained import Prediction, TrainedModel, load_run
    from flowerfast.training.tune import TuneResult, tune

_HOMES = {
    "Augment": "augment",
    "Batch": "loaders.batch",
    "Callback": "training.callbacks",
    "DataConfig": "config",
    "EvalConfig": "config",
    "Exported": "exporting.export",
    "Fetched": "fetching.fetch",
    "Loader": "loaders.loader",
    "Photos": "photos.photos",
    "Prediction": "training.trained",
    "Report": "training.compare",
    "RunFacts": "training.callbacks",
    "RunFailed": "errors",
    "ScanResult": "scanning.scan",
    "Stopped": "errors",
    "TrainResult": "training.run",
    "TrainedModel": "training.trained",
    "TuneResult": "training.tune",
    "UserError": "errors",
    "evaluate": "training.evaluate_run",
    "export": "exporting.export",
    "fetch": "fetching.fetch",
    "load_run": "training.trained",
    "report": "training.compare",
    "scan": "scanning.scan",
    "train": "training.run",
    "tune": "training.tune",
    "with_normalisation": "training.model",
}

__all__ = [
    "Augment",
    "Batch",
    "Callback",
    "DataConfig",
    "EvalConfig",
    "Exported",
    "Fetched",
    "Loader",
    "Photos",
    "Prediction",
    "Report",
    "RunFacts",
    "RunFailed",
    "ScanResult",
    "Stopped",
    "TrainResult",
    "TrainedModel",
    "TuneResult",
    "UserError",
    "evaluate",
    "export",
    "fetch",
    "load_run",
    "report",
    "scan",
    "train",
    "tune",
    "with_normalisation",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'flowerfast' has no attribute {name!r}")
    value: object = getattr(import_module(f"flowerfast.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
