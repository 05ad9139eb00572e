"""The command that fetches public photos."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flowerfast.commands.completion import complete_data_set
from flowerfast.commands.find import check_outputs
from flowerfast.commands.options import JsonFile, LogJsonOption, QuietOption
from flowerfast.commands.output import out, tell, write_json
from flowerfast.commands.speech import choose_speech


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="flowers: 3,670 photos of five kinds, a download of 229 MB.",
            autocompletion=complete_data_set,
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; an empty one is taken.")],
    url: Annotated[
        str | None, typer.Option(help="Another place of the same archive: https://, http:// or file://.")
    ] = None,
    json_: JsonFile = None,
    quiet: QuietOption = False,
    log_json: LogJsonOption = False,
) -> None:
    """Download public photos and unpack them, one folder per class, ready for train.

    The archive is compared with its published checksum. DIR gets its name when all is there; until then what
    has arrived lies in DIR.partial, and the same command goes on with it. Photos that are there already are
    left as they are.
    """
    choose_speech("fetch", quiet, log_json, json_)
    check_outputs({"json": json_})
    from flowerfast.commands.display import progress_bar
    from flowerfast.fetching.fetch import fetch as fetch_photos

    quietly = json_ == Path("-")
    say = (lambda _: None) if quietly else tell
    result = fetch_photos(name, folder, url=url, say=say, bars=partial(progress_bar, out))
    photos = sum(result.classes.values())
    if not quietly:
        done = "" if result.fresh else "there already: "
        classes = ", ".join(result.classes)
        out.print_result(f"{folder}: {done}{photos:,} photos of {len(result.classes)} classes ({classes})")
        out.print(f"train on them with: flowerfast train {folder}", soft_wrap=True)
    write_json(
        json_,
        {"folder": str(folder), "photos": photos, "classes": result.classes, "fresh": result.fresh},
    )
