"""What the graph is fed: turns about the centre, pieces of memory by their own bytes, plans as arrays."""

import ctypes
from dataclasses import replace

import numpy as np
import torch

from flowerfast.loaders.dali.inputs import DeviceArray, arguments, rotation
from flowerfast.plans.plan import make_eval_plan


def test_rotation_turns_about_the_centre() -> None:
    matrices = rotation(np.array([0, 90, 17], np.float32), 10)
    np.testing.assert_allclose(matrices[0], [[1, 0, 0], [0, 1, 0]], atol=1e-6)
    centre = matrices @ np.array([5, 5, 1], np.float32)
    np.testing.assert_allclose(centre, 5, atol=1e-5)
    # Counter-clockwise by 90 degrees: the output's top left shows the input's top right.
    np.testing.assert_allclose(matrices[1] @ [0, 0, 1], [10, 0], atol=1e-5)


def test_a_device_array_names_its_own_bytes() -> None:
    store = torch.arange(100, dtype=torch.uint8)
    piece = DeviceArray(store, 7, (2, 3, 3))
    face = piece.__cuda_array_interface__
    assert (face["shape"], face["typestr"]) == ((2, 3, 3), "|u1")
    assert list((ctypes.c_uint8 * 18).from_address(face["data"][0])) == list(range(7, 25))


def test_a_flip_is_a_negative_width_and_a_shift_a_corner() -> None:
    plan = make_eval_plan(np.zeros(2), (np.full(2, 50), np.full(2, 40)), 32, 1.0)
    flip, right, down = np.array([False, True]), np.array([3, 0]), np.array([-2, 0])
    found = arguments(replace(plan, flip=flip, shift_x=right, shift_y=down), np.ones(len(plan), np.int64))
    assert found["size"].tolist() == [[32, 40], [32, -40]]
    assert found["corner"].tolist() == [[2, 1], [0, 4]]
