"""Weights from a local file, whoever trained them: unwrapped, their names brought to the network's."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from flowerfast.errors import UserError, one_line
from flowerfast.training.saves import check_archive
from flowerfast.training.seal import Damaged, check, read_sealed

State = dict[str, torch.Tensor]
_NESTED = ("state_dict", "model_state_dict", "model", "trainer", "ema", "network")
"""Where trainers put the weights among other things; the last three are those of our last.pt, whose average
of the weights comes before the weights."""
_COMPILED = "_orig_mod."  # torch.compile puts it into the names, at any depth


def load_weights(
    network: nn.Module, file: Path, name: str, fresh_head: bool, say: Callable[[str], None]
) -> bool:
    """Load a local state dict but for a head of other classes; whether the head was loaded.

    Args:
        network: a timm network, takes the weights.
        file: .safetensors, or .pth read without running code from it.
        name: of the model, for messages.
        fresh_head: leave the file's head alone, whatever its size.
        say: is told what was stripped from the names.

    Raises UserError, one line, when the file cannot be read or does not fit.
    """
    target = network.state_dict()
    head = heads(network)
    state, stripped = _renamed(_read_state(file), [k for k in target if not k.startswith(head)])
    for key in [k for k in state if k.startswith(head)]:
        if fresh_head or (key in target and state[key].shape != target[key].shape):
            state.pop(key)
    # The whole head goes when any part of it does not fit: half of one is of no use.
    if any(k.startswith(head) and k not in state for k in target):
        state = {k: v for k, v in state.items() if not k.startswith(head)}
    if problem := _problem(state, target, head):
        raise UserError(
            f"model.weights={file}: does not fit model.name={name}: {problem}; give weights of that model "
            "or set model.name to theirs"
        )
    if stripped:
        say(f"weights: {stripped} in {file}")
    network.load_state_dict(state, strict=False)
    return all(k in state for k in target)


def heads(network: nn.Module) -> tuple[str, ...]:
    """What the names of the weights of a network's head begin with, as timm says; none where it does not."""
    layers = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{layer}." for layer in ((layers,) if isinstance(layers, str) else layers))


def labels_of(file: Path) -> tuple[str, ...] | None:
    """Names of the classes of a weights file in a run folder, or beside a config.json; None: not known.

    Raises UserError when that file is damaged.
    """
    for folder in (file.parent, file.parent.parent / "best"):
        about = folder / "config.json"
        try:
            return tuple(map(str, read_sealed(about)["label_names"]))
        except (FileNotFoundError, NotADirectoryError, KeyError, TypeError):
            continue
        except Damaged:
            raise
        except (OSError, ValueError) as error:
            raise UserError(
                f"{about}: cannot be read ({one_line(error)}), and says which classes {file.name} knows; "
                "bring a good copy back, or move the weights to another folder"
            ) from error
    return None


def _problem(state: State, target: Mapping[str, torch.Tensor], head: tuple[str, ...]) -> str:
    """Why the tensors do not fit the network, with the first of them; empty: they do."""
    body = [k for k in target if not k.startswith(head)]
    missing = [k for k in body if k not in state]
    if len(missing) == len(body):
        return (
            f"none of its {len(state)} tensors (first: {', '.join([*state][:3])}) is one of the network's "
            f"(first: {', '.join(body[:3])})"
        )
    extra = [k for k in state if k not in target and not k.startswith(head)]
    wrong = [k for k in state if k in target and state[k].shape != target[k].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensors missing (first: {missing[0]})")
    if extra:
        problems.append(f"{len(extra)} unknown (first: {extra[0]})")
    if wrong:
        have, want = tuple(state[wrong[0]].shape), tuple(target[wrong[0]].shape)
        problems.append(f"{len(wrong)} of another shape (first: {wrong[0]} {have}, expected {want})")
    return "; ".join(problems)


def _renamed(state: State, wanted: Sequence[str]) -> tuple[State, str]:
    """The state without what a wrapper put before the network's own names, and what that was in words.

    The prefix is the one under which most of the `wanted` names are there, whatever it is called.
    """
    stripped = [_COMPILED] if any(_COMPILED in key for key in state) else []
    state = {key.replace(_COMPILED, ""): value for key, value in state.items()}
    # A name keeps its last parts in any wrapper: few of the network's names come into question for each.
    alike: dict[str, list[str]] = {}
    for name in wanted:
        alike.setdefault(_end(name), []).append(name)
    found = Counter(
        key.removesuffix(name)
        for key in state
        for name in alike.get(_end(key), ())
        if f".{key}".endswith(f".{name}")
    )
    prefix = min(found, key=lambda p: (-found[p], len(p)), default="")
    inside = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    stripped += [prefix] if prefix else []
    words = f"{' and '.join(stripped)} stripped from the names" if stripped else ""
    outside = len(state) - len(inside)
    return inside, f"{words}, {outside} tensors without it left out" if outside else words


def _end(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def _read_state(file: Path) -> State:
    """State dict of a .safetensors file, or of a .pth read without running code from it."""
    advice = "give a .safetensors file or a .pth with a state dict"
    if not file.is_file():
        raise UserError(f"model.weights={file}: no such file; {advice}")
    try:
        check(file)
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        check_archive(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Damaged:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"model.weights={file}: cannot be read ({one_line(error)}); {advice}") from error
    except Exception as error:
        # torch raises pickle.UnpicklingError for files that hold more than tensors.
        if type(error).__name__ != "UnpicklingError":
            raise
        raise UserError(f"model.weights={file}: holds more than tensors, refused; {advice}") from error
    while isinstance(content, dict):
        inner = next((content[key] for key in _NESTED if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    tensors = isinstance(content, dict) and all(isinstance(v, torch.Tensor) for v in content.values())
    if not tensors or not content:
        raise UserError(f"model.weights={file}: no state dict in it; {advice}")
    return {str(k): v for k, v in content.items()}
