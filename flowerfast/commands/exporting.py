"""A trained run for other programs."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flowerfast.commands.find import check_folder, check_outputs, check_run
from flowerfast.commands.importing import without_collecting
from flowerfast.commands.options import JsonFile
from flowerfast.commands.output import out, print_exported, write_json
from flowerfast.errors import UserError


class Form(StrEnum):
    """What a run is written as."""

    onnx = "onnx"
    safetensors = "safetensors"


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or its best/.")],
    format_: Annotated[
        Form,
        typer.Option(
            "--format",
            help="onnx: model.onnx, pixels to probabilities; safetensors: a folder that timm opens.",
        ),
    ] = Form.onnx,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Folder to make. Default: RUN/onnx or RUN/safetensors.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Photos to check the ONNX file on: folder of class folders, or of shards, or URL, or table. "
            "Default: the run's own validation split."
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="Upload the folder to this repository of the Hugging Face hub."
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push: a new repository is public, not private.")
    ] = False,
    json_: JsonFile = None,
) -> None:
    """Write a run's best model for other programs, with a model card, to a folder.

    The ONNX file has normalisation and softmax inside, takes any number of images, and says in its metadata
    what its classes are called and how photos are resized and cut. It is compared with PyTorch before it is
    written: exit code 1 where the answers differ.
    """
    from flowerfast.exporting.push import check_repository

    if push is not None:
        check_repository(push)
    elif public:
        raise UserError("--public: says how a repository of --push is made; give that too, or drop it")
    check_run(run)
    if data is not None:
        check_folder(data)
    check_outputs({"json": json_}, data=data, folder=out_)
    with without_collecting():
        from flowerfast.commands.display import progress_bar
        from flowerfast.exporting.export import export as export_run

    quiet = json_ == Path("-")
    result = export_run(
        run,
        out_,
        format=format_.value,
        data=data,
        push_to=push,
        public=public,
        say=(lambda _: None) if quiet else partial(out.print, soft_wrap=True),
        bars=partial(progress_bar, out),
    )
    print_exported(result, quiet)
    write_json(json_, result.to_json())
