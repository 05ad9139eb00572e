"""Tables of docs/compare.md and README's table of loaders on a CPU, from results files of compare.py."""

from collections.abc import Iterator
from typing import Any

from benchmarks.markdown import machine, made, photos, table
from benchmarks.peers import STEPS
from flowerfast.bench.result import measured

Rows = dict[str, dict[str, Any]]
PAPER, LIMIT, FOLDER = "paper's recipe", "decode only", "flowerfast folder"
RESOLUTION = {"full": "full size", "small": "short side 256"}
TITLES = {
    "compare": "Photos as they are",
    "compare-scaled": "12-megapixel photos",
}
GOALS = {
    FOLDER: 3.0,
    "flowerfast shards (256)": 5.0,
    "flowerfast decoded cache (256)": 8.0,
}
"""Speed over that of the paper's recipe on two cores that each way is meant to reach."""
AHEAD, SHARE = 1.3, 0.6
"""Speed meant to be reached over that of the best peer at the same resolution; share of the limit's."""
SCALED = "flowerfast folder decode_scale={}"


def section(name: str, result: dict[str, Any], parity: tuple[str, dict[str, Any]] | None = None) -> str:
    """Everything the page says of one results file; `parity` is that of scaled decoding."""
    return "\n\n".join(_parts(name, result, parity))


def _parts(name: str, result: dict[str, Any], parity: tuple[str, dict[str, Any]] | None) -> Iterator[str]:
    rows, kind = measured(result, "loader"), result["kind"]
    yield heading(name, result)
    yield f"![images/s of each loader]({name.removesuffix('.json')}.svg)"
    yield speeds(result, rows)
    yield from unmeasured(result)
    if kind == "compare":
        yield from against_peers(rows)
        yield from limit(rows)
    elif kind == "compare-scaled":
        yield from scaled(rows, parity)
    yield from idle(rows)
    yield "What each one does to a photo (– leaves it out):"
    yield work(rows)


def heading(name: str, result: dict[str, Any]) -> str:
    """Machine, photos and settings."""
    env, data, settings, small = (result.get(k) for k in ("environment", "data", "settings", "small"))
    shrunk = ""
    if small:
        pixels, size = small["mean_pixels"] / 1e6, small["mean_bytes"] / 1e3
        shrunk = f"; shrunk to short side 256: {pixels:.2f} megapixels, {size:,.0f} kB"
    versions = ", ".join(f"{package} {number}" for package, number in env["versions"].items())
    return (
        f"## {TITLES[result['kind']]}, {env['cores']} cores\n\n"
        f"{machine(env)}, {photos(data)} and {data['mean_bytes'] / 1e3:,.0f} kB on average{shrunk}; "
        f"batch {settings['batch_size']}, {settings['image_size']} px, {settings['rounds']} rounds of at "
        f"least {settings['seconds']:g} s, {made(name, env, '../')}. Versions: {versions}."
    )


def speeds(result: dict[str, Any], rows: Rows) -> str:
    """images/s of all rows; of those that decode JPEGs also what a core of the machine gets through."""
    cores, data = result["environment"]["cores"], {"full": result["data"], "small": result["small"]}
    base, marks, lines = rows.get(PAPER, {}).get("images_per_sec"), {"ours": "**", "limit": "*"}, []
    for name, row in rows.items():
        mark, rate = marks.get(row["role"], ""), row["images_per_sec"]
        ratio = f"{rate / base:.2f}" if base else ""
        busy = "" if row["cpu_cores"] is None else f"{row['cpu_cores']:.1f}"
        memory = "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:,.0f}"
        per_core = ("", "")
        if "decode" not in row["leaves_out"]:
            each = data[row["photos"]]
            amounts = (rate * each[key] / cores / 1e6 for key in ("mean_pixels", "mean_bytes"))
            per_core = tuple(f"{amount:,.1f}" for amount in amounts)
        figures = [f"{rate:,.0f}", f"{row['spread']:,.0f}", ratio, *per_core, busy, memory]
        lines.append([f"{mark}{name}{mark}", RESOLUTION[row["photos"]], *figures])
    columns = "loader|photos|>images/s|>±|>× paper's recipe|>megapixels/s per core|>MB/s of JPEG per core"
    return table(f"{columns}|>busy cores|>memory, MB", lines)


def unmeasured(result: dict[str, Any]) -> Iterator[str]:
    """The rows without figures, and why."""
    lost = {name: row for name, row in result["loader"].items() if "error" in row}
    lines = [f"- {name}: {'skipped' if r['skipped'] else 'failed'}: {r['error']}" for name, r in lost.items()]
    if lines:
        yield "Not measured:\n\n" + "\n".join(lines)


def best_peer(rows: Rows, resolution: str) -> tuple[str, float] | None:
    """(name, images/s) of the fastest loader of others at a resolution, the paper's among them."""
    rates = {
        name: row["images_per_sec"]
        for name, row in rows.items()
        if row["role"] in ("peer", "paper") and row["photos"] == resolution
    }
    return max(rates.items(), key=lambda item: item[1]) if rates else None


def against_peers(rows: Rows) -> Iterator[str]:
    """Our rows against the paper's recipe and the best peer at the same resolution."""
    lines = []
    for name, row in rows.items():
        if row["role"] != "ours":
            continue
        rate, best = row["images_per_sec"], best_peer(rows, row["photos"])
        over_paper = f"{rate / rows[PAPER]['images_per_sec']:.2f}" if PAPER in rows else ""
        over_best = (best[0], f"{rate / best[1]:.2f}") if best else ("", "")
        goals = (f"{GOALS[name]:g}", f"{AHEAD:g}") if name in GOALS else ("", "")
        lines.append([name, over_paper, goals[0], *over_best, goals[1]])
    columns = "|>× paper's recipe|>goal on two cores|best peer at the same resolution|>× best peer|>goal"
    if lines:
        yield table(columns, lines)


def limit(rows: Rows) -> Iterator[str]:
    """Share of the decoder's own speed that the folder path reaches."""
    if LIMIT in rows and FOLDER in rows:
        share = rows[FOLDER]["images_per_sec"] / rows[LIMIT]["images_per_sec"]
        yield (
            f"The folder path reaches {share:.0%} of the speed of decoding alone, which is the wall for a "
            f"loader that decodes whole JPEGs (goal {SHARE:.0%})."
        )


def scaled(rows: Rows, parity: tuple[str, dict[str, Any]] | None = None) -> Iterator[str]:
    """What scaled decoding gains, and its cost by a results file (name, content) of `flowerfast parity`."""
    off, auto = (rows.get(SCALED.format(value)) for value in ("off", "auto"))
    if off is None or auto is None:
        return
    gain = auto["images_per_sec"] / off["images_per_sec"]
    text = f"`data.decode_scale=auto` is {gain:.2f} times as fast as `off` on these photos."
    if parity is not None:
        steps = {step["step"]: step for step in parity[1]["steps"]}
        chain, whole = steps["whole chain"], steps["evaluation"]
        text += (
            f" Its pixels differ from those of whole photos by {chain['mean']:.2f} of 255 on average in "
            f"random crops (99th percentile {chain['p99']:g}) and by {whole['mean']:.2f} in evaluation "
            f"({whole['p99']:g}), by `flowerfast parity --backend cpu --set data.decode_scale=auto` "
            f"([{parity[0]}](../benchmarks/results/{parity[0]})): more than backends may differ, so it is "
            "off unless asked for."
        )
    yield text


def idle(rows: Rows) -> Iterator[str]:
    """Whether those whose turn it was not kept still."""
    known = {name: row["idle_cores"] for name, row in rows.items() if row["idle_cores"] is not None}
    if known:
        name, most = max(known.items(), key=lambda item: item[1])
        foreign = max(row["foreign_cores"] for row in rows.values())
        yield (
            f"While others were measured none kept more than {most:.3f} cores busy (the most: {name}). "
            f"Other processes of the machine kept at most {foreign:.2f} cores busy (median of a row's "
            "rounds)."
        )


def work(rows: Rows) -> str:
    """Which steps of the paper's recipe each row does."""
    lines = []
    for name, row in rows.items():
        marks = ("–" if step in row["leaves_out"] else "✓" for step in STEPS)
        lines.append([name, *marks, row["remark"]])
    return table("|".join(["loader", *(f"^{step}" for step in STEPS), "otherwise"]), lines)


def headline(name: str, result: dict[str, Any], short: bool = False) -> str:
    """README's table: the loaders of one results file, fastest first, without limits and variants.

    `short`: of others those alone that are the fastest at their resolution, and the paper's.
    """
    env, rows = result["environment"], measured(result, "loader")
    base, lines = rows[PAPER]["images_per_sec"], []
    best = {found[0] for size in RESOLUTION if (found := best_peer(rows, size))} | {PAPER}
    for loader, row in sorted(rows.items(), key=lambda item: -item[1]["images_per_sec"]):
        ours, rate = row["role"] == "ours", row["images_per_sec"]
        if (
            row["role"] == "limit"
            or (ours and loader not in GOALS)
            or (short and not ours and loader not in best)
        ):
            continue
        without = ", ".join(step for step in row["leaves_out"] if step not in ("normalise", "decode"))
        named = f"**{loader}**" if ours else loader
        lines.append([named, RESOLUTION[row["photos"]], f"{rate:,.0f}", f"{rate / base:.1f}", without])
    columns = "loader|photos|>images/s|>× paper's recipe|leaves out"
    return (
        f"{machine(env)}, {photos(result['data'])} on average, {result['settings']['image_size']} px, "
        f"{made(name, env)}:\n\n{table(columns, lines)}"
    )
