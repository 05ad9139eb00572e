"""Tables of docs/cpu.md from results files of versus.py and steps.py."""

from typing import Any

from benchmarks.markdown import machine, made, photos, table


def versus(name: str, result: dict[str, Any]) -> str:
    """Two builds side by side."""
    env, data = result["environment"], result["data"]
    loaders = []
    for kind, row in result["loader"].items():
        rates = (f"{row[build]['images_per_sec']:,.0f}" for build in ("old", "new"))
        keys = ("images_per_sec", "cpu_ms_per_photo", "memory_bytes")
        loaders.append([kind, *rates, *(f"{row['ratio'][key]:.2f}" for key in keys)])
    commands = []
    for command, row in result["command"].items():
        for key, ratio in row["ratio"].items():
            seconds = (f"{row[build][key]['median']:.3f}" for build in ("old", "new"))
            commands.append([f"{command}: {key.replace('_', ' ')}", *seconds, f"{ratio:.2f}"])
    columns = "the loader reads|>old, images/s|>new, images/s|>ratio|>CPU per photo|>memory"
    return (
        f"This build and {result['old'][:7]}, {machine(env)}, {photos(data)} on average, "
        f"{made(name, env, '../')}, ratios new to old:\n\n{table(columns, loaders)}\n\n"
        f"{table('command|>old, s|>new, s|>ratio', commands)}"
    )


def steps(name: str, result: dict[str, Any]) -> str:
    """Builds one after the other."""
    env, rows, before = result["environment"], [], None
    for revision, row in result["steps"].items():
        spent = row["cpu_ms_per_photo"]
        saved = "" if before is None else f"{1 - spent / before:.0%}"
        expected = "" if row["expected"] is None else f"{row['expected']:.0%}"
        rate = f"{row['images_per_sec']:,.0f}"
        rows.append([revision, row["step"], f"{spent:.2f}", expected, saved, rate])
        before = spent
    columns = "revision|step|>CPU per photo, ms|>expected to save|>saved|>images/s"
    return (
        f"{machine(env)}, {photos(result['data'])} on average, {made(name, env, '../')}:\n\n"
        f"{table(columns, rows)}"
    )
