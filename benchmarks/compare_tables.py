"""Tables of docs/compare.md, from one results file of compare.py."""

from typing import Any

Rows = dict[str, dict[str, Any]]
STEPS = ("decode", "crop", "flip", "rotate", "jitter", "translate", "normalise", "shuffle")
PAPER, LIMIT, FOLDER = "paper's recipe", "decode only", "flowerfast folder"
RESOLUTION = {"full": "full size", "small": "short side 256"}
TITLES = {
    "compare": "Photos as they are",
    "compare-scaled": "12-megapixel photos",
    "compare-workers": "Threads and processes",
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
    rows = measured(result)
    parts = [heading(name, result), f"![images/s of each loader]({name.removesuffix('.json')}.svg)"]
    parts += [speeds(rows), *unmeasured(result)]
    if result["kind"] == "compare":
        parts += [against_peers(rows), *limit(rows)]
    elif result["kind"] == "compare-scaled":
        parts += scaled(rows, parity)
    parts += idle(rows)
    if result["kind"] != "compare-workers":
        parts += ["What each one does to a photo (– leaves it out):", work(rows)]
    return "\n\n".join(part for part in parts if part)


def measured(result: dict[str, Any]) -> Rows:
    """The rows that have figures."""
    return {name: row for name, row in result["loader"].items() if "error" not in row}


def heading(name: str, result: dict[str, Any]) -> str:
    """Machine, photos and settings."""
    env, data, settings = result["environment"], result["data"], result["settings"]
    title = TITLES[result["kind"]]
    small = result.get("small")
    shrunk = (
        f"; shrunk to short side 256: {small['mean_pixels'] / 1e6:.2f} megapixels, "
        f"{small['mean_bytes'] / 1e3:,.0f} kB"
        if small
        else ""
    )
    versions = ", ".join(f"{package} {number}" for package, number in env["versions"].items())
    return (
        f"## {title}, {env['cores']} cores\n\n"
        f"{env['cpu'] or env['device']}, {env['cores']} cores, {data['photos']:,} photos of "
        f"{data['mean_pixels'] / 1e6:.2f} megapixels and {data['mean_bytes'] / 1e3:,.0f} kB on average"
        f"{shrunk}; batch {settings['batch_size']}, {settings['image_size']} px, "
        f"{settings['rounds']} rounds of at least {settings['seconds']:g} s, {env['date']} "
        f"([{name}](../benchmarks/results/{name})). Versions: {versions}."
    )


def speeds(rows: Rows) -> str:
    """images/s of all rows."""
    base = rows.get(PAPER, {}).get("images_per_sec")
    lines = [
        "| loader | photos | images/s | ± | × paper's recipe | busy cores | memory, MB |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        shown = f"**{name}**" if row["role"] == "ours" else f"*{name}*" if row["role"] == "limit" else name
        ratio = f"{row['images_per_sec'] / base:.2f}" if base else ""
        cores = "" if row["cpu_cores"] is None else f"{row['cpu_cores']:.1f}"
        memory = "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:,.0f}"
        lines.append(
            f"| {shown} | {RESOLUTION[row['photos']]} | {row['images_per_sec']:,.0f} | {row['spread']:,.0f} "
            f"| {ratio} | {cores} | {memory} |"
        )
    return "\n".join(lines)


def unmeasured(result: dict[str, Any]) -> list[str]:
    """The rows without figures, and why."""
    lost = {name: row for name, row in result["loader"].items() if "error" in row}
    lines = [f"- {name}: {'skipped' if r['skipped'] else 'failed'}: {r['error']}" for name, r in lost.items()]
    return ["Not measured:\n\n" + "\n".join(lines)] if lines else []


def best_peer(rows: Rows, photos: str) -> tuple[str, float] | None:
    """(name, images/s) of the fastest loader of others at a resolution, the paper's among them."""
    rates = {
        name: row["images_per_sec"]
        for name, row in rows.items()
        if row["role"] in ("peer", "paper") and row["photos"] == photos
    }
    return max(rates.items(), key=lambda item: item[1]) if rates else None


def against_peers(rows: Rows) -> str:
    """Our rows against the paper's recipe and the best peer at the same resolution."""
    lines = [
        "| | × paper's recipe | goal on two cores | best peer at the same resolution | × best peer | goal |",
        "|---|--:|--:|---|--:|--:|",
    ]
    for name, row in rows.items():
        if row["role"] != "ours":
            continue
        rate, best = row["images_per_sec"], best_peer(rows, row["photos"])
        over_paper = f"{rate / rows[PAPER]['images_per_sec']:.2f}" if PAPER in rows else ""
        over_best = f"{best[0]} | {rate / best[1]:.2f}" if best else "|"
        goal = GOALS.get(name)
        goals = (f"{goal:g}", f"{AHEAD:g}") if goal else ("", "")
        lines.append(f"| {name} | {over_paper} | {goals[0]} | {over_best} | {goals[1]} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def limit(rows: Rows) -> list[str]:
    """Share of the decoder's own speed that the folder path reaches."""
    if LIMIT not in rows or FOLDER not in rows:
        return []
    share = rows[FOLDER]["images_per_sec"] / rows[LIMIT]["images_per_sec"]
    return [
        f"The folder path reaches {share:.0%} of the speed of decoding alone, which is the wall for a loader "
        f"that decodes whole JPEGs (goal {SHARE:.0%})."
    ]


def scaled(rows: Rows, parity: tuple[str, dict[str, Any]] | None = None) -> list[str]:
    """What scaled decoding gains, and its cost by a results file (name, content) of `flowerfast parity`."""
    off, auto = (rows.get(SCALED.format(value)) for value in ("off", "auto"))
    if off is None or auto is None:
        return []
    gain = auto["images_per_sec"] / off["images_per_sec"]
    text = f"`data.decode_scale=auto` is {gain:.2f} times as fast as `off` on these photos."
    if parity is not None:
        steps = {step["step"]: step for step in parity[1]["steps"]}
        chain, whole = steps["whole chain"], steps["evaluation"]
        text += (
            f" Its pixels differ from those of whole photos by {chain['mean']:.2f} of 255 on average in "
            f"random crops (99th percentile {chain['p99']:g}) and by {whole['mean']:.2f} in evaluation "
            f"({whole['p99']:g}), by `flowerfast parity --backend torchvision --set data.decode_scale=auto` "
            f"([{parity[0]}](../benchmarks/results/{parity[0]})): more than backends may differ, so it is "
            "off unless asked for."
        )
    return [text]


def headline(name: str, result: dict[str, Any]) -> str:
    """README's table: the loaders of one results file, fastest first, without limits and variants."""
    env, data, rows = result["environment"], result["data"], measured(result)
    base = rows[PAPER]["images_per_sec"]
    lines = [
        f"{env['cpu'] or env['device']}, {env['cores']} cores, {data['photos']:,} photos of "
        f"{data['mean_pixels'] / 1e6:.2f} megapixels on average, {result['settings']['image_size']} px, "
        f"{env['date']} ([{name}](benchmarks/results/{name})):\n",
        "| loader | photos | images/s | × paper's recipe | leaves out |",
        "|---|---|--:|--:|---|",
    ]
    for loader, row in sorted(rows.items(), key=lambda item: -item[1]["images_per_sec"]):
        if row["role"] == "limit" or (row["role"] == "ours" and loader not in GOALS):
            continue
        shown = f"**{loader}**" if row["role"] == "ours" else loader
        rate = row["images_per_sec"]
        without = ", ".join(step for step in row["leaves_out"] if step not in ("normalise", "decode"))
        lines.append(
            f"| {shown} | {RESOLUTION[row['photos']]} | {rate:,.0f} | {rate / base:.1f} | {without} |"
        )
    return "\n".join(lines)


def idle(rows: Rows) -> list[str]:
    """Whether those whose turn it was not kept still."""
    known = {name: row["idle_cores"] for name, row in rows.items() if row["idle_cores"] is not None}
    if not known:
        return []
    name, most = max(known.items(), key=lambda item: item[1])
    foreign = max(row["foreign_cores"] for row in rows.values())
    return [
        f"While others were measured none kept more than {most:.3f} cores busy (the most: {name}). "
        f"Other processes of the machine kept at most {foreign:.2f} cores busy (median of a row's rounds)."
    ]


def work(rows: Rows) -> str:
    """Which steps of the paper's recipe each row does."""
    lines = [f"| loader | {' | '.join(STEPS)} | otherwise |", f"|---|{':-:|' * len(STEPS)}---|"]
    for name, row in rows.items():
        marks = " | ".join("–" if step in row["leaves_out"] else "✓" for step in STEPS)
        lines.append(f"| {name} | {marks} | {row['remark']} |")
    return "\n".join(lines)
