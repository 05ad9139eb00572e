"""`flowerfast export`: a trained run to a folder that other programs read."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from flowerfast.arguments import path, place, progress_bars
from flowerfast.errors import UserError
from flowerfast.exporting.card import model_card
from flowerfast.exporting.check import Checked, check_onnx
from flowerfast.exporting.fresh import fresh_folder
from flowerfast.exporting.images import MOST, find_photos, opened
from flowerfast.exporting.onnx_file import check_packages, onnx_bytes
from flowerfast.exporting.push import check_hub, check_repository, push
from flowerfast.exporting.source import Source, read_source
from flowerfast.files import replacing, write_text
from flowerfast.machine import Progress, ProgressBars, no_bars
from flowerfast.photos.photos import Photos
from flowerfast.training.described import WEIGHTS
from flowerfast.training.seal import check

Form = Literal["onnx", "safetensors"]
ONNX, CARD = "model.onnx", "README.md"


@dataclass(frozen=True)
class Exported:
    """What was made.

    Attributes:
        folder: where it lies.
        format: "onnx" or "safetensors".
        files: bytes of each file by name.
        classes, image_size: of the model.
        checked: what the ONNX file was compared with PyTorch on; None for safetensors, which are copied.
        pushed: address of the repository; None: not asked for.
        notes: what there is to say, a line each.
    """

    folder: Path
    format: Form
    files: dict[str, int]
    classes: tuple[str, ...]
    image_size: int
    checked: Checked | None
    pushed: str | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Its fields, for a file."""
        return asdict(self) | {"folder": str(self.folder)}


def export(
    run: Path | str,
    out: Path | str | None = None,
    *,
    format: Form = "onnx",
    data: Path | str | None = None,
    push_to: str | None = None,
    public: bool = False,
    say: Callable[[str], None] = lambda _: None,
    bars: ProgressBars = no_bars,
) -> Exported:
    """Write a run's best model as ONNX, or as timm opens it, with a model card, to a new folder.

    Args:
        run: run folder, or its best/.
        out: folder to make; None: `format` in the run folder.
        format: "onnx": model.onnx, uint8 (N, 3, S, S) to probabilities (N, classes); "safetensors":
            config.json and model.safetensors, for `timm.create_model("local-dir:FOLDER", pretrained=True)`.
        data: photos on which an ONNX file is compared with PyTorch; None: those of the run's validation split
            where they are at hand, else made images, which `notes` says.
        push_to: OWNER/NAME of a repository of the Hugging Face hub to upload the folder to.
        public: make that repository public where it is new.
        say: is told what is done, a line at a time.
        bars: makes a progress bar with a title, which is told (done, total).

    Raises UserError when there is no trained model or it is damaged, `out` holds something, a package is
    missing, `data` holds no photos or the hub is out of reach; RunFailed when the exporter fails or the ONNX
    file does not answer as PyTorch does: then nothing is written.
    """
    run, bars = path("run", run), progress_bars(bars)
    if format not in get_args(Form):
        raise UserError(f"format={format!r}: give one of {', '.join(get_args(Form))}")
    data = None if data is None else place("data", data)
    if format == "onnx":
        check_packages()
    elif data is not None:
        raise UserError(f"--data {data}: only an ONNX file is checked on photos; drop it")
    if push_to is not None:
        check_repository(push_to)
        check_hub(push_to)
    source = read_source(run)
    folder = source.home / format if out is None else path("out", out)
    with fresh_folder(folder) as fresh:
        if format == "onnx":
            checked, notes = _write_onnx(source, fresh / ONNX, data, say, bars)
            names = [ONNX]
        else:
            checked, notes = None, []
            names = _copy(source.best, fresh)
        write_text(fresh / CARD, model_card(source, format, checked), durable=True)
        files = {name: (fresh / name).stat().st_size for name in (*names, CARD)}
    if source.summary is None:
        notes.append(f"the model card gives no accuracy: {source.missing}")
    pushed = None
    if push_to is not None:
        say(f"uploading {sum(files.values()) / 1e6:,.1f} MB to {push_to}")
        pushed = push(folder, push_to, public)
    classes, size = source.model.classes, source.model.image_size
    return Exported(folder, format, files, classes, size, checked, pushed, tuple(notes))


def _write_onnx(
    source: Source, file: Path, data: Path | None, say: Callable[[str], None], bars: ProgressBars
) -> tuple[Checked, list[str]]:
    """Write the file once it is known to answer as the model; what it was checked on, and notes."""
    with bars("reading headers") as bar:
        photos, on, note = find_photos(source, data, bar)
    say(f"exporting {source.described.architecture} to ONNX: seconds, of large networks minutes")
    content = onnx_bytes(source)
    notes = [note] if note else []
    with bars("checking") as bar:
        try:
            checked = _checked(source, content, photos, on, bar)
        except _NoImages:
            if data is not None:
                raise UserError(f"--data {data}: no photo there can be read; give others") from None
            notes.append("no photo of the run's validation split can be read: checked on made images")
            checked = _checked(source, content, None, "made images", bar)
    with replacing(file, durable=True, needed=len(content)) as fresh:
        fresh.write_bytes(content)
    return checked, notes


class _NoImages(Exception):
    """Not one photo could be read."""


def _checked(source: Source, content: bytes, photos: Photos | None, on: str, bar: Progress | None) -> Checked:
    with opened(source, photos) as batches:
        total = len(photos) if photos is not None else MOST
        checked = check_onnx(content, source.model, batches, on, total, bar)
    if not checked.photos:
        raise _NoImages
    return checked


def _copy(best: Path, fresh: Path) -> list[str]:
    """Copy what timm opens, and compare it with its checksum."""
    names = ["config.json", WEIGHTS]
    for name in names:
        with replacing(fresh / name, durable=True, needed=(best / name).stat().st_size) as file:
            shutil.copyfile(best / name, file)
        check(fresh / name)
    return names
