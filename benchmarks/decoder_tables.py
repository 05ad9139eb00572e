"""Tables of docs/decoders.md, from the results of `decoders.py` and `serving.py`."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import machine, made, photos, table

_NEAR = 10.0
"""Levels on average up to which colours are the same ones, mixed otherwise: chroma brought to full size by
another rule, or bits filled up by another. Of what was counted as other, the least was 30."""
_ENDS = {"refused": "refused", "batch lost": "batch lost", "crashed": "crash"}
_COUNTED = ("equal", "±1", "near", "other", "all frames", "16 bits", "refused", "batch lost", "crash")


def cell(answer: dict[str, Any]) -> str:
    """What came of a file, in a word or two."""
    if answer["end"] != "pixels":
        return _ENDS[answer["end"]]
    if "dtype" in answer:
        return "16 bits"
    if "frames" in answer:
        return "all frames"
    if "shape" in answer:
        return "other size"
    if "beside" in answer:
        return "reads it"
    apart = _apart(answer)
    if "turned" in answer:
        how = "turned" if answer["turned"] else "as stored"
        return how if apart == "equal" else f"{how}, {apart}"
    return apart


def _apart(answer: dict[str, Any]) -> str:
    if answer["most"] <= 1:
        return "±1" if answer["most"] else "equal"
    return "near" if answer["mean"] <= _NEAR else "other"


def decoders(name: str, result: dict[str, Any]) -> str:
    """Which decoder makes what of which kinds; kinds of a format that fare alike share a row."""
    env, found = result["environment"], result["decoders"]
    there = {decoder: each["kinds"] for decoder, each in found.items() if "kinds" in each}
    rows: dict[tuple[str, ...], list[str]] = {}
    for kind in result["kinds"]:
        form, _, rest = kind.partition("-")
        cells = tuple(cell(kinds[kind]) for kinds in there.values())
        rows.setdefault((form, *cells), []).append(rest or "plain")
    lines = [[f"{form}: {', '.join(kinds)}", *map(_bold, cells)] for (form, *cells), kinds in rows.items()]
    about = f"{machine(env)}, {len(result['kinds'])} kinds, {made(name, env, '../')}"
    said = [f"{about}. Versions: {_versions(found)}."]
    if absent := [decoder for decoder in found if decoder not in there]:
        said.append(f"Not installed there: {', '.join(absent)}.")
    if result["left_out"]:
        said.append(f"Not written there: {', '.join(result['left_out'])}.")
    columns = "|".join(["kinds", *there])
    return f"{' '.join(said)}\n\n{_counts(there)}\n\n{table(columns, lines)}"


def _counts(there: dict[str, dict[str, Any]]) -> str:
    """How many kinds come to which end; those stored turned count by their pixels."""
    rows: list[Sequence[str]] = []
    for decoder, kinds in there.items():
        counts = Counter(_apart(answer) if "turned" in answer else cell(answer) for answer in kinds.values())
        rows.append([decoder, *(str(counts[what] or "") for what in _COUNTED)])
    return table("|".join(["decoder", *(f">{what}" for what in _COUNTED)]), rows)


def _bold(words: str) -> str:
    """What gives a network other pixels without a word, or costs more than a file, stands out."""
    return f"**{words}**" if words in ("other", "batch lost", "crash", "turned", "turned, near") else words


def _versions(found: dict[str, Any]) -> str:
    named: dict[str, str] = {}
    for each in found.values():
        named |= each.get("versions", {})
    return ", ".join(f"{package} {version}" for package, version in named.items())


def serving(name: str, result: dict[str, Any]) -> str:
    """One trained run, its photos decoded and resized by each way."""
    rows: list[Sequence[str]] = []
    for way, row in result["ways"].items():
        if "missing" in row:
            rows.append([way, row["missing"], "", "", "", "", ""])
            continue
        shares = (f"{row[key]:.1%}" for key in ("top1", "changed"))
        levels = (f"{row['differ']:.1%}", f"{row['mean']:.2f}", str(row["most"]))
        rows.append([way, *shares, f"{row['shift']:.3f}", *levels])
    env = result["environment"]
    about = f"`{result['model']}`, {result['image_size']} px, {photos(result['data'])} on average"
    columns = (
        "decoder and resize|>top-1|>answers changed|>confidence shift|>values that differ"
        "|>levels, on average|>levels, at most"
    )
    return f"{about}, {made(name, env, '../')}:\n\n{table(columns, rows)}"
