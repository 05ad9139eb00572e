"""From files, texts and options to a configuration, and to a changed one.

Later sources win; what is unknown or unused is refused with the nearest known key.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from flowerfast.arguments import of_kind
from flowerfast.arguments import path as given_path
from flowerfast.config import Config, find_field, known_keys, validate
from flowerfast.documents import DocumentError, parse_yaml, read_yaml, shown
from flowerfast.errors import UserError, one_line
from flowerfast.nearest import hint

DEMO = "demo"
"""The shipped config that goes with rendered flowers."""
PRESET_SECTION = "augment"
"""The one section that may be set as a whole, to the name of a preset, on which single settings come."""


def load_config(
    base: Path | str | None = None, overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> Config:
    """Configuration from a YAML file, then `settings` (dotted key → value), then `key=value` overrides.

    `base` is a path, or the name of a config that ships with the package (`paper`, `demo`).
    Raises UserError on an unreadable file, an unknown key or a value out of bounds.
    """
    of_kind("settings", settings, Mapping | None, "a mapping from dotted keys to values")
    tree = _read_yaml(_find(base)) if base is not None else {}
    origin = str(base) if base is not None else "settings"
    return _apply(tree, overrides, settings or {}, origin)


def _apply(
    tree: dict[str, Any], overrides: Sequence[str], settings: Mapping[str, Any], origin: str
) -> Config:
    plain = deepcopy(tree)
    for changes, source in ((settings, origin), (parse_overrides(overrides), "--set")):
        for key in sorted(changes, key=lambda key: key != PRESET_SECTION):
            _put(tree, key, changes[key], source)
    try:
        return validate(tree, origin)
    except UserError:
        validate(plain, origin)  # else what is wrong came with the changes
        return validate(tree, "settings")


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Settings (dotted key → value) of `key=value` texts.

    Of several for one key the last counts. Raises UserError for one that is none.
    """
    parsed: dict[str, Any] = {}
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UserError(f"--set {text}: expected key=value, e.g. --set train.lr=0.01")
        key = key.strip()
        parsed[key] = _parse(key, value.strip() or value)
        _check_key(key, "--set")
    return parsed


def refuse_unused(overrides: Sequence[str], command: str, used: Sequence[str]) -> None:
    """Raise UserError for a `key=value` text that a command would take and ignore.

    `used` are the keys, or sections with the dot, that it does look at.
    """
    for key in parse_overrides(overrides):
        if not f"{key}.".startswith(tuple(name for name in used if name.endswith("."))) and key not in used:
            listed = ", ".join(f"{name}*" if name.endswith(".") else name for name in used)
            raise UserError(f"--set {key}: {command} does not use it; it takes {listed}")


def start_config(base: Path | str | None, changes: Mapping[str, Any]) -> Config:
    """Configuration of a new run; without data and config, the demo's. Raises UserError.

    No other recipe trains on rendered flowers: who names one has photos.
    """
    given = changes.get("data.path") is not None
    config = load_config(DEMO if base is None and not given else base, (), changes)
    if config.data.path is None and base not in (None, DEMO):
        raise UserError(
            f"--config {base}: no photos are named; give their folder, flowerfast train DATA --config {base}"
        )
    return config


def change_config(stored: Config, overrides: Sequence[str], settings: Mapping[str, Any]) -> Config:
    """A copy of a configuration with `settings` and then `key=value` overrides applied."""
    return _apply(stored.model_dump(mode="json"), overrides, settings, "config.yaml")


def config_folder() -> Path:
    """Folder of the configs that ship with flowerfast (in the package, or beside it in a checkout)."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _find(base: Path | str) -> Path:
    path = given_path("config", base)
    if path.is_file():
        return path
    shipped = config_folder() / f"{base}.yaml"
    if path.parent == Path(".") and not path.suffix and shipped.is_file():
        return shipped
    names = ", ".join(sorted(p.stem for p in config_folder().glob("*.yaml")))
    raise UserError(f"{base}: no such config file; give a YAML file or one of: {names}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(path)
    except DocumentError as error:
        raise UserError(f"{path}: not valid YAML ({error}); mend that") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); give a YAML file") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected sections such as `train:`, got {type(tree).__name__}")
    return tree


def _put(tree: dict[str, Any], key: str, value: Any, origin: str) -> None:
    _check_key(key, origin)
    section, _, name = key.partition(".")
    if key == PRESET_SECTION:
        tree[section] = {"preset": value}
        return
    if section == PRESET_SECTION and isinstance(tree.get(section), str):
        tree[section] = {"preset": tree[section]}
    branch = tree.setdefault(section, {})
    if not isinstance(branch, dict):
        raise UserError(f"{section}: expected a section of settings, got {shown(branch)}")
    branch[name] = value


def _check_key(key: str, origin: str) -> None:
    """Refuse unknown keys here, where the spelling the user typed is known."""
    keys = list(known_keys())
    of_kind(f"{origin}: key", key, str, "a dotted key, as 'train.lr'")
    if key == PRESET_SECTION:
        return
    first = next((each for each in keys if each.startswith(f"{key}.")), None)
    if first is not None:
        raise UserError(f"{origin}: {key} is a section; give its settings by dotted keys, as {first}")
    if key not in keys:
        raise UserError(f"{origin}: unknown key {shown(key)}{hint(key, keys)}")


def _parse(key: str, text: str) -> Any:
    """Value of a --set: YAML, but a path or name is taken as it stands (`#`, `: `, digits, dates)."""
    try:
        value = parse_yaml(text)
    except DocumentError:
        return text
    info = find_field(key)
    if info and info.annotation in (str, str | None):
        is_null = value is None and text.casefold() in ("", "null", "~")
        return value if is_null or (value is not None and text[0] in "\"'") else text
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as text; users mean the number
        except ValueError:
            return value
    return value
