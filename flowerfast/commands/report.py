"""The command that draws the report of a run anew, or of several side by side."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flowerfast.commands.find import check_outputs
from flowerfast.commands.options import JsonFile
from flowerfast.commands.output import out, say, write_json, writing_to
from flowerfast.errors import UserError
from flowerfast.places import spelled


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders of `train`.")],
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page. Default: report.html in the run folder, of several runs compare.html here.",
        ),
    ] = None,
    json_: JsonFile = None,
) -> None:
    """Draw the report of a run anew, or one page that compares several runs.

    The page is one file that needs nothing else: thumbnails of mistakes and augmented samples are in it,
    where the photos are still where the run found them.
    """
    if html == Path("-"):
        raise UserError("--html -: a page is no text for a terminal; name a file")
    from flowerfast.training.run_record import COMPARED, check_runs

    check_runs(runs)
    page = html if html is not None or len(runs) == 1 else COMPARED
    check_outputs({"json": json_, "html": page})
    from flowerfast.commands.display import progress_bar
    from flowerfast.training.compare import report as report_runs

    with writing_to("html", page or runs[0] / "report.html"):
        result = report_runs(runs, html=page, bars=partial(progress_bar, out))
    say(result.notes)
    if json_ != Path("-"):
        out.print(f"report: {spelled(result.page)}", soft_wrap=True)
    write_json(json_, result.to_json())
