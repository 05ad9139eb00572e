"""The command that draws what training sees."""

from pathlib import Path
from typing import Annotated

import typer

from flowerfast.commands.find import check_folder, check_outputs
from flowerfast.commands.options import (
    FILES,
    ClassesOption,
    JsonFile,
    PhotosOrFlowers,
    SetOption,
    chosen_settings,
)
from flowerfast.commands.output import out, say, say_compiling, write_json, writing_to
from flowerfast.errors import UserError
from flowerfast.places import spelled

_USED = (
    *FILES,
    *("data.kernels", "data.gpu_kernels", "data.decode_scale", "data.decoder", "data.hw_decoder_load"),
    *("data.cache", "data.cache_gb", "data.cache_dir", "data.cache_side"),
    *("data.exif", "data.path", "data.image_size", "data.val_fraction", "data.order"),
    *("augment.", "train.batch_size", "train.sampling", "train.seed", "train.device"),
)


def show(
    out_: Annotated[Path, typer.Option("--out", help="The sheet: .png, .jpg or .pdf.")],
    data: PhotosOrFlowers = None,
    samples: Annotated[int, typer.Option(min=1, help="Photos, a row each.")] = 4,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs, a column each. Default: 3, of several backends 1.")
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="A column after each step of the first epoch's plan.")
    ] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Who makes the pixels: auto, cpu, dali-cpu, dali, torchvision (the reference). Of several, "
            "as cpu,dali-cpu, all stand side by side, with the difference from the first x16. "
            "Default: as in training; with --steps the reference.",
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Config file, or a name: paper, cpu, fast, demo.")
    ] = None,
    classes: ClassesOption = None,
    set_: SetOption = None,
    json_: JsonFile = None,
) -> None:
    """Draw photos as training sees them, with the numbers of their augmentation, on one contact sheet.

    The pixels are those of the training half's batches, in the first epochs, exactly (in a PNG).
    """
    from flowerfast.settings import refuse_unused, start_config

    refuse_unused(set_ or [], "show", _USED)
    chosen = chosen_settings(set_, data, classes=classes)
    settings = start_config(config, chosen)
    folder = None if settings.data.path is None else Path(settings.data.path)
    if folder is not None:
        check_folder(folder)
    files = {"out": out_, "json": json_}
    check_outputs(files, data=folder, path_column=settings.data.path_column)
    from flowerfast.showing.sheet import check_format, check_size

    check_format(out_)
    names = _names(backend or ("torchvision" if steps else settings.data.backend))
    if steps and (epochs or 1) > 1:
        raise UserError(f"--steps --epochs {epochs}: steps are of the first epoch; give one of the two")
    epochs = epochs or (3 if len(names) == 1 and not steps else 1)
    from flowerfast.commands.display import progress_bar
    from flowerfast.demo.synthetic import demo_photos
    from flowerfast.showing.cells import show as show_cells
    from flowerfast.showing.sheet import describe, draw, save
    from flowerfast.showing.steps import wanted_steps

    columns = len(wanted_steps(settings.augment)) + settings.augment.mixes if steps else epochs
    check_size(settings.data.image_size, samples, columns * (2 * len(names) - 1))
    said = say_compiling(settings.data.kernels) if len(names) > 1 else []
    with progress_bar(out, "drawing") as bar:
        shown = show_cells(settings, folder or demo_photos(bar), samples, epochs, names, steps, bar)
    say(note for note in shown.notes if note not in said)
    named = "rendered flowers" if folder is None else folder.resolve().name
    seed, size = settings.train.seed, settings.data.image_size
    sheet = draw(shown, f"{named}, {size} px, seed {seed}, {', '.join(shown.backends)}")
    with writing_to("out", out_):
        save(sheet, out_)
    if json_ != Path("-"):
        cells = sum(len(row.cells) for row in shown.rows)
        out.print(f"{cells} pictures of {len(shown.rows)} photos: {spelled(out_)}", soft_wrap=True)
    record = {"data": named, "image_size": size, "seed": seed}
    record |= {"augment": settings.augment.model_dump(mode="json")}
    write_json(json_, describe(shown, sheet, record))


def _names(text: str) -> list[str]:
    """Backends of a list with commas. Raises UserError for what is none, or is named twice."""
    from flowerfast.showing.cells import BACKENDS

    names = [name.strip() for name in text.split(",")]
    wrong = next((name for name in names if name not in BACKENDS), None)
    if wrong is not None:
        raise UserError(
            f"--backend {text}: {wrong or 'nothing'} is no backend; give any of {', '.join(BACKENDS)}"
        )
    if len({*names}) < len(names):
        raise UserError(f"--backend {text}: one is named twice; name each once")
    return names
