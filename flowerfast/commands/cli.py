"""Command line: translate, call, print.

Exit codes: 0 success, 1 the run failed, 2 wrong input, 130/143 stopped by SIGINT/SIGTERM.
"""

import sys
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flowerfast import __version__
from flowerfast.commands.output import (
    complain,
    out,
    print_evaluation,
    print_packed,
    print_parity,
    print_predictions,
    write_json,
)
from flowerfast.config import load_config, parse_overrides, refuse_unused
from flowerfast.errors import RunFailed, Stopped, UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune an image classifier on a folder of photos without waiting for the data.",
)
_UsageError: Any = typer.BadParameter.__base__  # click's own, or that of the click inside newer typers

# torch and timm take seconds to import: commands import what they call, so that --help answers at once.


class Half(StrEnum):
    """Which samples of a folder."""

    all = "all"
    train = "train"
    val = "val"


PhotosOrFlowers = Annotated[
    Path | None, typer.Argument(help="Folder of class folders, or of shards. Default: rendered flowers.")
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        metavar="[auto|cpu|dali-cpu|dali]",
        help="Who decodes and augments; auto: DALI on a CUDA GPU, else threads on the CPU.",
    ),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result as JSON; - for standard output.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be given often."),
]


# Settings that each command looks at; any other is refused, not ignored.
PACKING = ("data.workers", "data.on_bad", "data.max_bad", "data.max_pixels")
READING = (
    *PACKING,
    "data.backend",
    "data.kernels",
    "data.decode_scale",
    "data.prefetch",
    "data.dali_prefetch",
)
PARITY = (
    *READING,
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


def _settings(backend: str | None, set_: list[str] | None, data: Path | None = None) -> dict[str, Any]:
    """Settings by key, of the options and of --set."""
    chosen: dict[str, Any] = {} if data is None else {"data.path": str(data.resolve())}
    chosen |= {} if backend is None else {"data.backend": backend}
    return chosen | parse_overrides(set_ or [])


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
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Begin with the weights and settings of another run."),
    ] = None,
) -> None:
    """Train a classifier and leave weights, metrics, curves and a report in the run folder.

    `flowerfast settings` lists what --set takes.
    """
    from flowerfast.commands.display import TrainDisplay, progress_bar
    from flowerfast.commands.signals import StopSignals
    from flowerfast.training.run import train as train_photos

    with closing(TrainDisplay(out)) as display:
        result = train_photos(
            data,
            out=out_,
            config=config,
            settings=_settings(backend, set_),
            resume=resume,
            start_from=from_,
            reporter=display,
            stop=StopSignals(),
            bars=partial(progress_bar, out),
        )
    summary = result.summary
    out.print(
        f"best validation accuracy {summary['best_val_acc']:.1%} in epoch {summary['best_epoch'] + 1} "
        f"of {summary['epochs_run']}, {summary['images_per_sec']:,.0f} images/s, {summary['seconds']:.0f} s"
    )
    out.print(f"report: {result.folder / 'report.html'}", soft_wrap=True)


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
    from flowerfast.commands.display import progress_bar
    from flowerfast.training.trained import evaluate as evaluate_run

    refuse_unused(set_ or [], "evaluate", (*READING, "train.device"))
    config = load_config(None, (), _settings(backend, set_))
    with progress_bar(out, "reading headers") as bar:
        result = evaluate_run(
            run,
            data,
            half=half.value,
            batch_size=batch_size,
            device=config.train.device,
            options=config.data,
            progress=bar,
        )
    if json_ != Path("-"):
        print_evaluation(result)
    write_json(json_, result)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or its best/.")],
    images: Annotated[list[str], typer.Argument(help="Photos, folders or glob patterns.")],
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Classes to show per photo.")] = 3,
    json_: JsonFile = None,
    set_: SetOption = None,
) -> None:
    """Name what is on photos: the most likely classes with their probabilities."""
    from flowerfast.commands.find import find_photos
    from flowerfast.training.trained import load_run

    refuse_unused(set_ or [], "predict", ("data.max_pixels", "train.device"))
    config = load_config(None, set_ or [])
    photos = find_photos(images)
    predictions = load_run(run, config.train.device).predict(photos, top_k, config.data.max_pixels)
    named = [p for p in predictions if p.error is None]
    if json_ != Path("-") and named:
        print_predictions(named)
    rows = [{"path": p.path, "top": [{"name": n, "probability": c} for n, c in p.top]} for p in named]
    write_json(json_, rows)
    for p in predictions:
        if p.error is not None:
            complain(f"skipped: {p.path}: {p.error}")
    if not named:
        first = predictions[0]
        raise UserError(
            f"{first.path}: none of {len(photos)} files can be read as a photo; give JPEG, PNG or WebP"
        )


@app.command()
def parity(
    data: PhotosOrFlowers = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="[auto|cpu|dali-cpu|dali]",
            help="Who is compared; auto: dali on a CUDA GPU, else dali-cpu.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Most photos to draw.")] = 512,
    epochs: Annotated[int, typer.Option(min=1, help="Random plans per photo.")] = 1,
    run: Annotated[
        Path | None, typer.Option(help="Run folder: also count where its model's answers differ.")
    ] = None,
    json_: JsonFile = None,
    set_: SetOption = None,
) -> None:
    """Compare a backend's pixels with the reference's (torchvision) on your own photos, step by step.

    Exit code 0 within the published bounds, 1 outside.
    """
    from flowerfast.commands.display import progress_bar
    from flowerfast.commands.parity import compare_backends

    refuse_unused(set_ or [], "parity", PARITY)
    settings = load_config(None, (), _settings(backend, set_, data))
    with progress_bar(out, "comparing") as bar:
        result = compare_backends(settings, samples, epochs, run, bar)
    if json_ != Path("-"):
        print_parity(result)
    write_json(json_, result.to_json())
    raise typer.Exit(0 if result.ok else 1)


@app.command()
def bench(
    data: PhotosOrFlowers = None,
    suite: Annotated[
        str, typer.Option(metavar="LIST", help="What to measure, any of these.")
    ] = "stages,loader,model,train",
    backend: BackendOption = None,
    set_: SetOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer loaders, all in one process: a first look.")
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
    from flowerfast.commands.display import progress_bar
    from flowerfast.training.run import start_config

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
        settings = start_config(None, _settings(backend, set_, data))
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
    from flowerfast.commands.display import progress_bar
    from flowerfast.packing.pack import damaged
    from flowerfast.packing.pack import pack as pack_photos
    from flowerfast.packing.shard_writer import PackSettings

    if verify:
        refuse_unused(set_ or [], "pack --verify", ("data.workers",))
    refuse_unused(set_ or [], "pack", PACKING)
    config = load_config(None, set_ or []).data
    if verify:
        if out_ is not None:
            raise UserError(f"--verify {data} {out_}: give one folder, the shards to check")
        with progress_bar(out, "checking") as bar:
            spoilt = damaged(data, config.workers, bar)
        for photo in spoilt:
            complain(f"damaged: {data / photo}")
        if json_ != Path("-"):
            out.print(f"{len(spoilt) or 'no'} photos are damaged in {data}", soft_wrap=True)
        write_json(json_, {"damaged": spoilt})
        raise typer.Exit(1 if spoilt else 0)
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
    from flowerfast.commands.display import progress_bar
    from flowerfast.demo.synthetic import CLASSES, synthesize

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
    except Stopped as stopped:
        complain(f"flowerfast: {stopped}; go on with --resume")
        code = 128 + stopped.signum
    except RunFailed as error:
        complain(f"flowerfast: error: {error}")
        code = 1
    sys.exit(code)
