"""Python and the packages that flowerfast needs, as its own metadata states them.

Importing the modules of this room imports no other package: whichever is missing, the others are told of.
"""

import platform
from collections.abc import Iterator
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from flowerfast.doctor.line import Line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OWN = "flowerfast"
REINSTALL = "pip install --force-reinstall torch torchvision"
_FOR_DEVELOPERS = frozenset({"test", "dev"})


def python_lines() -> Iterator[Line]:
    """Python's version against the one that is needed."""
    from packaging.specifiers import SpecifierSet

    found, needed = platform.python_version(), metadata.metadata(OWN)["Requires-Python"] or ""
    old = not SpecifierSet(needed).contains(found, prereleases=True)
    mend = f"make a virtual environment of Python {needed}, and install flowerfast there" if old else ""
    yield Line("python", "fail" if old else "ok", f"{found} (needs {needed})", mend)


def package_lines() -> Iterator[Line]:
    """Each package that is missing or too old, or one line that none is; then the extras."""
    needed = [*requirements(OWN)]
    wrong = [(each, problem) for each in needed if (problem := unmet(each)) is not None]
    for each, problem in wrong:
        yield Line(each.name, "fail", problem, f'pip install "{each.name}{each.specifier}"')
    if not wrong:
        yield Line("packages", "ok", f"{OWN} {metadata.version(OWN)}, and all {len(needed)} that it needs")
    yield from _extra_lines()


def _extra_lines() -> Iterator[Line]:
    whole, absent = list[str](), list[str]()
    for extra in metadata.metadata(OWN).get_all("Provides-Extra") or []:
        own = [*requirements(OWN, extra)]
        if extra in _FOR_DEVELOPERS or not own:
            continue
        there = [each for each in own if installed(each.name) is not None]
        old = [f"{each.name} {problem}" for each in there if (problem := unmet(each)) is not None]
        if old:
            yield Line(f"extra {extra}", "warn", "; ".join(old), f'pip install -U "{OWN}[{extra}]"')
        else:
            (whole if len(there) == len(own) else absent).append(extra)
    parts = [("installed", whole), ("not installed", absent)]
    said = "; ".join(f"{what}: {', '.join(extras)}" for what, extras in parts if extras)
    if said:
        yield Line("extras", "ok", said)


def loaded_lines(module: str) -> Iterator[Line]:
    """Whether a package can be imported, and which version it is."""
    import_module(module)
    yield Line(module, "ok", installed(module) or "of unknown version")


def requirements(distribution: str, extra: str = "") -> Iterator["Requirement"]:
    """What an installed package needs on this machine, or what one of its extras needs beside."""
    from packaging.requirements import Requirement

    for text in metadata.requires(distribution) or []:
        each = Requirement(text)
        marked = [each.marker is None or each.marker.evaluate({"extra": name}) for name in ("", extra)]
        if marked[1] and (not extra or not marked[0]):
            yield each


def installed(name: str) -> str | None:
    """Version of an installed package; None: it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def unmet(requirement: "Requirement") -> str | None:
    """Why a requirement is not met; None: it is."""
    found = installed(requirement.name)
    if found is None:
        return f"not installed, {requirement.specifier or 'any version'} is needed"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{found}, but {requirement.specifier} is needed"
