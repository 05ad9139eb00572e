"""Loaders of others, where they are installed: every photo once an epoch, as what they say they deliver."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from benchmarks.peers import Peer, all_peers
from benchmarks.peers.decode_only import DECODERS, PEERS
from flowerfast.bench.child import Child, Variant
from flowerfast.bench.worker import open_source

PHOTOS, BATCH, SIDE, CORES = 12, 4, 32, 2
FULL = [peer for peer in all_peers() if peer.role in ("peer", "limit") and peer.photos == "full"]


def skip_without(peer: Peer) -> None:
    if package := peer.missing():
        pytest.skip(f"{package} is not installed")


def draw(target: str, options: dict[str, Any]) -> dict[str, Any]:
    """Labels of three epochs in their order, and (count, shape, dtype, least, most) of each batch."""
    source, orders, batches = open_source(target, options), [], []
    for epoch in islice(source.epochs, 3):
        orders.append([])
        for images, labels in epoch:
            orders[-1] += [int(label) for label in labels]
            if images is not None:
                pixels = np.asarray(images)
                ends = float(pixels.min()), float(pixels.max())
                batches.append([len(labels), pixels.shape, str(pixels.dtype), *ends])
    return {"orders": orders, "batches": batches}


@pytest.mark.parametrize("peer", FULL, ids=lambda peer: peer.name)
def test_an_epoch_has_every_photo_once_and_the_next_another_order(peer, photo_folder, tmp_path):
    skip_without(peer)
    data, cache = photo_folder({f"class_{i:02d}": 1 for i in range(PHOTOS)}), tmp_path / "cache"
    cache.mkdir()
    sizes = {"data": str(data), "image_size": SIDE, "batch_size": BATCH, "cores": CORES, "cache": str(cache)}
    order = {"target": peer.target, "options": {**sizes, **peer.options}}
    # A process of its own: some fork workers, which must not follow what other tests have started here.
    with Child(Variant(peer.name, "tests.benchmarks.test_peers:draw", order), {}) as child:
        drawn = child.call(300)
    orders = drawn["orders"]
    assert [sorted(labels) for labels in orders] == [[*range(PHOTOS)]] * 3
    assert orders[0] != orders[1] or orders[1] != orders[2]
    for count, shape, dtype, least, most in drawn["batches"]:
        assert shape[0] == count
        assert sorted(shape[1:]) == [3, SIDE, SIDE]
        assert dtype == ("uint8" if "normalise" in peer.leaves_out else "float32")
        assert dtype == "uint8" or -3 < least < 0 < most < 3


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_decoders_decode_whole_photos_alike(peer, photo_folder):
    skip_without(peer)
    decode = DECODERS[peer.options["decoder"]]()
    files = sorted(Path(photo_folder()).rglob("*.jpg"))
    for file in files:
        encoded = file.read_bytes()
        pixels, expected = decode(encoded), simplejpeg.decode_jpeg(encoded, "RGB")
        assert (pixels.shape, pixels.dtype) == (expected.shape, expected.dtype)
        assert np.abs(pixels.astype(int) - expected).max() <= 2
    assert len({decode(file.read_bytes()).tobytes() for file in files}) == len(files)
