"""What a row found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A check, its figure and its bound.

    Attributes:
        holds: whether the figure is within the bound; None: the check cannot be made on this device.
        figure: what was found.
        bound: what the figure must be.
        detail: one line beside it.
        unseen: what of this row the device does not show: all of it when `holds` is None.
    """

    holds: bool | None
    figure: float | str
    bound: str
    detail: str = ""
    unseen: str = ""


def skipped(why: str) -> Outcome:
    """A check that cannot be made on this device."""
    return Outcome(None, "", "", "", why)
