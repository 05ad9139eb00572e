"""What shells offer for an argument that is begun. No torch: it is asked for at each press of a key."""

from textwrap import shorten

_WIDTH = 60
"""Characters of a meaning: typer breaks longer lines at 80, and each part would be offered as a choice."""


def complete_setting(incomplete: str) -> list[tuple[str, str]]:
    """Settings that begin so, as `train.lr=`, with their meaning."""
    from flowerfast.config import describe_settings

    rows = [(key, about) for key, _, about in describe_settings() if key.startswith(incomplete)]
    return [(f"{key}=", shorten(about.replace("[", "("), _WIDTH, placeholder=" …")) for key, about in rows]


def complete_config(incomplete: str) -> list[str]:
    """Configs that ship with flowerfast and begin so. Where there is none, shells offer files."""
    from flowerfast.settings import config_folder

    names = sorted(file.stem for file in config_folder().glob("*.yaml"))
    return [name for name in names if name.startswith(incomplete)]


def complete_data_set(incomplete: str) -> list[str]:
    """Data sets that can be fetched and begin so."""
    from flowerfast.fetching.datasets import DATASETS

    return [name for name in DATASETS if name.startswith(incomplete)]
