"""The DALI executor: the loader's contract, the reference's pixels, damaged and odd files."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.data.plan import EvalPlan, Plan, make_eval_plan, make_plan
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch, Recipe
from flowerfast.loaders.sampling import BadFiles, Sampler
from flowerfast.loaders.torchvision import TorchvisionLoader

pytest.importorskip("nvidia.dali")

from flowerfast.loaders import dali_probe, dali_settings
from flowerfast.loaders.dali import DaliLoader
from flowerfast.loaders.dali_files import agrees
from flowerfast.loaders.dali_inputs import as_ppm, rotation
from flowerfast.loaders.dali_settings import choose_decoder, graph_settings

pytestmark = pytest.mark.usefixtures("one_probe")
SIDE, BATCH = 48, 5
MEAN_BOUND, P99_BOUND = 0.5, 3
CPU = torch.device("cpu")


def smooth(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A picture with edges and slopes, uint8 (height, width, channels)."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, channels)).astype(np.uint8)
    layers = [
        Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC)
        for c in range(channels)
    ]
    return np.stack([np.asarray(layer) for layer in layers], axis=-1)


def save(pixels: np.ndarray | Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, options.pop("format", None), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, 23 photos of different sizes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(7)
    for i in range(23):
        height, width = rng.integers(40, 130, 2)
        save(smooth(int(height), int(width), seed=i), root / "ab"[i % 2] / f"{i:02}.jpg", quality=92)
    return root


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)


def recipe(augment: bool = True, **changes: object) -> Recipe:
    base = Recipe(SIDE, BATCH, seed=3, augment=AugmentConfig() if augment else None, shuffle=augment)
    return replace(base, **changes)


def open_loader(
    root: Path,
    tmp_path: Path,
    device: torch.device = CPU,
    kind: Recipe | None = None,
    max_bad: float = 1.0,
    **data: object,
) -> DaliLoader:
    config = DataConfig(**{"workers": 2, **data})
    manifest = load_manifest(root, cache_dir=tmp_path)
    bad = BadFiles(manifest, config.on_bad, max_bad)
    return DaliLoader(manifest, np.arange(len(manifest)), kind or recipe(), config, device, bad)


def reference(manifest: Manifest) -> TorchvisionLoader:
    bad = BadFiles(manifest, "fail", 1.0)
    return TorchvisionLoader(manifest, np.arange(len(manifest)), recipe(), DataConfig(workers=2), CPU, bad)


def random_plan(manifest: Manifest, epoch: int = 0, side: int = SIDE) -> Plan:
    indices = np.arange(len(manifest))
    return make_plan(1, epoch, indices, (manifest.width, manifest.height), AugmentConfig(), side)


def assert_agree(found: np.ndarray, expected: np.ndarray) -> None:
    apart = np.abs(found.astype(np.int16) - expected)
    assert found.shape == expected.shape
    assert apart.mean() <= MEAN_BOUND
    assert np.percentile(apart, 99) <= P99_BOUND


@pytest.mark.parametrize("augment", [True, False])
def test_every_sample_comes_once_with_its_label(folder, tmp_path, device, augment):
    loader = open_loader(folder, tmp_path, device, recipe(augment))
    for epoch in range(2):
        batches = list(loader.epoch(epoch))
        assert [len(b) for b in batches] == [5, 5, 5, 5, 3]
        assert len(batches) == len(loader)
        assert sorted(torch.cat([b.indices for b in batches]).tolist()) == list(range(23))
        for batch in batches:
            labels = loader._manifest.label[batch.indices.numpy()]
            assert batch.labels.tolist() == labels.tolist()
    loader.close()
    loader.close()


def test_batch_contract(folder, tmp_path, device):
    loader = open_loader(folder, tmp_path, device)
    batch: Batch = next(loader.epoch(0))
    assert (batch.images.dtype, batch.images.device.type) == (torch.uint8, device.type)
    assert batch.images.shape == (BATCH, 3, SIDE, SIDE)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.labels.dtype, batch.labels.device.type) == (torch.int64, device.type)
    assert (batch.indices.dtype, batch.indices.device.type) == (torch.int64, "cpu")
    loader.close()


def test_start_batch_gives_the_tail_of_the_epoch(folder, tmp_path, device):
    loader = open_loader(folder, tmp_path, device)
    whole = [(b.indices.tolist(), b.images.cpu()) for b in loader.epoch(2)]
    for start in (0, 3, 4, 5):
        tail = [(b.indices.tolist(), b.images.cpu()) for b in loader.epoch(2, start)]
        assert [i for i, _ in tail] == [i for i, _ in whole[start:]]
        assert all(torch.equal(x, y) for (_, x), (_, y) in zip(tail, whole[start:], strict=True))
    loader.close()


def test_pixels_do_not_depend_on_workers_prefetch_or_batch_size(folder, tmp_path, device, drawn):
    found = []
    for workers, prefetch, depth, size in ((1, 1, 1, 5), (3, 4, 3, 5), (2, 3, 2, 23)):
        loader = open_loader(
            folder,
            tmp_path,
            device,
            recipe(batch_size=size),
            workers=workers,
            prefetch=prefetch,
            dali_prefetch=depth,
        )
        found.append(drawn(loader.epoch(1)))
        loader.close()
    assert found[0] == found[1] == found[2]


def test_epochs_differ(folder, tmp_path, drawn):
    loader = open_loader(folder, tmp_path)
    assert drawn(loader.epoch(0)) != drawn(loader.epoch(1))
    loader.close()


def test_batches_outlive_the_loader(folder, tmp_path, device):
    loader = open_loader(folder, tmp_path, device)
    kept = [b.images for b in loader.epoch(0)]
    sums = [int(images.sum()) for images in kept]
    list(loader.epoch(1))
    loader.close()
    assert [int(images.sum()) for images in kept] == sums


@pytest.mark.parametrize("leave", ["close", "drop", "keep", "throw"])
def test_abandoned_epoch_is_followed_by_a_full_one(folder, tmp_path, device, leave, drawn):
    loader = open_loader(folder, tmp_path, device)
    expected = drawn(loader.epoch(4))
    batches = loader.epoch(0)
    next(batches)
    if leave == "close":
        batches.close()
    elif leave == "drop":
        del batches
    elif leave == "throw":
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    assert drawn(loader.epoch(4)) == expected
    loader.close()


@pytest.mark.parametrize("kind", ["random", "eval"])
def test_pixels_agree_with_the_reference(folder, tmp_path, device, kind):
    loader = open_loader(folder, tmp_path, device)
    manifest = loader._manifest
    plan: Plan | EvalPlan = random_plan(manifest)
    if kind == "eval":
        plan = make_eval_plan(np.arange(len(manifest)), (manifest.width, manifest.height), SIDE, 0.875)
    expected = reference(manifest)
    assert_agree(loader.execute(plan), expected.execute(plan))
    expected.close()
    loader.close()


def test_execute_gives_the_pixels_of_the_epoch(folder, tmp_path, device):
    loader = open_loader(folder, tmp_path, device)
    batch = next(loader.epoch(0))
    plan = loader._sampler.plan(0, batch.indices.numpy())
    assert np.array_equal(loader.execute(plan), batch.images.cpu().permute(0, 2, 3, 1).numpy())
    loader.close()


def odd_files(root: Path) -> None:
    """One file of each kind that a folder of flowers may hold."""
    photo, alpha = smooth(90, 120), smooth(90, 120, 4)
    colour = Image.fromarray(photo)
    exif = Image.Exif()
    exif[0x112] = 6
    for name, options in {
        "444": {"subsampling": 0},
        "422": {"subsampling": 1},
        "420": {"subsampling": 2},
        "progressive": {"progressive": True},
        "rotated": {"exif": exif},
        "rgb": {"keep_rgb": True},
    }.items():
        save(photo, root / "a" / f"{name}.jpg", quality=90, **options)
    save(colour.convert("L"), root / "a" / "grey.jpg")
    save(colour.convert("CMYK"), root / "a" / "cmyk.jpg")
    save(photo, root / "a" / "jpeg.png", format="JPEG")
    save(photo[:1, :1], root / "b" / "1x1.jpg")
    save(smooth(40, 3000), root / "b" / "3000x40.jpg")
    save(smooth(700, 30), root / "b" / "30x700.jpg")
    for mode in ("1", "L", "P", "RGB"):
        save(colour.convert(mode), root / "b" / f"{mode}.png")
    save(alpha, root / "b" / "rgba.png")
    save(Image.fromarray(alpha).convert("LA"), root / "b" / "la.png")
    save(colour.quantize(32), root / "b" / "transparent.png", transparency=3)
    save(photo[..., 0].astype(np.uint16) * 257, root / "b" / "16.png")
    save(photo, root / "b" / "lossy.webp", quality=80)
    save(photo, root / "b" / "lossless.webp", lossless=True)
    save(alpha, root / "b" / "alpha.webp")
    save([colour][0], root / "b" / "animated.png", save_all=True, append_images=[colour.transpose(0)])
    save(photo, root / "b" / "plain.bmp")
    trailer = root / "b" / "trailer.jpg"
    save(photo, trailer)
    trailer.write_bytes(trailer.read_bytes() + bytes(500))


def test_odd_files_agree_with_the_reference(tmp_path, device):
    odd_files(tmp_path / "odd")
    loader = open_loader(tmp_path / "odd", tmp_path, device, recipe(batch_size=8))
    manifest = loader._manifest
    assert len(manifest) == 26
    expected = reference(manifest)
    for plan in (
        random_plan(manifest),
        make_eval_plan(np.arange(26), (manifest.width, manifest.height), SIDE, 0.875),
    ):
        found, wanted = loader.execute(plan), expected.execute(plan)
        for i in range(26):
            apart = np.abs(found[i].astype(np.int16) - wanted[i])
            assert apart.mean() <= 1, manifest.path(i)
        assert_agree(found, wanted)
    expected.close()
    loader.close()


def damage(root: Path) -> None:
    """Ten photos, then: cut short, no JPEG at all, another size than scanned, broken inside, gone."""
    for i in range(10):
        save(smooth(60, 80, seed=i), root / "ab"[i % 2] / (f"{i}.png" if i == 6 else f"{i}.jpg"))


def ruin(root: Path) -> set[str]:
    """Damage files after the scan, without changing what the scan saw; their names."""
    cut, junk, resized, gone = (root / p for p in ("a/2.jpg", "b/3.jpg", "a/4.jpg", "b/5.jpg"))
    cut.write_bytes(cut.read_bytes()[:-200])
    junk.write_bytes(np.random.default_rng(0).integers(0, 256, 1000).astype(np.uint8).tobytes())
    save(smooth(61, 80), resized)
    gone.unlink()
    inside = root / "a/6.png"
    data = inside.read_bytes()
    inside.write_bytes(data[: len(data) // 2] + data[-12:])  # header and end are well: only decoding tells
    return {"a/2.jpg", "b/3.jpg", "a/4.jpg", "b/5.jpg", "a/6.png"}


def test_bad_files_are_left_out_and_named(tmp_path, device):
    damage(tmp_path / "d")
    loader = open_loader(tmp_path / "d", tmp_path, device, recipe(batch_size=4))
    ruined = ruin(tmp_path / "d")
    paths = [p for p in loader._manifest.paths() if p not in ruined]
    for _ in range(2):
        batches = list(loader.epoch(0))
        seen = [loader._manifest.path(i) for b in batches for i in b.indices.tolist()]
        assert sorted(seen) == sorted(paths)
        assert all(len(b) == len(b.images) == len(b.labels) > 0 for b in batches)
        assert {bad.path for bad in loader.bad.values()} == ruined
        assert all(bad.error for bad in loader.bad.values())
    tail = list(loader.epoch(0, 1))
    order = [p.indices.tolist() for p in loader._sampler.plans(0, 1)]
    assert {i for b in tail for i in b.indices.tolist()} <= {i for plan in order for i in plan}
    loader.close()


def test_bad_files_do_not_change_the_other_pixels(tmp_path, device, drawn):
    damage(tmp_path / "d")
    loader = open_loader(tmp_path / "d", tmp_path, device, recipe(batch_size=4))
    expected = drawn(loader.epoch(0))
    ruin(tmp_path / "d")
    found = drawn(loader.epoch(0))
    assert found == {i: expected[i] for i in found}
    loader.close()


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("how", ["gone", "broken inside"])
def test_batch_of_bad_files_only_is_empty(tmp_path, device, augment, how):
    for i in range(9):
        save(smooth(60, 80, seed=i), tmp_path / "d" / "ab"[i // 5] / f"{i}.png")
    kind = recipe(augment, batch_size=2, shuffle=False)
    loader = open_loader(tmp_path / "d", tmp_path, device, kind, dali_prefetch=3)
    for path in sorted((tmp_path / "d" / "a").iterdir())[:4]:
        data = path.read_bytes()
        path.unlink()
        if how == "broken inside":  # header and end are well: only decoding tells
            path.write_bytes(data[: len(data) // 2] + data[-12:])
    for start in (0, 1, 2):
        batches = list(loader.epoch(0, start))
        assert [len(b) for b in batches] == [0, 0, 2, 2, 1][start:]
        for batch in batches:
            assert batch.images.shape == (len(batch), 3, SIDE, SIDE)
            assert (batch.images.dtype, batch.images.device.type) == (torch.uint8, device.type)
            assert len(batch.labels) == len(batch)
            assert (batch.labels.dtype, batch.indices.dtype) == (torch.int64, torch.int64)
    loader.close()


def test_bad_file_stops_the_run_when_told_to(tmp_path):
    damage(tmp_path / "d")
    loader = open_loader(tmp_path / "d", tmp_path, on_bad="fail")
    (tmp_path / "d" / "b" / "5.jpg").unlink()
    with pytest.raises(UserError, match=r"b/5\.jpg"):
        list(loader.epoch(0))
    with pytest.raises(UserError, match=r"b/5\.jpg"):
        loader.execute(random_plan(loader._manifest))
    loader.close()


def test_file_that_only_dali_refuses_is_decoded_on_the_cpu(folder, tmp_path, monkeypatch, drawn):
    """Stands for photos that Pillow decodes and DALI does not: refused bytes replace a good file's."""
    loader = open_loader(folder, tmp_path)
    expected = drawn(loader.epoch(0))
    victim, files = 7, loader._files
    checked = files._checked

    def refused(index: int, file: np.ndarray, plain: bool) -> np.ndarray | str:
        spoilt = index == victim and index not in files._pixels
        return as_ppm(smooth(8, 8))[:-50] if spoilt else checked(index, file, plain)

    monkeypatch.setattr(files, "_checked", refused)
    found = drawn(loader.epoch(0))
    assert files._pixels == {victim}
    assert found == expected
    assert not loader.bad
    assert loader.notes == ["photos that DALI refused and the CPU decodes instead: 1"]
    loader.close()


def test_only_files_known_to_agree_go_to_dali_as_they_are(tmp_path):
    odd_files(tmp_path)
    as_they_are = set()
    for path in sorted(tmp_path.rglob("*.*")):
        with Image.open(path) as image:
            size = image.size
        encoded = np.fromfile(path, np.uint8)
        if agrees(encoded, *size):
            as_they_are.add(path.name)
        assert not agrees(encoded, size[0] + 1, size[1])
    # DALI 2.4 ends the process on bytes of unknown format, so nothing unknown may pass.
    assert not as_they_are & {"cmyk.jpg", "rgb.jpg", "16.png", "alpha.webp", "animated.png", "plain.bmp"}
    assert as_they_are >= {
        "420.jpg",
        "444.jpg",
        "grey.jpg",
        "progressive.jpg",
        "jpeg.png",
        "rgba.png",
        "RGB.png",
    }
    for junk in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        bytes(100),
    ):
        assert not agrees(np.frombuffer(junk, np.uint8), 8, 8)


def test_rotation_turns_about_the_centre():
    matrices = rotation(np.array([0, 90, 17], np.float32), 10)
    np.testing.assert_allclose(matrices[0], [[1, 0, 0], [0, 1, 0]], atol=1e-6)
    centre = matrices @ np.array([5, 5, 1], np.float32)
    np.testing.assert_allclose(centre, 5, atol=1e-5)
    # Counter-clockwise by 90 degrees: the output's top left shows the input's top right.
    np.testing.assert_allclose(matrices[1] @ [0, 0, 1], [10, 0], atol=1e-5)


def test_memory_stays_flat(folder, tmp_path):
    psutil = pytest.importorskip("psutil")
    loader = open_loader(folder, tmp_path)
    process = psutil.Process()
    for epoch in range(12):
        list(loader.epoch(epoch))
        if epoch == 3:
            before = process.memory_info().rss
    # One epoch's pixels left behind each time would be over 1 MB.
    assert process.memory_info().rss - before < 2_000_000
    loader.close()


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs that ignore it
import numpy as np, torch
from pathlib import Path
from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.loaders.batch import Recipe
from flowerfast.loaders.dali import DaliLoader
from flowerfast.loaders.sampling import BadFiles
manifest = load_manifest(sys.argv[1], cache_dir=Path(sys.argv[2]))
loader = DaliLoader(manifest, np.arange(len(manifest)), Recipe(48, 4, augment=AugmentConfig(), shuffle=True),
                    DataConfig(workers=2), torch.device("cpu"), BadFiles(manifest, "skip", 1.0))
batches = loader.epoch(0)
next(batches)
print("ready", flush=True)
if sys.argv[3] == "raise":
    raise SystemExit(5)
if sys.argv[3] == "run":
    for epoch in range(10**6):
        for batch in loader.epoch(epoch):
            pass
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("raise", 5), ("run", -signal.SIGINT)])
def test_process_ends_cleanly_without_close(folder, tmp_path, how, code):
    command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        if how == "run":
            time.sleep(0.5)
            child.send_signal(signal.SIGINT)
        try:
            _, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == code, errors.decode()
    assert (b"KeyboardInterrupt" in errors) == (how == "run")


def test_dali_problem_names_the_remedy(monkeypatch):
    assert dali_probe.dali_problem(CPU) is None
    monkeypatch.setattr(dali_probe, "_installed", lambda: False)
    assert 'pip install "flowerfast[dali]"' in dali_probe.dali_problem(CPU)
    monkeypatch.setattr(dali_probe, "_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "dali-cpu" in dali_probe.dali_problem(torch.device("cuda"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux only" in dali_probe.dali_problem(CPU)


@pytest.mark.parametrize(("wanted", "found"), [("gpu", "gpu"), ("cpu", "cpu"), ("auto", "cpu")])
def test_choose_decoder(wanted, found):
    assert choose_decoder(wanted) == found


@pytest.mark.parametrize(
    ("data", "augment", "cached", "source", "notes"),
    [
        ({"decoder": "gpu"}, True, False, "gpu", 1),
        ({"decoder": "cpu"}, True, False, "cpu", 0),
        ({"workers": 1}, True, False, "cpu", 0),
        ({"workers": 64}, True, False, "cpu", 0),
        ({"decoder": "gpu"}, True, True, "pixels", 0),
        ({"decoder": "gpu"}, False, False, "cpu", 0),
    ],
)
def test_windows_are_tried_only_where_the_gpu_decodes(
    folder, tmp_path, monkeypatch, data, augment, cached, source, notes
):
    monkeypatch.setattr(dali_settings, "roi_problem", lambda device_id: f"GPU {device_id} cannot")
    manifest = load_manifest(folder, cache_dir=tmp_path)
    sampler = Sampler(manifest, np.arange(len(manifest)), recipe(augment))
    settings, told = graph_settings(sampler, DataConfig(**data), torch.device("cuda", 2), cached)
    assert (settings.source, settings.device_id, settings.roi) == (source, 2, notes == 0)
    assert (settings.hint != (0, 0)) == (source == "gpu")
    assert len(told) == notes
    assert all("GPU 2 cannot" in note for note in told)


REFUSAL = (
    "[WARNING] [nvjpeg_hw_decoder] ROI decode with fancy upsampling may produce wrong results on image edge "
    "(1 pixel wide) with nvJPEG < 13.2 (available in CTK 13.3). To enable anyway, set "
    "enable_roi_fancy_upsampling=1"
)


@pytest.mark.parametrize(
    ("code", "problem", "kept"),
    [("pass", None, True), (f"import sys; sys.stderr.write({REFUSAL!r} * 64)", "before 13.2", True),
     ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashes", True),
     ("import sys; sys.exit('no memory')", "no memory", False)],
)  # fmt: skip
def test_window_decoding_is_tried_in_a_process_of_its_own(tmp_path, monkeypatch, code, problem, kept):
    monkeypatch.setenv("FLOWERFAST_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    calls = []
    run = subprocess.run

    def trial(command: list[str], **options: object) -> object:
        calls.append(command)
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(dali_probe.subprocess, "run", trial)
    for _ in range(2):
        found = dali_probe.roi_problem(0)
        assert found is None if problem is None else problem in found
    assert len(calls) == (1 if kept else 2)
    if kept:
        (key,) = json.loads((tmp_path / "dali_window_decode.json").read_text())
        assert "Some GPU" in key
        assert "nvidia-dali" in key
