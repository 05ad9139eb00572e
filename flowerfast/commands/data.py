"""Commands that make photos: packed into shards, or rendered."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flowerfast.commands.find import check_folder, check_outputs
from flowerfast.commands.options import (
    PACKING,
    ClassesOption,
    JsonFile,
    LogJsonOption,
    QuietOption,
    SetOption,
    chosen_settings,
    kept,
)
from flowerfast.commands.output import complain, out, print_packed, say_compiling, write_json
from flowerfast.commands.speech import choose_speech
from flowerfast.errors import UserError
from flowerfast.places import spelled


class Format(StrEnum):
    """What photos are packed as."""

    keep = "keep"
    jpg = "jpg"


def pack(
    data: Annotated[
        Path, typer.Argument(help="Folder of class folders, or of train/, val/, test/, or a table.")
    ],
    out_: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Folder for the shards, new or empty, or a URL.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Shrink photos to this many pixels on their short side (never enlarged). Default: copy all.",
        ),
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="jpg: photos of other formats become JPEG, for other readers.")
    ] = Format.keep,
    seekable: Annotated[
        bool,
        typer.Option(
            "--seekable",
            help="Write JPEGs anew, without loss, so that a crop is decoded without what is around it.",
        ),
    ] = False,
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="JPEG quality of shrunk and re-coded photos.")
    ] = 90,
    shard_size: Annotated[float, typer.Option(min=0.001, help="Size of a shard at most, in MB.")] = 500,
    part: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Pack the K-th of N parts, each by a job of its own."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the shards in DATA with their checksums instead.")
    ] = False,
    classes: ClassesOption = None,
    json_: JsonFile = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    log_json: LogJsonOption = False,
) -> None:
    """Pack photos into WebDataset tar shards, which train, evaluate and parity take like a folder.

    Photos that need neither shrinking nor another format are copied byte for byte, EXIF and all; others are
    turned upright, unless data.exif=ignore, and have none. With --seekable the coefficients of a JPEG stay,
    so its pixels, and EXIF and all, and are coded anew; a progressive one becomes baseline. Stopped in the
    middle, the same command goes on.
    A copy is not decoded: damage behind a photo's header is packed too, and named by whoever decodes it.
    With --part each of N jobs packs into a folder of its own in OUT, which is read like any shards when all
    are there. What goes to a URL is packed in the user's cache folder and then copied.
    --verify compares with what was packed, and exits with 1 when photos are damaged since.
    """
    choose_speech("pack", quiet, log_json, json_)
    from flowerfast.settings import load_config, refuse_unused

    if verify:
        refuse_unused(set_ or [], "pack --verify", ("data.workers",))
    refuse_unused(set_ or [], "pack", (*PACKING, *kept(data)))
    if verify and classes is not None:
        raise UserError(f"--classes {classes}: --verify looks at all that is packed; drop one of the two")
    config = load_config(None, (), chosen_settings(set_, classes=classes)).data
    check_folder(data)
    check_outputs({"json": json_}, data=data, folder=out_, path_column=config.path_column)
    from flowerfast.commands.display import progress_bar
    from flowerfast.packing.pack import pack as pack_photos
    from flowerfast.packing.parts import parse_part
    from flowerfast.packing.shard_writer import PackSettings
    from flowerfast.packing.verify import damaged

    if verify:
        if out_ is not None:
            raise UserError(f"--verify {data} {out_}: give one folder, the shards to check")
        with progress_bar(out, "checking") as bar:
            spoilt = damaged(data, config.workers, bar)
        for photo in spoilt:
            complain(f"damaged: {spelled(data / photo)}")
        if json_ != Path("-"):
            what = f"{len(spoilt)} photos are not" if spoilt else "all photos are"
            out.print_result(f"{spelled(data)}: {what} as they were packed")
        write_json(json_, {"damaged": spoilt})
        raise typer.Exit(1 if spoilt else 0)
    if out_ is None:
        raise UserError(f"pack {data}: say where the shards go, flowerfast pack DATA OUT")
    jpeg = format_ is Format.jpg
    if seekable:
        say_compiling("numba")
    settings = PackSettings(max_side, quality, round(shard_size * 1e6), jpeg=jpeg, seekable=seekable)
    bars, wanted = partial(progress_bar, out), None if part is None else parse_part(part)
    result = pack_photos(data, out_, settings, config, bars, wanted)
    if json_ != Path("-"):
        print_packed(result, out_)
    write_json(json_, result.to_json())


def synth(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    per_class: Annotated[
        int, typer.Option("--per-class", min=1, help="Photos of each of the five kinds.")
    ] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other flowers.")] = 0,
) -> None:
    """Render five kinds of flowers as JPEGs: a data set for trying things out."""
    from flowerfast.commands.display import progress_bar
    from flowerfast.demo.synthetic import CLASSES, synthesize

    total = per_class * len(CLASSES)
    with progress_bar(out, "rendering flowers") as bar:
        synthesize(folder, per_class, seed, progress=lambda done: bar(done, total))
    out.print(f"{total} photos of {', '.join(CLASSES)} in {folder}", soft_wrap=True)
