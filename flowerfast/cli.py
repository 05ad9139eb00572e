"""Command line: translate, call, print.

Exit codes: 0 success, 1 the run failed, 2 wrong input, 130/143 stopped by SIGINT/SIGTERM.
"""

import json
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flowerfast import __version__
from flowerfast.errors import UserError
from flowerfast.output import complain, out, print_evaluation, print_packed, print_parity, write_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune an image classifier on a folder of photos without waiting for the data.",
)
_UsageError: Any = typer.BadParameter.__base__  # click's own, or that of the click inside newer typers

# torch and timm take seconds to import: commands import what they call, so that --help answers at once.


class BackendName(StrEnum):
    """Executors of the augmentation plans."""

    auto = "auto"
    torchvision = "torchvision"
    dali_cpu = "dali-cpu"
    dali = "dali"


class Half(StrEnum):
    """Which samples of a folder."""

    all = "all"
    train = "train"
    val = "val"


BackendOption = Annotated[
    BackendName | None,
    typer.Option(help="Who decodes and augments; auto: DALI on a CUDA GPU, else torchvision."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result as JSON; - for standard output.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be given often."),
]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"flowerfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of class folders, with train/ and val/, or of shards. Default: rendered flowers."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="YAML file, or the name of a shipped one: paper, demo.")
    ] = None,
    set_: SetOption = None,
    backend: BackendOption = None,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME-001, -002, ...")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out at its next batch.")
    ] = False,
) -> None:
    """Train a classifier and leave weights, metrics, curves and a report in the run folder.

    `flowerfast settings` lists what --set takes.
    """
    from flowerfast.checkpoint import RunFolder, free_run_path
    from flowerfast.display import TrainDisplay, progress_bar
    from flowerfast.runs import resume_config, start_config, train_run

    changes = {"data.path": str(data.resolve())} if data is not None else {}
    changes |= {"data.backend": backend.value} if backend is not None else {}
    if resume:
        if out_ is None:
            raise UserError("--resume: name the run to go on with, --out RUN")
        if config is not None:
            raise UserError(
                f"--config {config}: a resumed run keeps its own config.yaml; drop --config or --resume"
            )
        settings = resume_config(RunFolder(out_).open(), set_ or [], changes)
    else:
        settings = start_config(config, set_ or [], changes)
    name = Path(settings.data.path).name if settings.data.path else "demo"
    folder = RunFolder(out_ or free_run_path(Path("runs"), name or "run"))
    display = TrainDisplay(
        out, settings.train.epochs, folder.tensorboard if settings.log.tensorboard else None
    )
    try:
        summary = train_run(settings, folder, display, resume, partial(progress_bar, out))
    finally:
        display.close()
    out.print(
        f"best validation accuracy {summary['best_val_acc']:.1%} in epoch {summary['best_epoch'] + 1} "
        f"of {summary['epochs_run']}, {summary['images_per_sec']:,.0f} images/s, {summary['seconds']:.0f} s"
    )
    out.print(f"report: {folder.path / 'report.html'}", soft_wrap=True)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or its best/.")],
    data: Annotated[Path, typer.Argument(help="Folder with one folder of photos per class, or shards.")],
    json_: JsonFile = None,
    half: Annotated[Half, typer.Option(help="All photos, or one half of the run's own split.")] = Half.all,
    backend: BackendOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per batch.")] = 64,
    set_: SetOption = None,
) -> None:
    """Measure a trained run on a folder: accuracy, precision, recall and F1 per class, confusion matrix."""
    from flowerfast.config import load_config
    from flowerfast.display import progress_bar
    from flowerfast.predict import evaluate_run
    from flowerfast.runs import pick_device

    settings = load_config(None, set_ or [], {"data.backend": backend.value} if backend else {})
    device = pick_device(settings.train.device)
    with progress_bar(out, "reading headers") as bar:
        result = evaluate_run(run, data, settings.data, device, half.value, batch_size, bar)
    if json_ != Path("-"):
        print_evaluation(result)
    write_json(json_, result)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or its best/.")],
    images: Annotated[list[str], typer.Argument(help="Photos, folders or glob patterns.")],
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Classes to show per photo.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one list.")] = False,
    set_: SetOption = None,
) -> None:
    """Name what is on photos: the most likely classes with their probabilities."""
    from flowerfast.config import load_config
    from flowerfast.predict import find_photos, load_trained
    from flowerfast.predict import predict as predict_photos
    from flowerfast.runs import pick_device

    settings = load_config(None, set_ or [])
    photos = find_photos(images)
    trained = load_trained(run, pick_device(settings.train.device))
    predictions, bad = predict_photos(trained, photos, top_k, settings.data.max_pixels)
    if as_json:
        rows = [
            {"path": p.path, "top": [{"name": n, "probability": c} for n, c in p.top]} for p in predictions
        ]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        table = Table("photo", *(f"{k + 1}." for k in range(len(predictions[0].top) if predictions else 0)))
        for p in predictions:
            table.add_row(p.path, *(f"{name} {chance:.1%}" for name, chance in p.top))
        out.print(table)
    for file in bad:
        complain(f"skipped: {file.path}: {file.error}")
    if not predictions:
        raise UserError(
            f"{bad[0].path}: none of {len(photos)} files can be read as a photo; give JPEG, PNG or WebP"
        )


@app.command()
def parity(
    data: Annotated[
        Path | None, typer.Argument(help="Folder of class folders, or of shards. Default: rendered flowers.")
    ] = None,
    backend: Annotated[
        BackendName, typer.Option(help="Who is compared; auto: dali on a CUDA GPU, else dali-cpu.")
    ] = BackendName.auto,
    samples: Annotated[int, typer.Option(min=1, help="Most photos to draw.")] = 512,
    epochs: Annotated[int, typer.Option(min=1, help="Random plans per photo.")] = 1,
    run: Annotated[
        Path | None, typer.Option(help="Run folder: also count where its model's answers differ.")
    ] = None,
    json_: JsonFile = None,
    set_: SetOption = None,
) -> None:
    """Compare a backend's pixels with torchvision's on your own photos, step by step.

    Exit code 0 within the published bounds, 1 outside.
    """
    from flowerfast.config import load_config
    from flowerfast.display import progress_bar
    from flowerfast.parity import compare_backends

    changes = {"data.path": str(data.resolve())} if data is not None else {}
    changes |= {"data.backend": backend.value} if backend is not BackendName.auto else {}
    settings = load_config(None, set_ or [], changes)
    with progress_bar(out, "comparing") as bar:
        result = compare_backends(settings, samples, epochs, run, bar)
    if json_ != Path("-"):
        print_parity(result)
    write_json(json_, result.to_json())
    raise typer.Exit(0 if result.ok else 1)


@app.command()
def bench(
    data: Annotated[
        Path | None, typer.Argument(help="Folder of class folders, or of shards. Default: rendered flowers.")
    ] = None,
    suite: Annotated[
        str, typer.Option(metavar="LIST", help="What to measure, any of these.")
    ] = "stages,loader,model,train",
    backend: BackendOption = None,
    set_: SetOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer loaders, all in one process: within half a minute.")
    ] = False,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Take this earlier result (--json) instead of measuring.")
    ] = None,
    json_: JsonFile = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw stages and loaders as bars: PNG, SVG or PDF.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Set an earlier result beside; exit code 1 when this one is slower.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, help="With --compare: how much slower, beyond the noise, is no fault."),
    ] = 0.1,
    what_if: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Predict another machine, e.g. cores=16,gpus=8,model=12000."),
    ] = None,
) -> None:
    """Measure how fast these photos reach the model, which stage is the wall, and what would help.

    About two minutes on two cores. Settings are those of `train`, as `--set train.batch_size=256`.
    """
    from flowerfast.bench.compare import compare_results, read_result
    from flowerfast.bench.plot import check_plot_path, plot_result
    from flowerfast.bench.show import report
    from flowerfast.bench.suites import run_bench
    from flowerfast.bench.whatif import parse
    from flowerfast.bench.whatif import what_if as predict_speed
    from flowerfast.display import progress_bar
    from flowerfast.runs import start_config

    old = read_result(compare) if compare is not None else None
    if what_if is not None:
        parse(what_if)  # before minutes are spent on measuring
    if plot is not None:
        check_plot_path(plot)
    if from_ is not None:
        if data is not None:
            raise UserError(f"--from {from_}: measures nothing, so drop {data} or --from")
        result = read_result(from_)
    else:
        changes = {"data.path": str(data.resolve())} if data is not None else {}
        changes |= {"data.backend": backend.value} if backend is not None else {}
        settings = start_config(None, set_ or [], changes)
        suites = [name.strip() for name in suite.split(",")]
        result = run_bench(
            settings, suites, quick, lambda text: complain(f"  {text}"), partial(progress_bar, out)
        )
    show: list[Any] = [*report(result)]
    if what_if is not None:
        show.append(predict_speed(result, what_if).table())
    slower = False
    if old is not None:
        compared = compare_results(old, result, tolerance)
        slower = compared.slower
        show.append(compared.table())
    if json_ != Path("-"):
        for part in show:
            out.print(part, soft_wrap=isinstance(part, Text))
    write_json(json_, result)
    if plot is not None:
        plot_result(result, plot)
    raise typer.Exit(int(slower))


@app.command()
def pack(
    data: Annotated[Path, typer.Argument(help="Folder of class folders, or with train/ and val/.")],
    out_: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Folder for the shards, new or empty.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Shrink photos to this many pixels on their short side (never enlarged). Default: copy all.",
        ),
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality of shrunk photos.")] = 90,
    shard_size: Annotated[float, typer.Option(min=0.001, help="Size of a shard at most, in MB.")] = 500,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the shards in DATA with their checksums instead.")
    ] = False,
    json_: JsonFile = None,
    set_: SetOption = None,
) -> None:
    """Pack photos into WebDataset tar shards, which train, evaluate and parity take like a folder.

    Photos that need no shrinking are copied byte for byte. Stopped in the middle, the same command goes on.
    --verify exits with 1 when photos are damaged.
    """
    from flowerfast.config import load_config
    from flowerfast.data.shard_writer import PackSettings
    from flowerfast.display import progress_bar
    from flowerfast.pack import damaged
    from flowerfast.pack import pack as pack_photos

    config = load_config(None, set_ or []).data
    if verify:
        if out_ is not None:
            raise UserError(f"--verify {data} {out_}: give one folder, the shards to check")
        with progress_bar(out, "checking") as bar:
            found = damaged(data, config.workers, bar)
        for photo in found:
            complain(f"damaged: {data / photo}")
        if json_ != Path("-"):
            out.print(f"{len(found)} photos are damaged in {data}", soft_wrap=True)
        write_json(json_, {"damaged": found})
        raise typer.Exit(1 if found else 0)
    if out_ is None:
        raise UserError(f"pack {data}: say where the shards go, flowerfast pack DATA OUT")
    settings = PackSettings(max_side, quality, round(shard_size * 1e6))
    result = pack_photos(data, out_, settings, config, partial(progress_bar, out))
    if json_ != Path("-"):
        print_packed(result, out_)
    write_json(json_, result.to_json())


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    per_class: Annotated[
        int, typer.Option("--per-class", min=1, help="Photos of each of the five kinds.")
    ] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other flowers.")] = 0,
) -> None:
    """Render five kinds of flowers as JPEGs: a data set for trying things out."""
    from flowerfast.data.synthetic import CLASSES, synthesize
    from flowerfast.display import progress_bar

    total = per_class * len(CLASSES)
    with progress_bar(out, "rendering flowers") as bar:
        synthesize(folder, per_class, seed, progress=lambda done: bar(done, total))
    out.print(f"{total} photos of {', '.join(CLASSES)} in {folder}", soft_wrap=True)


@app.command()
def settings() -> None:
    """List every setting with its default and meaning, for --set and config files."""
    from flowerfast.config import describe_settings

    table = Table("setting", "default", "meaning")
    for key, default, meaning in describe_settings():
        table.add_row(key, default, meaning)
    out.print(table)


def main() -> None:
    """Entry point of the `flowerfast` command."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        complain(f"flowerfast: error: {error}")
        code = 2
    except _UsageError as error:
        error.show()
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        code = _failed(error)
    sys.exit(code)


def _failed(error: Exception) -> int:
    """Exit code of a run that ended early; anything unforeseen is raised again with its traceback."""
    from flowerfast.progress import RunFailed, Stopped

    if isinstance(error, Stopped):
        complain(f"flowerfast: {error}; go on with --resume")
        return 128 + error.signum
    if isinstance(error, RunFailed):
        complain(f"flowerfast: error: {error}")
        return 1
    raise error
