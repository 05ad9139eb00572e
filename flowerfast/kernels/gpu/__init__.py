"""The steps after decoding as Triton kernels, for photos that lie in the GPU's memory.

Importing this package alone imports neither Triton nor torch.
"""

COLUMNS = (
    "pitch",
    "step",
    "height",
    "width",
    "out_height",
    "out_width",
    "from_row",
    "from_column",
    "taps_down",
    "taps_across",
    "flip",
    "turn_x",
    "turn_y",
    "right_x",
    "right_y",
    "down_x",
    "down_y",
    "before",
    "contrast",
    "after",
    "shift_x",
    "shift_y",
)
"""What the kernels are told of a sample beside its address, int32 each; names as in `Plan` but for these.

pitch, step: bytes from a row of the photo to the next, and from a pixel to the next one in its row.
taps_down, taps_across: neighbours that a resized pixel is mixed from at most, along each axis.
turn_x, turn_y: where the centre of the turned image's first pixel lies in the image, in 1/65536 of a pixel;
    right_x, right_y and down_x, down_y: how far that moves with each pixel to the right and down.
before, contrast, after: float32, as their bits: brightness before the contrast, contrast, and brightness
    after it; of the two brightnesses one is 1.
"""
