"""What a figure is measured against: the floor of each loader, and the goals."""

from typing import Any

from benchmarks.gpu.rows import (
    AUGMENT,
    CACHE,
    CPU_WHOLE,
    CPU_WINDOW,
    DALI,
    DECODER,
    EAGER,
    MIX_WHOLE,
    MIX_WINDOW,
    PAPER,
    PLAN,
    READ,
    STOCK,
    SYNTHETIC,
    TORCHVISION,
)

Found = dict[str, Any]
SMALL, CAMERA = "small", "camera"
SIDE = 256
"""Photos whose median short side is at most this are `small`, others `camera`."""
SETS = {SMALL: "small photos", CAMERA: "camera photos"}
_GPU_DECODE = (MIX_WINDOW, MIX_WHOLE)
PASSES: dict[str, tuple[tuple[str, ...], ...]] = {
    PAPER: ((READ,), (CPU_WHOLE,)),
    TORCHVISION: ((PLAN,), (READ,), (CPU_WINDOW,)),
    DALI: ((PLAN,), (READ,), (CPU_WINDOW,), (AUGMENT,)),
    DECODER: ((PLAN,), (READ,), _GPU_DECODE, (AUGMENT,)),
    CACHE: ((PLAN,), (AUGMENT,)),
    STOCK: ((READ,), _GPU_DECODE),
}
"""Stages that each loader must pass; of alternatives the first that could be measured."""
TRAINED = {(SMALL, DALI): 0.95, (CAMERA, CACHE): 0.98}
TIMES = {DALI: 3.0, CACHE: 10.0}
SECONDS = 30.0


def rate(rows: Found, name: str) -> float | None:
    """Images/s of a row; None when it was not measured, or failed."""
    found: float | None = rows.get(name, {}).get("images_per_sec")
    return found


def floor(loader: str, photos: str, result: Found) -> tuple[str, float] | None:
    """(name, images/s) of the slowest stage that a loader must pass to train: its stages and the step.

    None when a stage has no figure: a floor without it would be too high.
    """
    floors = result.get("floors", {})
    parts, steps = floors.get(photos, {}), floors.get("step", {})
    stages: list[tuple[str, float]] = []
    for names in (*PASSES.get(loader, ()), (EAGER,)):
        rows = steps if names == (EAGER,) else parts
        measured = [(name, value) for name in names if (value := rate(rows, name)) is not None]
        if not measured:
            return None
        stages.append(measured[0])
    return min(stages, key=lambda stage: stage[1])


def add_shares(result: Found) -> None:
    """Write into each loader's row its floor and its share of it, into each trained one its share."""
    for photos, rows in result.get("loaders", {}).items():
        for name, row in rows.items():
            found = floor(name, photos, result)
            if found is not None and "images_per_sec" in row:
                row |= {"floor": found[0], "floor_share": row["images_per_sec"] / found[1]}
    for rows in result.get("train", {}).values():
        synthetic = rate(rows, SYNTHETIC)
        for row in rows.values():
            if synthetic and "images_per_sec" in row:
                row["synthetic_share"] = row["images_per_sec"] / synthetic


def goals(result: Found) -> list[Found]:
    """Each goal: its bound, what was wanted and found (None: not measured), and whether it holds."""
    found = []
    for (photos, loader), wanted in TRAINED.items():
        rows = result.get("train", {}).get(photos, {})
        share = _ratio(rate(rows, loader), rate(rows, SYNTHETIC))
        name = f"training with {loader} on {SETS[photos]}, share of the synthetic speed"
        found.append(_goal(name, "≥", wanted, share))
    for loader, wanted in TIMES.items():
        for photos in SETS:
            rows = result.get("loaders", {}).get(photos, {})
            times = _ratio(rate(rows, loader), rate(rows, PAPER))
            found.append(_goal(f"{loader} alone on {SETS[photos]}, times {PAPER}", "≥", wanted, times))
    seconds = result.get("recipe", {}).get("best_seconds")
    name = "configs/paper.yaml, seconds from start to best checkpoint"
    return [*found, _goal(name, "≤", SECONDS, seconds)]


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def _goal(name: str, bound: str, wanted: float, found: float | None) -> Found:
    holds = None if found is None else found >= wanted if bound == "≥" else found <= wanted
    return {"goal": name, "bound": bound, "wanted": wanted, "found": found, "holds": holds}


def as_words(goal: Found) -> str:
    """holds, does not hold, or not measured."""
    return {True: "holds", False: "does not hold", None: "not measured"}[goal["holds"]]
