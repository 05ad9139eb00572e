"""Operations of the augmentation policies, by number. Imports no numba."""

from enum import IntEnum


class Operation(IntEnum):
    """One of a policy's operations, in torchvision's order; what its magnitude means."""

    identity = 0
    shear_x = 1
    """Tangent of the angle by which columns lean."""
    shear_y = 2
    """Tangent of the angle by which rows lean."""
    translate_x = 3
    """Pixels to the right; its fraction is dropped."""
    translate_y = 4
    """Pixels down; its fraction is dropped."""
    rotate = 5
    """Degrees, counter-clockwise."""
    brightness = 6
    """Factor, less 1; so it is of the next three."""
    colour = 7
    contrast = 8
    sharpness = 9
    posterize = 10
    """Bits that are kept of each level."""
    solarize = 11
    """Share of 255 from which levels are inverted."""
    auto_contrast = 12
    equalize = 13
