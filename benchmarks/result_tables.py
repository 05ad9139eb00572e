"""Tables of the pages, each from the content of one results file and the file's name."""

from typing import Any

from benchmarks.markdown import machine, made, photos, table


def growth(name: str, result: dict[str, Any]) -> str:
    """What a sample costs when there are many: of `growth.py`."""
    columns = (
        ">photos|>bytes per photo|>arrays alone, s|>folder, valid cache, s|>of which listing, s"
        "|>to the first batch, s|>memory from a tenth to the end of an epoch"
    )
    keys = ("arrays_alone", "load", "of_which_listing", "first_batch")
    rows = []
    for size in result["sizes"]:
        start, *_, end = (mark["mib"] for mark in size["workers"]["memory"])
        seconds = (f"{size[f'{key}_seconds']:.3f}" for key in keys)
        rows.append(
            [
                f"{size['photos']:,}",
                f"{size['bytes_per_sample']:.0f}",
                *seconds,
                f"{end / start - 1:+.1%}",
            ]
        )
    env = result["environment"]
    return f"{machine(env)}, {made(name, env, '../')}:\n\n{table(columns, rows)}"


def packing(name: str, result: dict[str, Any]) -> str:
    """How fast photos are packed: of `packing.py`."""
    columns = "photos|packed|>of them written anew|>shards, times the files|>photos/s|>CPU per photo, ms"
    rows = [
        [
            row["photos"],
            row["packed"],
            f"{row['written_anew']:,} of {row['count']:,}",
            f"{row['bytes_after'] / row['bytes_before']:.3f}",
            f"{row['photos_per_sec']:,.0f}",
            f"{row['cpu_ms_per_photo']:.2f}",
        ]
        for row in result["rows"]
    ]
    env = result["environment"]
    about = f"{machine(env)}, {photos(result['data'])} on average, {result['rounds']} rounds"
    return f"{about}, {made(name, env, '../')}:\n\n{table(columns, rows)}"


def ranks(name: str, result: dict[str, Any]) -> str:
    """What several ranks cost and change: of `ranks.py`."""
    columns = (
        "network|>ranks|>samples of each|>steps|>loss of a step, most apart|>on average|>validation loss"
    )
    rows = [
        [
            f"{row['model']}, {row['about']}",
            f"{row['ranks']}",
            f"{row['samples_per_rank']}",
            f"{row['steps']}",
            f"{row['most_loss_difference']:.1e}",
            f"{row['mean_loss_difference']:.1e}",
            f"{row['val_loss']:.4f}",
        ]
        for row in result["training"]
    ]
    env, loaders = result["environment"], result["loaders"]
    cpu = loaders["cpu_ms_per_image"]
    speeds = "; ".join(
        f"{what}: {rate:,.0f} images/s at {cpu[what]:.2f} ms of CPU each"
        for what, rate in loaders["median"].items()
    )
    return (
        f"{machine(env)}, {photos(result['data'])} on average, {made(name, env, '../')}. As loaders: "
        f"{speeds}, a ratio of {loaders['ratio']:.3f}. Training, beside one process:\n\n"
        f"{table(columns, rows)}"
    )


def reliability(name: str, result: dict[str, Any]) -> str:
    """What was promised, how often it was tried and what came of it: of `torture`."""
    rows = []
    for trial in result["trials"].values():
        figures = "; ".join(f"{what}: {number:,g}" for what, number in trial["figures"].items())
        tried = f"{trial['tried']:,} {trial['unit']}"
        rows.append([trial["promise"], tried, f"{len(trial['failures']):,}", figures])
    env = result["environment"]
    minutes = sum(trial["seconds"] for trial in result["trials"].values()) / 60
    commits = dict.fromkeys(trial["git"][:7] for trial in result["trials"].values())
    tried = f"commits {', '.join(commits)}, {minutes:.0f} minutes"
    said = f"{machine(env)}, {tried}, {made(name, env, '../')}"
    return f"{said}:\n\n{table('promised|tried|>failures|figures', rows)}"


def remote(name: str, result: dict[str, Any]) -> str:
    """Requests and bytes of epochs on shards at a URL: of `remote.py`."""
    rows = []
    for what, epochs in result["epochs"].items():
        told = (f"{epoch['requests']:,} / {epoch['bytes'] / 1e6:,.1f} MB" for epoch in epochs)
        rows.append([what, *told])
    counts = "|".join(f">epoch {number}" for number in range(1, 1 + len(rows[0][1:])))
    size = f"{result['bytes'] / 1e6:,.1f} MB in {result['shards']} shards"
    said = f"{photos(result['data'])}, {size}, {made(name, result['environment'], '../')}"
    columns = f"order, cache|{counts}"
    return f"Requests and bytes of an epoch on four fifths of {said}:\n\n{table(columns, rows)}"


def millions(name: str, result: dict[str, Any]) -> str:
    """Memory of packing, merging and opening many rows: of `millions.py`."""
    rows = [[what, f"{row['mb']:,.0f}", f"{row['seconds']:,.1f}"] for what, row in result["figures"].items()]
    env = result["environment"]
    return (
        f"{result['rows']:,} made rows, {machine(env)}, {made(name, env, '../')}:\n\n"
        f"{table('what|>memory, MB|>seconds', rows)}"
    )


def beside(name: str, result: dict[str, Any]) -> str:
    """flowerfast beside ultralytics and fastai: of `beside.py`."""
    columns = (
        "|>lines written|>seconds to the first step|>images/s, validation included|>accuracy on val/"
        "|>lines on a wrong path|>its exit code"
    )
    rows = [
        [
            f"{program} {result['peers'].get(program, '')}".strip(),
            f"{row['lines_of_code']}",
            f"{row['median']['first_step_seconds']:.1f}",
            f"{row['median']['images_per_sec']:.1f}",
            f"{row['median']['accuracy']:.1%}",
            f"{row['wrong_path']['lines']}",
            f"{row['wrong_path']['exit_code']}",
        ]
        for program, row in result["rows"].items()
    ]
    env, settings = result["environment"], result["settings"]
    said = (
        f"{machine(env)}, {photos(result['data'])}, ResNet18 from random weights, {settings['size']} px, "
        f"batch {settings['batch']}, {settings['epochs']} epochs, {settings['rounds']} rounds, "
        f"{made(name, env, '../')}"
    )
    typed = "\n".join(row["typed"] for row in result["rows"].values())
    return f"{said}:\n\n{table(columns, rows)}\n\nTyped:\n\n```text\n{typed}\n```"
