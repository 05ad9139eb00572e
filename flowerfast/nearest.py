"""What a misspelt name may have meant."""

import difflib
from collections.abc import Callable, Iterable, Sequence

_OTHER_NAMES = {
    "arch": "model.name",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "clipnorm": "train.clip_grad",
    "dropout": "model.drop_rate",
    "earlystopping": "train.patience",
    "emadecay": "train.ema",
    "fp16": "train.amp",
    "gpu": "train.device",
    "gradaccumsteps": "train.accumulate",
    "gradientaccumulationsteps": "train.accumulate",
    "half": "train.amp",
    "imgsize": "data.image_size",
    "imgsz": "data.image_size",
    "learningrate": "train.lr",
    "learnrate": "train.lr",
    "maxgradnorm": "train.clip_grad",
    "modelema": "train.ema",
    "network": "model.name",
    "resolution": "data.image_size",
    "rotation": "augment.rotate",
    "scheduler": "train.schedule",
    "size": "data.image_size",
    "validationsplit": "data.val_fraction",
    "valsplit": "data.val_fraction",
    "wd": "train.weight_decay",
}
"""What other programs call settings that this one has, without separators."""
_LEAST = 4  # characters that a part of a name must have to point at it
_CUTOFF = 0.72  # of difflib's ratio: a letter or two are wrong, not half the word


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `names` that `name` may have meant, best first; none when none is near.

    Case and separators do not count. What contains the name, or is contained in it, comes before what is only
    spelt alike.
    """
    wanted, known = _squashed(name), {each: _squashed(each) for each in names}
    tests: tuple[Callable[[str], bool], ...] = (
        lambda each: each == wanted,
        lambda each: len(wanted) >= _LEAST - 1 and each.startswith(wanted),
        lambda each: len(wanted) >= _LEAST and wanted in each,
        lambda each: len(each) >= _LEAST and each in wanted,
    )
    for number, test in enumerate(tests):
        near = [each for each, squashed in known.items() if test(squashed)]
        if near:
            contained = number == len(tests) - 1
            return sorted(near, key=lambda each: (-len(each) if contained else len(each), each))[:count]
    alike = difflib.get_close_matches(wanted, list(known.values()), n=count, cutoff=_CUTOFF)
    return [next(each for each, squashed in known.items() if squashed == found) for found in alike]


def nearest_keys(key: str, keys: Sequence[str]) -> list[str]:
    """Up to three of `keys` (`section.name`, or `name`) that a misspelt one may have meant, best first."""
    section, _, last = key.rpartition(".")
    by_name: dict[str, list[str]] = {}
    for each in sorted(keys, key=lambda each: not each.startswith(f"{section}.")):  # its own section first
        by_name.setdefault(each.rpartition(".")[2], []).append(each)
    if last in by_name:
        return by_name[last][:1]
    other = _OTHER_NAMES.get(_squashed(last), "")
    return [other] if other in keys else [by_name[near][0] for near in nearest(last, by_name)]


def hint(key: str, keys: Sequence[str]) -> str:
    """What to do about an unknown key: the ones it may have meant, else those of its section."""
    if near := nearest_keys(key, keys):
        return did_you_mean(near)
    section = key.rpartition(".")[0]
    mates = [each.rpartition(".")[2] for each in keys if each.rpartition(".")[0] == section]
    has = f"{section or 'it'} has {', '.join(mates)}; " if mates else ""
    return f": not supported; {has}`flowerfast settings` lists all"


def did_you_mean(names: list[str]) -> str:
    """`; did you mean 'a' or 'b'?`"""
    return f"; did you mean {' or '.join(map(repr, names))}?"


def _squashed(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
