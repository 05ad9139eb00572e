"""The search for settings."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flowerfast.commands.completion import complete_config
from flowerfast.commands.find import check_outputs
from flowerfast.commands.options import (
    ClassesOption,
    JsonFile,
    LogJsonOption,
    QuietOption,
    SetOption,
    check_start,
    chosen_settings,
)
from flowerfast.commands.output import fail, out, tell, write_json
from flowerfast.commands.speech import choose_speech
from flowerfast.errors import Stopped


def tune(
    data: Annotated[Path | None, typer.Argument(help="As of train. Default: rendered flowers.")] = None,
    out_: Annotated[
        Path, typer.Option("--out", help="Folder of the search; the same command goes on with one.")
    ] = Path("tuned"),
    config: Annotated[
        str | None,
        typer.Option(
            help="YAML file, or a shipped one: paper, cpu, fast, demo. It is the first trial.",
            autocompletion=complete_config,
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Runs of the first round; a third each goes on.")] = 9,
    epochs: Annotated[int | None, typer.Option(help="Of the last round; short for train.epochs.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no trial after so long.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="With model.name=auto, a folder of files NAME.safetensors.")
    ] = None,
    classes: ClassesOption = None,
    json_: JsonFile = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    log_json: LogJsonOption = False,
) -> None:
    """Search for settings with short runs, and write the best as a config for train.

    Trials draw learning rate, weight decay, augmentation and resolution; with --set model.name=auto they take
    the models in turn of which weights are at hand. Rounds are of fewer and longer runs each. The accuracy of
    the winner is optimistic, for it was chosen by it: measure it on photos of test/.
    """
    choose_speech("tune", quiet, log_json, json_)
    chosen = chosen_settings(set_, data, epochs=epochs, classes=classes)
    check_start(config, chosen)
    check_outputs({"json": json_}, data=data, folder=out_)
    quietly = json_ == Path("-")
    from flowerfast.commands.display import progress_bar
    from flowerfast.commands.signals import StopSignals
    from flowerfast.training.tune import tune as search

    try:
        result = search(
            out=out_,
            config=config,
            settings=chosen,
            trials=trials,
            weights=weights,
            minutes=minutes,
            say=(lambda _: None) if quietly else tell,
            stop=StopSignals,
            bars=partial(progress_bar, out),
        )
    except Stopped as stopped:
        fail(f"flowerfast: {stopped}; the same command goes on")
        raise typer.Exit(128 + stopped.signum) from None
    if not quietly:
        out.print_result(
            f"best: trial {result.best['trial']}, validation accuracy {result.best['accuracy']:.1%}: "
            f"{result.config}"
        )
        out.print(f"train with it: flowerfast train DATA --config {result.config}", soft_wrap=True)
    write_json(json_, {"best": result.best, "config": str(result.config), "trials": result.trials})
