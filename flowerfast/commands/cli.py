"""Command line: translate, call, print.

Exit codes: 0 success, 1 the run failed, 2 wrong input, 130/143 stopped by SIGINT/SIGTERM, 141 the reader of
standard output has closed it.
"""

import gc
import os
import sys
import traceback
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerfast import __version__
from flowerfast.commands.find import check_folder, check_run, find_photos
from flowerfast.commands.output import (
    PipeClosed,
    complain,
    out,
    print_evaluation,
    print_packed,
    print_parity,
    print_settings,
    write_json,
)
from flowerfast.commands.usage import SHORT, explain_usage
from flowerfast.config import (
    describe_settings,
    known_keys,
    load_config,
    parse_overrides,
    refuse_unused,
    start_config,
)
from flowerfast.errors import RunFailed, Stopped, UserError, printable
from flowerfast.machine import lend_home
from flowerfast.nearest import did_you_mean, nearest_keys

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune an image classifier on a folder of photos without waiting for the data.",
)
_UsageError: Any = typer.BadParameter.__base__  # click's own, or that of the click inside newer typers

# torch and timm take seconds to import: commands import what they call, so that --help answers at once, and
# look first at what can be refused without them.


class Format(StrEnum):
    """What photos are packed as."""

    keep = "keep"
    jpg = "jpg"


class Half(StrEnum):
    """Which samples of a folder."""

    all = "all"
    train = "train"
    val = "val"
    test = "test"


PhotosOrFlowers = Annotated[
    Path | None, typer.Argument(help="Folder of class folders, or of shards. Default: rendered flowers.")
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
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be given often."),
]


# Settings that each command looks at; any other is refused, not ignored.
FILES = ("data.layout", "data.workers", "data.on_bad", "data.max_bad", "data.max_pixels")
PACKING = (*FILES, "data.exif")
READING = (
    *FILES,
    "data.backend",
    "data.kernels",
    "data.gpu_kernels",
    "data.decode_scale",
    "data.prefetch",
    "data.dali_prefetch",
)
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


def _settings(set_: list[str] | None, data: Path | None = None, **options: Any) -> dict[str, Any]:
    """Settings by key, of DATA, of the options that stand for one, and of --set; one key has one value."""
    given = {f"--{name.replace('_', '-')}": value for name, value in options.items() if value is not None}
    keys = SHORT | {"--backend": "data.backend"}
    chosen: dict[str, Any] = {} if data is None else {"data.path": str(data.resolve())}
    chosen |= {keys[option]: value for option, value in given.items()}
    typed = {keys[option]: f"{option} {value}" for option, value in given.items()} | {"data.path": str(data)}
    for key, value in parse_overrides(set_ or []).items():
        if key in chosen and chosen[key] != value and not _same_folder(key, chosen[key], value):
            raise UserError(f"{typed[key]} and --set {key}={value}: which of the two? give one of them")
        chosen.setdefault(key, value)
    return chosen


def _same_folder(key: str, one: Any, other: Any) -> bool:
    return key == "data.path" and isinstance(other, str) and Path(one) == Path(other).resolve()


def _check_start(config: str | None, settings: dict[str, Any]) -> None:
    """Refuse what can be refused at once: settings, bounds, a folder that is not there."""
    path = start_config(config, settings).data.path
    if path is not None:
        check_folder(Path(path))


def _say(notes: list[str]) -> None:
    for note in notes:
        complain(note)


def _say_compiling(kernels: str) -> None:
    from flowerfast.pixels.executor import compiling_notes

    _say(compiling_notes(kernels))


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
            help="Folder of class folders, of train/, val/, test/, or of shards. Default: rendered flowers."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="YAML file, or the name of a shipped one: paper, demo.")
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
    short = {"epochs": epochs, "model": model, "lr": lr, "batch_size": batch_size}
    short |= {"image_size": image_size, "seed": seed, "device": device}
    chosen = _settings(set_, data, backend=backend, **short)
    if not resume:
        _check_start(config, chosen)
    from flowerfast.commands.display import TrainDisplay, progress_bar
    from flowerfast.commands.signals import StopSignals
    from flowerfast.training.run import train as train_photos

    with closing(TrainDisplay(out)) as display:
        result = train_photos(
            out=out_,
            config=config,
            settings=chosen,
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
    if summary["test_samples"]:
        out.print(f"test accuracy {summary['test_acc']:.1%} on {summary['test_samples']} photos of test/")
    out.print(f"report: {result.folder / 'report.html'}", soft_wrap=True)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or its best/.")],
    data: Annotated[Path, typer.Argument(help="Folder with one folder of photos per class, or shards.")],
    json_: JsonFile = None,
    half: Annotated[
        Half, typer.Option(help="All photos, one half of the run's own split, or test/.")
    ] = Half.all,
    backend: BackendOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per batch.")] = 64,
    set_: SetOption = None,
) -> None:
    """Measure a trained run on a folder: accuracy, precision, recall and F1 per class, confusion matrix."""
    refuse_unused(set_ or [], "evaluate", (*READING, "train.device"))
    config = load_config(None, (), _settings(set_, backend=backend))
    check_run(run)
    check_folder(data)
    _say_compiling(config.data.kernels)
    from flowerfast.commands.display import progress_bar
    from flowerfast.training.trained import evaluate as evaluate_run

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
    jsonl: Annotated[
        Path | None, typer.Option(help="Write each answer at once, one JSON object a line; - as above.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write each answer at once as CSV; - as above.")] = None,
    set_: SetOption = None,
) -> None:
    """Name what is on photos: the most likely classes with their probabilities.

    A folder stands for all photos in it. Answers come one by one; files that cannot be read are named and
    counted. Exit code 2 when none can.
    """
    refuse_unused(set_ or [], "predict", ("data.max_pixels", "train.device"))
    config = load_config(None, set_ or [])
    files = {"json": json_, "jsonl": jsonl, "csv": csv}
    if [*files.values()].count(Path("-")) > 1:
        raise UserError("--json, --jsonl and --csv: one of them at most to standard output, -")
    photos, notes = find_photos(images)
    check_run(run)
    _say(notes)
    from flowerfast.commands.answers import answers
    from flowerfast.training.trained import load_run

    trained = load_run(run, config.train.device)
    seen, bad, first = 0, 0, None
    with answers(files, min(top_k, len(trained.classes))) as tell:
        for prediction in trained.predict_each(photos, top_k, config.data.max_pixels):
            tell(prediction)
            seen += 1
            if prediction.error is not None:
                bad, first = bad + 1, first or prediction.path
    if bad == seen:
        raise UserError(f"{first}: none of {seen} files can be read as a photo; give others")
    if bad:
        complain(f"{bad} of {seen} files skipped")


@app.command()
def parity(
    data: PhotosOrFlowers = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="[auto|cpu|dali-cpu|dali]",
            help="Who is compared; auto: dali on a CUDA GPU, else dali-cpu, without DALI cpu.",
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

    Without NVIDIA DALI: those of the compiled loops of the cpu backend.

    Exit code 0 within the published bounds, 1 outside.
    """
    refuse_unused(set_ or [], "parity", PARITY)
    settings = load_config(None, (), _settings(set_, data, backend=backend))
    if settings.data.path is not None:
        check_folder(Path(settings.data.path))
    _say_compiling(settings.data.kernels)
    from flowerfast.commands.display import progress_bar
    from flowerfast.commands.parity import compare_backends

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
    chosen = _settings(set_, data, backend=backend)
    if from_ is None:
        _check_start(None, chosen)
    from flowerfast.bench.compare import compare_results, read_result
    from flowerfast.bench.plot import check_plot_path, plot_result
    from flowerfast.bench.show import report
    from flowerfast.bench.suites import run_bench
    from flowerfast.bench.whatif import parse
    from flowerfast.bench.whatif import what_if as predict_speed
    from flowerfast.commands.display import progress_bar

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
        settings = start_config(None, chosen)
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
            out.print(part, soft_wrap=isinstance(part, str))
    write_json(json_, result)
    if plot is not None:
        plot_result(result, plot)
    raise typer.Exit(int(slower))


@app.command()
def pack(
    data: Annotated[Path, typer.Argument(help="Folder of class folders, or of train/, val/, test/.")],
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
    format_: Annotated[
        Format, typer.Option("--format", help="jpg: photos of other formats become JPEG, for other readers.")
    ] = Format.keep,
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="JPEG quality of shrunk and re-coded photos.")
    ] = 90,
    shard_size: Annotated[float, typer.Option(min=0.001, help="Size of a shard at most, in MB.")] = 500,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the shards in DATA with their checksums instead.")
    ] = False,
    json_: JsonFile = None,
    set_: SetOption = None,
) -> None:
    """Pack photos into WebDataset tar shards, which train, evaluate and parity take like a folder.

    Photos that need neither shrinking nor another format are copied byte for byte, EXIF and all; others are
    turned upright, unless data.exif=ignore, and have none. Stopped in the middle, the same command goes on.
    --verify exits with 1 when photos are damaged.
    """
    if verify:
        refuse_unused(set_ or [], "pack --verify", ("data.workers",))
    refuse_unused(set_ or [], "pack", PACKING)
    config = load_config(None, set_ or []).data
    check_folder(data)
    from flowerfast.commands.display import progress_bar
    from flowerfast.packing.pack import damaged
    from flowerfast.packing.pack import pack as pack_photos
    from flowerfast.packing.shard_writer import PackSettings

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
    settings = PackSettings(max_side, quality, round(shard_size * 1e6), jpeg=format_ is Format.jpg)
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
def settings(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]...", help="Only settings with one of these in key or meaning."),
    ] = None,
    json_: JsonFile = None,
) -> None:
    """List every setting with its default and meaning, for --set and config files."""
    rows = [row for row in describe_settings() if not words or _speaks_of(row, words)]
    if not rows:
        near = nearest_keys(words[0], [*known_keys()]) if words else []
        hint = did_you_mean(near) if near else "; `flowerfast settings` lists all"
        raise UserError(f"settings {' '.join(words or [])}: no setting speaks of that{hint}")
    if json_ != Path("-"):
        print_settings(rows)
    write_json(json_, [{"key": key, "default": default, "meaning": about} for key, default, about in rows])


def _speaks_of(row: tuple[str, Any, str], words: list[str]) -> bool:
    text = f"{row[0]} {row[2]}".casefold()
    return any(word.casefold() in text for word in words)


def run() -> int:
    """Do what the command line says; the exit code."""
    try:
        lend_home()  # before a command imports the libraries that look for one
        return int(app(standalone_mode=False) or 0)
    except UserError as error:
        complain(f"flowerfast: error: {error}")
        return 2
    except _UsageError as error:
        explain_usage(error)
        return 2
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except PipeClosed:
        return _PIPE_CLOSED
    except Stopped as stopped:
        complain(f"flowerfast: {stopped}; go on with --resume")
        return 128 + stopped.signum
    except RunFailed as error:
        complain(f"flowerfast: error: {error}")
        return 1


_PIPE_CLOSED = 141  # as shells have it of a process that SIGPIPE ends


def main() -> None:
    """Entry point of the `flowerfast` command: ends the process."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = run()
    except Exception:  # a fault of this program: Python's own words, but for what would command a terminal
        sys.stderr.write(printable(traceback.format_exc(), keep="\n"))
        code = 1
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _PIPE_CLOSED
    sys.stderr.flush()
    # To take apart, object by object, what torch and timm have loaded takes seconds.
    if code:
        os._exit(code)
    gc.freeze()
    sys.exit(0)
