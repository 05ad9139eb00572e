"""What commands have in common: options, the settings that each looks at, what is refused at once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flowerfast.commands.completion import complete_setting
from flowerfast.commands.find import check_folder
from flowerfast.commands.usage import SHORT
from flowerfast.errors import UserError
from flowerfast.places import in_full, spelled, url_of

PhotosOrFlowers = Annotated[
    Path | None,
    typer.Argument(
        help="Folder of class folders, or of shards, or their URL, or a table. Default: rendered flowers."
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Take these classes alone, in this order: rose,tulip, or a file of a name per line; short for "
        "--set data.classes=...",
    ),
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        metavar="[auto|cpu|dali-cpu|dali]",
        help="Who decodes and augments; auto: cpu, on a CUDA GPU with DALI the faster of dali and cpu if "
        "`bench` has measured them, else dali.",
    ),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result as JSON; - for standard output.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one setting; may be given often.",
        autocompletion=complete_setting,
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but warnings, errors and the result.")
]
LogJsonOption = Annotated[
    bool,
    typer.Option(
        "--log-json", help="Write every event as a line of JSON on standard output, and nothing else there."
    ),
]


# Settings that each command looks at; any other is refused, not ignored.
LABELS = (
    *("data.layout", "data.classes", "data.path_column", "data.label_column", "data.split_column"),
    *("data.label_separator", "data.label_columns"),
)
FILES = (*LABELS, "data.workers", "data.on_bad", "data.max_bad", "data.max_pixels")
PACKING = (*FILES, "data.exif")
LOADING = (
    "data.backend",
    "data.kernels",
    "data.gpu_kernels",
    "data.decode_scale",
    "data.prefetch",
    "data.dali_prefetch",
)
READING = (*FILES, *LOADING)
SCANNING = (
    *(*LABELS, "data.workers", "data.max_pixels", "data.exif", "data.val_fraction"),
    "train.seed",
)
PROTOCOL = ("eval.image_size", "eval.crop_pct", "eval.flip", "eval.threshold", "train.device")
PARITY = (
    *READING,
    "data.exif",
    "data.path",
    "data.image_size",
    "data.decoder",
    "data.hw_decoder_load",
    "augment.",
    "model.name",
    "eval.crop_pct",
    "train.batch_size",
    "train.device",
    "train.seed",
)


def kept(data: Path | str | None) -> tuple[str, ...]:
    """Settings of what this machine keeps of DATA: nothing but of a URL."""
    return () if data is None or url_of(data) is None else ("data.cache_dir", "data.cache_gb")


def chosen_settings(set_: list[str] | None, data: Path | None = None, **options: Any) -> dict[str, Any]:
    """Settings by key, of DATA, of the options that stand for one, and of --set; one key has one value."""
    from flowerfast.settings import parse_overrides  # which take longer to import than --help shall take

    given = {f"--{name.replace('_', '-')}": value for name, value in options.items() if value is not None}
    keys = SHORT | {"--backend": "data.backend"}
    chosen: dict[str, Any] = {} if data is None else {"data.path": in_full(data)}
    chosen |= {keys[option]: value for option, value in given.items()}
    typed = {keys[option]: f"{option} {value}" for option, value in given.items()}
    typed["data.path"] = spelled(data or "")
    for key, value in parse_overrides(set_ or []).items():
        if key in chosen and chosen[key] != value and not _same_folder(key, chosen[key], value):
            raise UserError(f"{typed[key]} and --set {key}={value}: which of the two? give one of them")
        chosen.setdefault(key, value)
    return chosen


def _same_folder(key: str, one: Any, other: Any) -> bool:
    return key == "data.path" and isinstance(other, str) and one == in_full(other)


def check_start(config: str | None, settings: dict[str, Any]) -> None:
    """Refuse what can be refused at once: settings, bounds, a folder that is not there."""
    from flowerfast.settings import start_config

    path = start_config(config, settings).data.path
    if path is not None:
        check_folder(Path(path))
