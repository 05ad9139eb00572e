"""The command that looks photos over before training."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from flowerfast.commands.find import check_folder, check_outputs, check_run
from flowerfast.commands.options import (
    LOADING,
    PROTOCOL,
    SCANNING,
    ClassesOption,
    JsonFile,
    LogJsonOption,
    QuietOption,
    SetOption,
    chosen_settings,
    kept,
)
from flowerfast.commands.output import out, say, say_compiling, write_json, writing_to
from flowerfast.commands.speech import choose_speech
from flowerfast.errors import UserError
from flowerfast.places import spelled

if TYPE_CHECKING:
    from flowerfast.scanning.findings import Finding
    from flowerfast.scanning.scan import ScanResult

_CLASSES = 20
"""Classes that the table on the terminal has; of more, the largest and the smallest."""
_NAMES = 3  # per finding


def scan(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of class folders, of train/, val/, test/, or of shards, or their URL, or a table."
        ),
    ],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with thumbnails of what was found.")
    ] = None,
    json_: JsonFile = None,
    quarantine: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Copy the files that want a person's eye to this new folder; none is moved."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder: also likely label errors and the most confident mistakes."),
    ] = None,
    distance: Annotated[
        int, typer.Option(min=0, max=7, help="Bits of 64 in which hashes of near duplicates may differ.")
    ] = 6,
    tiny: Annotated[int, typer.Option(min=0, metavar="PIXELS", help="A shorter side is tiny.")] = 32,
    huge: Annotated[float, typer.Option(min=0, metavar="MEGAPIXELS", help="More is huge.")] = 25.0,
    classes: ClassesOption = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    log_json: LogJsonOption = False,
) -> None:
    """Look photos over: damage, duplicates, leaks between halves, odd files, and labels that look wrong.

    Every photo is decoded, as training would. Nothing in DATA is changed.

    Exit code 1 where something wants a person's eye: damaged files, the same photo under two classes or in
    two halves of the split.
    """
    choose_speech("scan", quiet, log_json, json_)
    from flowerfast.settings import load_config, refuse_unused

    of_run = () if run is None else (*LOADING, *PROTOCOL)
    own = tuple(key for key in SCANNING if run is None or key != "data.exif")  # else it is the run's
    refuse_unused(set_ or [], "scan" if run is None else "scan --run", (*own, *of_run, *kept(data)))
    config = load_config(None, (), chosen_settings(set_, classes=classes))
    check_folder(data)
    if html == Path("-"):
        raise UserError("--html -: a page is no text for a terminal; name a file")
    files, column = {"json": json_, "html": html}, config.data.path_column
    check_outputs(files, data=data, folder=quarantine, path_column=column)
    if run is not None:
        check_run(run)
    from flowerfast.commands.display import progress_bar
    from flowerfast.scanning.quarantine import check_quarantine
    from flowerfast.scanning.scan import scan as scan_photos

    if quarantine is not None:
        check_quarantine(quarantine, data)
    if run is not None:
        say_compiling(config.data.kernels, waited=False)
    bars = partial(progress_bar, out)
    result = scan_photos(
        data,
        run=run,
        distance=distance,
        tiny=tiny,
        huge=huge,
        seed=config.train.seed,
        device=config.train.device,
        options=config.data,
        protocol=config.eval,
        bars=bars,
    )
    say(result.notes)
    if json_ != Path("-"):
        print_scan(result)
    write_json(json_, result.to_json())
    if html is not None:
        with writing_to("html", html):
            result.write_html(html, bars)
    if quarantine is not None:
        copied, left = result.quarantine(quarantine, bars)
        say(left)
        say([f"{copied} files copied to {quarantine}"])
    raise typer.Exit(int(result.wants_eye))


def print_scan(result: "ScanResult") -> None:
    """Tables of classes and findings, and a verdict."""
    out.print(_classes(result))
    table = Table("", "finding", "photos", "groups", Column("first", overflow="fold"))
    for finding in result.findings:
        if finding.photos:
            mark, groups = "!" if finding.wants_eye else "", str(len(finding.groups or ()) or "")
            table.add_row(mark, finding.kind, f"{len(finding.photos):,}", groups, _first(finding))
    if table.rows:
        out.print(table)
    for finding in result.findings:
        if finding.photos:
            out.print(f"{finding.kind}: {finding.about}", soft_wrap=True)
    run = result.run
    if run is not None and run.accuracy is not None:
        asked = f"{run.out_of_sample} photos that it was not trained on"
        of = asked if run.trained_on or run.out_of_sample else "all photos"
        on = f", {run.trained_accuracy:.1%} on the others" if run.trained_accuracy is not None else ""
        out.print(f"accuracy of {run.run}: {run.accuracy:.1%} on {of}{on}", soft_wrap=True)
    formats = ", ".join(f"{count:,} {name}" for name, count in result.formats.items())
    out.print(
        f"{result.samples:,} photos of {len(result.classes)} classes ({formats}) in {result.seconds:.1f} s; "
        f"halves: {result.split}",
        soft_wrap=True,
    )
    eye = [finding.kind for finding in result.findings if finding.wants_eye and finding.photos]
    what = f"wants a person's eye: {', '.join(eye)}" if eye else "nothing wants a person's eye"
    out.print_result(f"{spelled(result.data)}: {what}")


def _classes(result: "ScanResult") -> Table:
    ranked = sorted(result.classes, key=lambda count: -count.photos)
    halves = [half for half in ("train", "val", "test") if any(half in c.halves for c in ranked)]
    table = Table(Column("class", overflow="fold"), "photos", "share", *halves, "MB")
    few = len(ranked) <= _CLASSES
    for place, count in enumerate(ranked):
        if few or place < _CLASSES // 2 or place >= len(ranked) - _CLASSES // 2:
            share = f"{count.photos / max(result.samples, 1):.1%}"
            parts = [f"{count.halves.get(half, 0):,}" for half in halves]
            table.add_row(count.name, f"{count.photos:,}", share, *parts, f"{count.bytes / 1e6:,.1f}")
        elif place == _CLASSES // 2:
            table.add_row(f"... {len(ranked) - _CLASSES:,} more", *[""] * (3 + len(halves)))
    return table


def _first(finding: "Finding") -> str:
    """The first few photos or groups of a finding, and what is said of them."""
    if finding.groups:
        named = [
            (" = " if group.exact else " ~ ").join(photo.path for photo in group.photos[:_NAMES])
            for group in finding.groups
        ]
    else:
        named = [f"{photo.path} ({photo.why})" if photo.why else photo.path for photo in finding.photos]
    return "; ".join(named[:_NAMES])
