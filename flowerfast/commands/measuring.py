"""Commands that measure: whether pixels are the reference's, and how fast they come."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerfast.commands.find import check_folder, check_outputs
from flowerfast.commands.options import (
    PARITY,
    BackendOption,
    JsonFile,
    PhotosOrFlowers,
    SetOption,
    check_start,
    chosen_settings,
    kept,
)
from flowerfast.commands.output import complain, out, print_parity, say_compiling, write_json
from flowerfast.errors import UserError


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
    from flowerfast.settings import load_config, refuse_unused

    chosen = chosen_settings(set_, data, backend=backend)
    refuse_unused(set_ or [], "parity", (*PARITY, *kept(chosen.get("data.path"))))
    settings = load_config(None, (), chosen)
    if settings.data.path is not None:
        check_folder(Path(settings.data.path))
    check_outputs({"json": json_}, data=_folder(settings.data.path), path_column=settings.data.path_column)
    said = say_compiling(settings.data.kernels)
    from flowerfast.commands.display import progress_bar
    from flowerfast.commands.parity import compare_backends

    with progress_bar(out, "comparing") as bar:
        result = compare_backends(settings, samples, epochs, run, bar)
    if json_ != Path("-"):
        print_parity(result, said)
    write_json(json_, result.to_json())
    raise typer.Exit(0 if result.ok else 1)


def _folder(path: str | None) -> Path | None:
    return None if path is None else Path(path)


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
    chosen = chosen_settings(set_, data, backend=backend)
    if from_ is None:
        check_start(None, chosen)
    column = chosen.get("data.path_column")
    check_outputs({"json": json_, "plot": plot}, data=_folder(chosen.get("data.path")), path_column=column)
    from flowerfast.bench.compare import compare_results, read_result
    from flowerfast.bench.plot import check_plot_path, plot_result
    from flowerfast.bench.show import report
    from flowerfast.bench.suites import run_bench
    from flowerfast.bench.whatif import parse
    from flowerfast.bench.whatif import what_if as predict_speed
    from flowerfast.commands.display import progress_bar
    from flowerfast.settings import start_config

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
