"""A plan in words says its own numbers, and its steps are those of the chain."""

import re

import numpy as np
import pytest

from flowerfast.augment import Augment
from flowerfast.kernels.operations import Operation
from flowerfast.plans.plan import COLUMNS, Plan, make_plan
from flowerfast.showing.steps import FINISH_STEPS, STEPS, numbers, plan_until, sentences, wanted_steps

ALL = Augment(
    vflip=0.5, saturation=0.4, hue=0.2, grey=0.5, policy="rand", blur=0.5, erase=0.5
)  # fmt: skip
COUNT = 40


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Plans with all that there is but mixing."""
    width, height = np.full(COUNT, 500), np.full(COUNT, 333)
    return make_plan(7, 3, np.arange(COUNT), (width, height), ALL, 96)


def said(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d+(?:\.\d+)?", text)]


def test_numbers_are_the_plans(plan: Plan) -> None:
    for row in range(COUNT):
        told = numbers(plan, row)
        assert {name: told[name] for name in COLUMNS} == {
            name: getattr(plan, name)[row].item() for name in COLUMNS
        }
        assert plan.finish is not None
        assert told["finish"]["magnitude"] == plan.finish.magnitude[row].tolist()


def test_sentences_say_the_numbers(plan: Plan) -> None:
    assert plan.finish is not None
    seen = set()
    for row in range(COUNT):
        told, finish = sentences(plan, row), plan.finish
        seen |= {*told}
        window = [plan.width[row], plan.height[row], plan.left[row], plan.top[row]]
        assert said(told["crop"].replace("x", " ")) == window
        assert told["flip"] == ("flipped" if plan.flip[row] else "not flipped")
        assert said(told["rotation"]) == [pytest.approx(plan.angle[row], abs=0.005)]
        factors = [plan.brightness[row], plan.contrast[row]]
        order = ["brightness", "contrast"]
        if plan.contrast_first[row]:
            factors, order = factors[::-1], order[::-1]
        assert said(told["jitter"]) == pytest.approx(factors, abs=0.0005)
        assert re.findall("[a-z]+", told["jitter"]) == order
        assert said(told["shift"]) == [plan.shift_x[row], plan.shift_y[row]]
        assert ("vertical flip" in told) == finish.vflip[row]
        assert ("grey" in told) == finish.grey[row]
        assert said(told["hue"]) == [pytest.approx(finish.hue[row], abs=0.0005)]
        assert said(told["saturation"]) == [pytest.approx(finish.saturation[row], abs=0.0005)]
        names = [Operation(each).name.replace("_", " ") for each in finish.operation[row]]
        assert re.findall(r"([a-z][a-z ]+) [+-]", told["policy"].removeprefix("policy: ")) == names
        assert said(told["policy"]) == pytest.approx(finish.magnitude[row].tolist(), abs=0.006)
        assert ("blur" in told) == (finish.sigma[row] > 0)
        if "erasing" in told:
            box = [finish.erase_width, finish.erase_height, finish.erase_left, finish.erase_top]
            assert said(told["erasing"].replace("x", " ")) == [side[row] for side in box]
    assert seen == {*STEPS, *FINISH_STEPS}


def test_each_step_leaves_out_what_comes_after_it(plan: Plan) -> None:
    neutral = {"flip": 0, "angle": 0, "brightness": 1, "contrast": 1, "shift_x": 0, "shift_y": 0}
    kept = {"crop": 0, "flip": 1, "rotation": 2, "jitter": 4, "shift": 6}
    for step, count in kept.items():
        until = plan_until(plan, step)
        assert until.finish is None
        for place, (name, value) in enumerate(neutral.items()):
            expected = getattr(plan, name) if place < count else np.full(COUNT, value)
            assert np.array_equal(getattr(until, name), expected), (step, name)
        assert np.array_equal(until.top, plan.top)
    columns = {
        "vflip": 0,
        "saturation": 1,
        "hue": 0,
        "grey": 0,
        "magnitude": 0,
        "sigma": 0,
        "erase_height": 0,
    }
    for place, step in enumerate(FINISH_STEPS):
        until = plan_until(plan, step)
        assert until.finish is not None
        assert plan.finish is not None
        assert np.array_equal(until.shift_x, plan.shift_x)
        for column, (name, value) in enumerate(columns.items()):
            whole = getattr(plan.finish, name)
            expected = whole if column <= place else np.full_like(whole, value)
            assert np.array_equal(getattr(until.finish, name), expected), (step, name)
        if place < FINISH_STEPS.index("policy"):
            assert (until.finish.operation == Operation.identity).all()


def test_steps_that_no_setting_turns_on_are_left_out() -> None:
    assert wanted_steps(Augment()) == STEPS
    assert wanted_steps(ALL) == (*STEPS, *FINISH_STEPS)
    assert wanted_steps(Augment.preset("none")) == ("crop",)
    assert wanted_steps(Augment.preset("strong")) == ("crop", "flip", "policy", "erasing")
