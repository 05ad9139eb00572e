"""The command that says what is wrong with a machine, and how to mend it."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from flowerfast.commands.find import check_folder, check_outputs
from flowerfast.commands.options import JsonFile
from flowerfast.commands.output import out, write_json
from flowerfast.errors import UserError, printable

if TYPE_CHECKING:
    from flowerfast.doctor.line import Line

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_WIDE = 18  # characters of the names
_SIDE = 64  # pixels of the squares that are compared
_INSTALL = "install flowerfast by pip (in a checkout: pip install -e .), and packaging"
_DALI = '--backend cpu, and pip install --force-reinstall "flowerfast[dali]"'
_BACKENDS = {
    "cpu": "--set data.kernels=torchvision, and pip install --force-reinstall numba simplejpeg pillow",
    "dali-cpu": _DALI,
    "dali": f"{_DALI}; flowerfast parity DATA says more",
}
"""Backends whose pixels are compared with the reference's, and what helps where they differ."""


def doctor(
    data: Annotated[
        Path | None, typer.Argument(help="Folder of photos or shards: how fast its disk is, too.")
    ] = None,
    json_: JsonFile = None,
) -> None:
    """Say what this machine has, what it lacks or has broken, and the command that mends it.

    Takes some seconds and changes nothing. Exit code 1 where a line says fail.
    """
    if data is not None:
        check_folder(data)
    try:
        check_outputs({"json": json_}, data=data)
    except ImportError as error:  # of numpy or Pillow, which the check of a file needs
        raise UserError(f"--json {json_}: cannot be checked ({error}); give - for standard output") from None
    lines: list[Line] = []
    for line in examine(data):
        lines.append(line)
        if json_ != Path("-"):
            _print(line)
    well = all(line.state != "fail" for line in lines)
    if json_ is not None:
        write_json(
            json_, {"ok": well, "lines": [vars(line) for line in lines], "environment": _environment()}
        )
    raise typer.Exit(0 if well else 1)


def examine(data: Path | None = None) -> Iterator["Line"]:
    """All lines, each as soon as it is known. Whatever is missing or broken, nothing raises here."""
    from flowerfast.doctor import decoders, disk, gpu, hardware, packages
    from flowerfast.doctor.line import guarded

    checks: list[tuple[str, str, Callable[[], Iterable[Line]]]] = [
        ("python", _INSTALL, packages.python_lines),
        ("packages", _INSTALL, packages.package_lines),
        ("torch", packages.REINSTALL, partial(packages.loaded_lines, "torch")),
        ("torchvision", packages.REINSTALL, partial(packages.loaded_lines, "torchvision")),
        ("timm", "pip install --force-reinstall timm", partial(packages.loaded_lines, "timm")),
        ("driver", "see that nvidia-smi works", gpu.driver_lines),
        ("cuda", "see that nvidia-smi works, or --device cpu", gpu.cuda_lines),
        ("dali", 'pip install --force-reinstall "flowerfast[dali]", or --backend cpu', gpu.dali_lines),
        ("jpeg", "pip install --force-reinstall simplejpeg pillow numpy", decoders.jpeg_lines),
        ("compiled loops", "pip install --force-reinstall numba llvmlite numpy", decoders.loop_lines),
        ("cores", "--set data.workers=N", hardware.core_lines),
        ("memory", "lower train.batch_size", hardware.memory_lines),
        ("/dev/shm", "docker run --shm-size=1g, or --ipc=host", hardware.shm_lines),
        ("cache folder", disk.ELSEWHERE, disk.cache_lines),
    ]
    if data is not None:
        checks.append(
            ("photos' disk", "see to that disk, or who may read there", partial(disk.photo_lines, data))
        )
    for check in checks:
        yield from guarded(*check)
    broken = guarded("pixels", "first what the lines above say", _check_imports)
    yield from broken
    if broken:
        return
    for backend, mend in _BACKENDS.items():
        yield from guarded(f"pixels of {backend}", mend, partial(_pixel_lines, backend, mend))


def _check_imports() -> list["Line"]:
    """No line; raises where what compares pixels cannot be imported, so that it is said once."""
    import_module("flowerfast.commands.parity")
    return []


def _pixel_lines(backend: str, mend: str) -> Iterator["Line"]:
    """Whether a backend makes of some photos what the reference makes of them, within parity's bounds."""
    import torch

    from flowerfast.commands.parity import compare_backends
    from flowerfast.doctor.decoders import COMPILE, load_loops
    from flowerfast.doctor.line import Line
    from flowerfast.loaders.dali.probe import dali_problem
    from flowerfast.photos.kept_tables import forget
    from flowerfast.settings import load_config

    name, compiled = f"pixels of {backend}", load_loops() is not None
    device = "cuda" if backend == "dali" else "cpu"
    if backend != "cpu" and (
        dali_problem(torch.device(device)) is not None
        or (backend == "dali" and not torch.cuda.is_available())
    ):
        return  # the line of DALI has said why
    if backend == "cpu" and not compiled:
        yield Line(name, "warn", "not compared: the compiled loops are not there yet", COMPILE)
        return
    with tempfile.TemporaryDirectory(prefix="flowerfast-doctor-") as folder:
        photos = make_photos(Path(folder))
        settings = {
            "data.path": folder,
            "data.image_size": _SIDE,
            "data.backend": backend,
            "data.kernels": "auto" if compiled else "torchvision",  # nothing is compiled for this
            "train.batch_size": 4,
            "train.device": device,
        }
        result = compare_backends(load_config(None, (), settings))
        forget(photos)
    whole = max(result.steps, key=lambda step: step.mean if step.step in result.bounds.steps else -1)
    found = f"mean {whole.mean:.3f}, p99 {whole.p99:g}, largest {whole.max} of 255 from the reference's"
    yield Line(name, "ok", found) if result.ok else Line(name, "fail", f"{found} ({whole.step})", mend)


def make_photos(folder: Path) -> Path:
    """Three small JPEGs, one progressive, one stored turned, in a class folder of `folder`; returns it."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    photo = coarse.resize((160, 120), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x112] = 6
    kinds: dict[str, dict[str, Any]] = {
        "baseline": {},
        "progressive": {"progressive": True},
        "turned": {"exif": turned},
    }
    (folder / "made").mkdir(exist_ok=True)
    for kind, options in kinds.items():
        photo.save(folder / "made" / f"{kind}.jpg", quality=90, **options)
    return folder


def _environment() -> dict[str, Any] | None:
    """Machine and versions for the record, as `bench` keeps them; None where they cannot be told."""
    try:
        from flowerfast.bench.environment import environment
        from flowerfast.loaders.device import pick_device

        return environment(pick_device("auto"))
    except Exception:  # a line has said what is broken
        return None


def _print(line: "Line") -> None:
    text = Text.assemble((f"{line.state:4}", _STYLES[line.state]), f"  {printable(line.name):{_WIDE}} ")
    text.append(printable(line.found))
    if line.mend:
        text.append(f"\n      {'':{_WIDE}} mend: ").append(printable(line.mend), "bold")
    out.print(text, soft_wrap=True)
