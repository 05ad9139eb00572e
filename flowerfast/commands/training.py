"""Commands about a model: train it, measure it, ask it."""

from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flowerfast.commands.completion import complete_config
from flowerfast.commands.find import check_folder, check_outputs, check_run, find_photos
from flowerfast.commands.importing import without_collecting
from flowerfast.commands.options import (
    PROTOCOL,
    READING,
    BackendOption,
    ClassesOption,
    JsonFile,
    LogJsonOption,
    QuietOption,
    SetOption,
    check_start,
    chosen_settings,
    kept,
)
from flowerfast.commands.output import complain, out, print_evaluation, say, say_compiling, write_json
from flowerfast.commands.speech import choose_speech, event
from flowerfast.errors import UserError
from flowerfast.ranks.meeting import join


class Half(StrEnum):
    """Which samples of a folder."""

    all = "all"
    train = "train"
    val = "val"
    test = "test"


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of class folders, of train/, val/, test/, or of shards, or the URL of shards, or a "
            "table (CSV, TSV, Parquet) of paths and labels. Default: rendered flowers."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="YAML file, or the name of a shipped one: paper, cpu, fast, demo.",
            autocompletion=complete_config,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set train.epochs=...")] = None,
    model: Annotated[str | None, typer.Option(help="Any timm model; short for --set model.name=...")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; short for --set train.lr=...")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Short for --set train.batch_size=...")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="In pixels; short for --set data.image_size=...")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set train.seed=...")] = None,
    device: Annotated[str | None, typer.Option(help="Short for --set train.device=...")] = None,
    classes: ClassesOption = None,
    set_: SetOption = None,
    backend: BackendOption = None,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME-001, -002, ...")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out at its next batch.")
    ] = False,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Begin with the weights and settings of another run."),
    ] = None,
    quiet: QuietOption = False,
    log_json: LogJsonOption = False,
) -> None:
    """Train a classifier and leave weights, metrics, curves and a report in the run folder.

    `flowerfast settings` lists what --set takes. On several GPUs: torchrun --nproc-per-node N -m flowerfast
    train ..., with as many ranks as GPUs; train.batch_size is that of all together.
    """
    choose_speech("train", quiet, log_json)
    short = {"epochs": epochs, "model": model, "lr": lr, "batch_size": batch_size}
    short |= {"image_size": image_size, "seed": seed, "device": device, "classes": classes}
    chosen = chosen_settings(set_, data, backend=backend, **short)
    if not resume:
        check_start(config, chosen)
    with without_collecting():
        from flowerfast.commands.display import JsonDisplay, progress_bar, train_display
        from flowerfast.commands.signals import StopSignals
        from flowerfast.training.run import train as train_photos
    here = join(lambda line: complain(f"flowerfast: {line}"))

    with closing(train_display()) as display:
        result = train_photos(
            out=out_,
            config=config,
            settings=chosen,
            resume=resume,
            start_from=from_,
            reporter=display,
            stop=StopSignals(),
            bars=partial(progress_bar, out),
            callbacks=[display] if isinstance(display, JsonDisplay) else [],
        )
    if not here.is_first:
        return
    if display.lost is not None:
        raise display.lost
    event("result", result=result.summary, folder=str(result.folder))
    summary = result.summary
    by, figure = summary["best_by"], "accuracy"
    if "best_val_map" in summary:
        figure = f"mAP {summary['best_val_map']:.1%}, right decisions"
    best = f"best epoch by {by}: validation" if by not in ("accuracy", "map") else "best validation"
    augmented = f", augmented {summary['best_val_aug_acc']:.1%}" if "best_val_aug_acc" in summary else ""
    lines = [
        f"{best} {figure} {summary['best_val_acc']:.1%}{augmented} in epoch {summary['best_epoch'] + 1} "
        f"of {summary['epochs_run']}, {summary['images_per_sec']:,.0f} images/s, {summary['seconds']:.0f} s"
    ]
    if summary["test_samples"]:
        figure = f"mAP {summary['test_map']:.1%}, right decisions" if "test_map" in summary else "accuracy"
        lines.append(f"test {figure} {summary['test_acc']:.1%} on {summary['test_samples']} photos of test/")
    if quiet:
        out.print_result(f"{result.folder}: {'; '.join(lines)}")
    for line in (*lines, f"report: {result.folder / 'report.html'}"):
        out.print(line, soft_wrap=True)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or its best/.")],
    data: Annotated[
        Path, typer.Argument(help="Folder of class folders, or of shards, or their URL, or a table.")
    ],
    json_: JsonFile = None,
    half: Annotated[
        Half, typer.Option(help="All photos, one half of the run's own split, or test/.")
    ] = Half.all,
    backend: BackendOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per batch.")] = 64,
    classes: ClassesOption = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    log_json: LogJsonOption = False,
) -> None:
    """Measure a trained run on a folder: accuracy, scores per class, confusion matrix, calibration.

    --set eval.image_size, eval.crop_pct and eval.flip, and eval.threshold of several labels a photo, ask it
    otherwise than it was validated.
    """
    choose_speech("evaluate", quiet, log_json, json_)
    from flowerfast.settings import load_config, refuse_unused

    refuse_unused(set_ or [], "evaluate", (*READING, *PROTOCOL, *kept(data)))
    config = load_config(None, (), chosen_settings(set_, backend=backend, classes=classes))
    check_run(run)
    check_folder(data)
    check_outputs({"json": json_}, data=data, path_column=config.data.path_column)
    said = say_compiling(config.data.kernels, waited=False)
    from flowerfast.commands.display import progress_bar
    from flowerfast.training.evaluate_run import evaluate as evaluate_run

    with progress_bar(out, "reading headers") as bar:
        result = evaluate_run(
            run,
            data,
            half=half.value,
            batch_size=batch_size,
            device=config.train.device,
            options=config.data,
            protocol=config.eval,
            progress=bar,
        )
    if json_ != Path("-"):
        print_evaluation(result, said)
    write_json(json_, result)


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or its best/.")],
    images: Annotated[list[str], typer.Argument(help="Photos, folders, tables or glob patterns.")],
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Classes to show per photo.")] = 3,
    json_: JsonFile = None,
    jsonl: Annotated[
        Path | None, typer.Option(help="Write each answer at once, one JSON object a line; - as above.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write each answer at once as CSV, names as they are; - as above.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos that go through the model at a time.")] = 32,
    set_: SetOption = None,
    quiet: QuietOption = False,
    log_json: LogJsonOption = False,
) -> None:
    """Name what is on photos: the most likely classes with their probabilities.

    A model of photos with several labels gives all whose probability is eval.threshold or more.
    A folder stands for all photos in it, a table for those that it names. Answers are written batch by batch,
    however many there are; files that cannot be read are named and counted. Exit code 2 when none can.
    """
    choose_speech("predict", quiet, log_json, json_, jsonl, csv)
    from flowerfast.settings import load_config, refuse_unused

    refuse_unused(set_ or [], "predict", ("data.max_pixels", *PROTOCOL, "data.path_column"))
    config = load_config(None, set_ or [])
    files = {"json": json_, "jsonl": jsonl, "csv": csv}
    if [*files.values()].count(Path("-")) > 1:
        raise UserError("--json, --jsonl and --csv: one of them at most to standard output, -")
    photos, notes = find_photos(images, config.data.path_column)
    check_outputs(files, [*photos, *map(Path, images)])
    check_run(run)
    say(notes)
    from flowerfast.commands.answers import answers
    from flowerfast.commands.display import answers_bar
    from flowerfast.training.trained import load_run

    trained = load_run(run, config.train.device).at(config.eval)
    labels = trained.classes if trained.multilabel else ()
    seen, bad, first = 0, 0, None
    with (
        answers(files, min(top_k, len(trained.classes)), labels) as tell,
        answers_bar(Path("-") in files.values()) as bar,
        closing(trained.predict_each(photos, top_k, config.data.max_pixels, batch_size)) as predictions,
    ):
        for prediction in predictions:
            tell(prediction)
            seen += 1
            bar(seen, len(photos))
            if prediction.error is not None:
                bad, first = bad + 1, first or prediction.path
    if bad == seen:
        raise UserError(f"{first}: none of {seen} files can be read as a photo; give others")
    if bad:
        complain(f"{bad} of {seen} files skipped")
    event("result", result={"photos": seen, "skipped": bad})
