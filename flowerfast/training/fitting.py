"""Does a saved state fit? It is compared, before it is loaded, with a fresh one of the same run."""

import math
from typing import Any

import torch

from flowerfast.documents import shown

_MOST = 2**53  # of a whole number: beyond, floats skip some


def check_alike(saved: Any, fresh: Any, place: str) -> None:
    """Raise ValueError, which names the place, unless a saved value is of the kind of a fresh one.

    Tensors have its shape, and its type but for the width of floats; numbers are finite; texts are the same.
    Of mappings what both have is compared: another version of torch may have more keys, or fewer.
    """
    if isinstance(fresh, torch.Tensor):
        _check_tensor(saved, fresh, place)
    elif isinstance(fresh, dict):
        if not isinstance(saved, dict):
            raise _other(saved, "a mapping", place)
        for key in fresh.keys() & saved.keys():
            check_alike(saved[key], fresh[key], f"{place}.{key}")
    elif isinstance(fresh, list | tuple):
        if not isinstance(saved, list | tuple) or len(saved) != len(fresh):
            raise _other(saved, f"a list of {len(fresh)}", place)
        for i, (one, like) in enumerate(zip(saved, fresh, strict=True)):
            check_alike(one, like, f"{place}.{i}")
    elif isinstance(fresh, bool) or fresh is None:
        if not isinstance(saved, bool) and saved is not None:
            raise _other(saved, "true, false or nothing", place)
    elif isinstance(fresh, int | float):
        if not is_number(saved) or (isinstance(fresh, int) and not isinstance(saved, int)):
            raise _other(saved, "a whole number" if isinstance(fresh, int) else "a finite number", place)
    elif type(saved) is not type(fresh) or saved != fresh:
        raise _other(saved, repr(fresh), place)


def is_number(value: Any) -> bool:
    """Whether this is a finite number with which can be reckoned."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _MOST if isinstance(value, int) else math.isfinite(value)


def _check_tensor(saved: Any, fresh: torch.Tensor, place: str) -> None:
    fits = (
        isinstance(saved, torch.Tensor)
        and saved.shape == fresh.shape
        and (saved.layout, saved.is_meta, saved.is_quantized) == (torch.strided, False, False)
        and (saved.dtype == fresh.dtype or (saved.is_floating_point() and fresh.is_floating_point()))
    )
    if not fits:
        raise _other(saved, f"a tensor of shape {tuple(fresh.shape)} and type {fresh.dtype}", place)


def _other(saved: Any, expected: str, place: str) -> ValueError:
    if isinstance(saved, torch.Tensor):
        what = f"a tensor of shape {tuple(saved.shape)} and type {saved.dtype}"
    else:
        what = shown(saved)
    return ValueError(f"{place}: {what} in place of {expected}")
