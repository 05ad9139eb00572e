"""Tables of docs/resume.md and docs/remote.md, from the results of `resume.py` and `one_bucket.py`."""

from typing import Any

from benchmarks.markdown import machine, made, photos, table

_SEQUENCES = {"same": "same", "batches": "same batches", "samples": "other batches", "other": "other"}


def cell(case: dict[str, Any], augments: str) -> str:
    """What became of the rest of the epoch, in a few words."""
    if "error" in case:
        return f"**{case['error'].split(':')[0]}**"
    words = [_SEQUENCES[case["sequence"]]]
    words += [f"**{case[what]} {what}**" for what in ("lost", "repeated") if case[what]]
    if augments != "nobody" and case["pixels"] is not None:
        words.append("same pixels" if case["pixels"] == 1 else "other pixels")
    if case["sequence"] in ("same", "batches") and case["next"] not in ("same", "batches"):
        words.append("next epoch in another order")
    return ", ".join(words)


def resume(name: str, result: dict[str, Any]) -> str:
    """What each loader does after a kill in the middle of an epoch."""
    env, grid, cases = result["environment"], result["grid"], result["cases"]
    measured = {row["name"]: row for row in result["peers"].values() if "cases" in row}
    before = f"{grid['ranks']} × {grid['workers']}"
    said = (
        f"{machine(env)}, {photos(result['data'])} on average, batches of {grid['batch']}, {before} workers, "
        f"killed after {grid['after_batches']} batches of the second epoch, {made(name, env, '../')}."
    )
    now = [f"{before} → {case['ranks']} × {case['workers']}" for case in cases.values()]
    rows = [
        [loader, *(cell(row["cases"][case], row["augments"]) for case in cases)]
        for loader, row in measured.items()
    ]
    parts = [f"{said}\n\n{table('|'.join(['loader', *now]), rows)}", _costs(measured)]
    ways = [f"- **{loader}**: {row['way']} ({_versions(row)})." for loader, row in measured.items()]
    parts.append("How each was resumed, by its own documentation:\n\n" + "\n".join(ways))
    errors = [
        f"- {loader}, {case}: `{found['error']}`"
        for loader, row in measured.items()
        for case, found in row["cases"].items()
        if "error" in found
    ]
    if errors:
        parts.append("What refused said:\n\n" + "\n".join(errors))
    failed = [f"{row['name']} ({row['error']})" for row in result["peers"].values() if "error" in row]
    if failed:
        parts.append(f"Not measured: {', '.join(failed)}.")
    return "\n\n".join(parts)


def _costs(measured: dict[str, dict[str, Any]]) -> str:
    """Sizes, seconds, and work done again."""
    rows = []
    for loader, row in measured.items():
        seconds, same = row["seconds"], row["cases"]["same"]
        counted = row["name"] not in ("DALI CPU operators", "flowerfast")
        took = (
            ["", "", ""]
            if "error" in seconds
            else [f"{seconds['new']:.2f}", f"{seconds['resumed']:.2f}", f"{seconds['ratio']:.2f}"]
        )
        again = str(same["decoded_again"]) if counted and "error" not in same else ""
        rows.append([loader, f"{row['state_bytes']['of a rank']:,}", *took, again])
    columns = (
        "loader|>state of a rank, bytes|>first batch of a new run, s|>of a resumed one, s|>ratio"
        "|>photos decoded again before it"
    )
    return table(columns, rows)


def _versions(row: dict[str, Any]) -> str:
    return ", ".join(f"{package} {version}" for package, version in row["versions"].items())


def streaming(name: str, result: dict[str, Any], resumed: dict[str, Any] | None) -> str:
    """Loaders on the same bucket, with what `resume.json` says of their sequence on other ranks."""
    env, settings = result["environment"], result["settings"]
    measured = {peer: row for peer, row in result["peers"].items() if "median" in row}
    said = (
        f"{machine(env)}, {photos(result['data'])} on average, {settings['image_size']} px, batches of "
        f"{settings['batch_size']}, {settings['workers']} workers, shards of "
        f"{settings['shard_bytes'] / 1e6:g} MB, each request waits {settings['latency_ms']:g} ms, medians of "
        f"{settings['rounds']} rounds, {made(name, env, '../')}."
    )
    speeds, costs = [], []
    for peer, row in measured.items():
        found = row["median"]
        cold, warm = found["cold"], found["warm"]
        speeds.append(
            [
                row["name"],
                *(f"{each['images_per_sec']:,.0f} ± {each['spread']:,.0f}" for each in (cold, warm)),
                f"{found['memory_bytes'] / 1e6:,.0f}",
                *(f"{found[each]:.2f}" for each in ("first_batch",)),
                *(f"{found[each]['seconds']:.2f}" for each in ("resume_warm", "resume_cold")),
                _elsewhere(peer, resumed),
            ]
        )
        costs.append(
            [
                row["name"],
                f"{row['stored']['bytes'] / 1e6:,.1f} MB in {row['stored']['objects']}",
                *(_traffic(found[each]) for each in ("cold", "warm", "resume_warm", "resume_cold")),
            ]
        )
    first = table(
        "loader|>images/s, cold cache|>images/s, warm cache|>memory, MB|>first batch, s"
        "|>resumed, warm cache, s|>resumed, empty cache, s|sequence after a resume",
        speeds,
    )
    second = table(
        "loader|>objects|>epoch, cold cache|>epoch, warm cache|>first batch resumed, warm cache"
        "|>first batch resumed, empty cache",
        costs,
    )
    versions = {key: value for row in measured.values() for key, value in row["versions"].items()}
    named = ", ".join(f"{package} {version}" for package, version in versions.items())
    failed = [f"{row['name']} ({row['error']})" for row in result["peers"].values() if "error" in row]
    absent = f" Not measured: {', '.join(failed)}." if failed else ""
    counted = "Requests and bytes, counted by the server:"
    return f"{said} Versions: {named}.{absent}\n\n{first}\n\n{counted}\n\n{second}"


def _traffic(found: dict[str, Any]) -> str:
    return f"{found['requests']:,.0f} / {found['bytes'] / 1e6:,.1f} MB"


def _elsewhere(peer: str, resumed: dict[str, Any] | None) -> str:
    """Sequences on another number of workers and ranks."""
    row = (resumed or {"peers": {}})["peers"].get(peer.removesuffix("_blocks"), {})
    cells = {case: cell(found, "nobody") for case, found in row.get("cases", {}).items()}
    ranks = dict.fromkeys(said for case, said in cells.items() if case.endswith(("rank", "ranks")))
    workers = dict.fromkeys(said for case, said in cells.items() if case.endswith("workers"))
    return f"workers: {', '.join(workers)}; ranks: {', '.join(ranks)}" if cells else ""
