"""Versions are compared with what the package's own metadata asks for."""

import importlib.metadata as metadata
import platform
from collections.abc import Callable

import pytest

from flowerfast.doctor.line import guarded
from flowerfast.doctor.packages import loaded_lines, package_lines, python_lines, requirements, unmet

Installed = Callable[..., None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Function (package=version or None, ...): these are what is installed, beside what is; None: not."""
    real = metadata.version

    def fake(**versions: str | None) -> None:
        def version(name: str) -> str:
            if name not in versions:
                return real(name)
            found = versions[name]
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(metadata, "version", version)

    return fake


def specifier(name: str) -> str:
    return next(str(each.specifier) for each in requirements("flowerfast") if each.name == name)


def test_all_is_well_here() -> None:
    assert {line.state for line in (*python_lines(), *package_lines())} == {"ok"}


def test_an_old_and_a_missing_package_fail_and_say_what_to_install(installed: Installed) -> None:
    installed(timm="0.9.2", simplejpeg=None)
    wrong = {line.name: line for line in package_lines() if line.state == "fail"}
    assert {*wrong} == {"timm", "simplejpeg"}
    assert wrong["timm"].found == f"0.9.2, but {specifier('timm')} is needed"
    assert wrong["timm"].mend == f'pip install "timm{specifier("timm")}"'
    assert wrong["simplejpeg"].found.startswith("not installed, ")


def test_versions_with_a_local_part_and_betas_count(installed: Installed) -> None:
    installed(torch="99.0.0rc1+cu130")
    assert "torch" not in {line.name for line in package_lines()}


def test_an_extra_that_is_too_old_is_a_warning(installed: Installed) -> None:
    installed(tensorboard="1.0")
    (line,) = (line for line in package_lines() if line.name == "extra tensorboard")
    assert (line.state, line.mend) == ("warn", 'pip install -U "flowerfast[tensorboard]"')
    installed(tensorboard=None)
    (line,) = (line for line in package_lines() if line.name == "extras")
    assert "tensorboard" in line.found.partition("not installed")[2]


def test_requirements_of_an_extra_are_its_own() -> None:
    own = {each.name for each in requirements("flowerfast", "tensorboard")}
    assert own == {"tensorboard"}
    assert not own & {each.name for each in requirements("flowerfast")}
    assert all(unmet(each) is None for each in requirements("flowerfast"))


def test_an_old_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.8.1")
    (line,) = python_lines()
    assert (line.state, "3.8.1" in line.found, "virtual environment" in line.mend) == ("fail", True, True)


def test_a_package_that_cannot_be_imported_fails() -> None:
    assert [line.state for line in loaded_lines("numpy")] == ["ok"]
    (line,) = guarded("x", "pip install x", lambda: loaded_lines("no_such_package_anywhere"))
    assert (line.state, line.mend) == ("fail", "pip install x")
    assert line.found.startswith("ModuleNotFoundError: ")
