"""A plan step by step, and in words."""

from dataclasses import fields, replace
from typing import Any

import numpy as np

from flowerfast.augment import Augment
from flowerfast.kernels.operations import Operation
from flowerfast.plans.mixing import WHOLE
from flowerfast.plans.plan import COLUMNS, Plan

STEPS = ("crop", "flip", "rotation", "jitter", "shift")
"""Those of the chain. Each picture of a step has what the steps before it did too."""
FINISH_STEPS = ("vertical flip", "saturation", "hue", "grey", "policy", "blur", "erasing")
"""Those of a finished square."""
_CHAIN: tuple[dict[str, Any], ...] = (
    {"flip": False},
    {"angle": 0},
    {"brightness": 1, "contrast": 1, "contrast_first": False},
    {"shift_x": 0, "shift_y": 0},
)
_FINISH: tuple[dict[str, Any], ...] = (
    {"vflip": False},
    {"saturation": 1},
    {"hue": 0},
    {"grey": False},
    {"operation": Operation.identity, "magnitude": 0},
    {"sigma": 0},
    {"erase_top": 0, "erase_left": 0, "erase_height": 0, "erase_width": 0},
)
"""What leaves out each step but the crop: columns and their neutral values."""


def wanted_steps(augment: Augment) -> tuple[str, ...]:
    """The steps that some setting turns on, in their order; the crop always."""
    on = {
        "flip": augment.flip,
        "rotation": augment.rotate,
        "jitter": max(augment.brightness, augment.contrast),
        "shift": augment.translate,
        "vertical flip": augment.vflip,
        "saturation": augment.saturation,
        "hue": augment.hue,
        "grey": augment.grey,
        "policy": augment.policy != "none",
        "blur": augment.blur,
        "erasing": augment.erase,
    }
    return tuple(step for step in (*STEPS, *FINISH_STEPS) if on.get(step, True))


def plan_until(plan: Plan, step: str) -> Plan:
    """The plan with all that comes after a step left out."""
    if step in FINISH_STEPS:
        if plan.finish is None:
            return plan
        return replace(plan, finish=_neutral(plan.finish, _FINISH[FINISH_STEPS.index(step) + 1 :]))
    cut: Plan = _neutral(plan, _CHAIN[STEPS.index(step) :])
    return replace(cut, finish=None)


def _neutral(of: Any, steps: tuple[dict[str, Any], ...]) -> Any:
    values = {name: value for step in steps for name, value in step.items()}
    return replace(of, **{name: np.full_like(getattr(of, name), value) for name, value in values.items()})


def numbers(plan: Plan, row: int) -> dict[str, Any]:
    """All that the plan says of a sample, by the names of its columns, in types that JSON knows."""
    told = {name: getattr(plan, name)[row].item() for name in COLUMNS}
    for name, part in (("finish", plan.finish), ("mix", plan.mix)):
        if part is not None:
            told[name] = {each.name: getattr(part, each.name)[row].tolist() for each in fields(part)}
    return told


def sentences(plan: Plan, row: int) -> dict[str, str]:
    """What the plan does to a sample, by step; steps of a finished square only where they do something."""
    n = numbers(plan, row)
    jitter = [f"brightness {n['brightness']:.3f}", f"contrast {n['contrast']:.3f}"]
    told = {
        "crop": f"crop {n['width']}x{n['height']} at {n['left']}, {n['top']}",
        "flip": "flipped" if n["flip"] else "not flipped",
        "rotation": f"rotated {n['angle']:+.2f}°",
        "jitter": ", ".join(reversed(jitter) if n["contrast_first"] else jitter),
        "shift": f"shift {n['shift_x']:+d}, {n['shift_y']:+d}",
    }
    return told | _finished(n["finish"]) if plan.finish is not None else told


def _finished(n: dict[str, Any]) -> dict[str, str]:
    operations = [
        f"{Operation(operation).name.replace('_', ' ')} {magnitude:+.2f}"
        for operation, magnitude in zip(n["operation"], n["magnitude"], strict=True)
    ]
    erased = f"erased {n['erase_width']}x{n['erase_height']} at {n['erase_left']}, {n['erase_top']}"
    told = {
        "vertical flip": "upside down" * n["vflip"],
        "saturation": f"saturation {n['saturation']:.3f}" * (n["saturation"] != 1),
        "hue": f"hue {n['hue']:+.3f}" * (n["hue"] != 0),
        "grey": "grey" * n["grey"],
        "policy": f"policy: {', '.join(operations)}" * bool(operations),
        "blur": f"blur {n['sigma']:.2f}" * (n["sigma"] > 0),
        "erasing": erased * (n["erase_height"] > 0),
    }
    return {step: text for step, text in told.items() if text}


def mixed_lines(plan: Plan, row: int, partner: str) -> tuple[str, ...]:
    """How a sample is mixed with its partner, whose path is the last line; empty: it is not."""
    if plan.mix is None or plan.mix.partners()[row] == row or plan.mix.own[row] == WHOLE:
        return ()
    n = numbers(plan, row)["mix"]
    if (n["width"], n["height"]) == (plan.size, plan.size):
        return f"mixed: {n['own'] / WHOLE:.3f} its own, the rest of", partner
    return f"mixed: {n['width']}x{n['height']} at {n['left']}, {n['top']} of", partner
