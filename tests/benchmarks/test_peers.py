"""Loaders of others, where they are installed: every photo once an epoch, as what they say they deliver."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from benchmarks.peers import Peer, all_peers
from benchmarks.peers.decode_only import DECODERS, PEERS
from flowerfast.bench.worker import open_source

PHOTOS, BATCH, SIDE, CORES = 12, 4, 32, 2
FULL = [peer for peer in all_peers() if peer.role != "ours" and peer.photos == "full"]


def skip_without(peer: Peer) -> None:
    if package := peer.missing():
        pytest.skip(f"{package} is not installed")


@pytest.mark.filterwarnings("default")  # their code, and what it makes of torch and torchvision, is not ours
@pytest.mark.parametrize("peer", FULL, ids=lambda peer: peer.name)
def test_an_epoch_has_every_photo_once_and_the_next_another_order(peer, photo_folder, tmp_path):
    skip_without(peer)
    data, cache = photo_folder({f"class_{i:02d}": 1 for i in range(PHOTOS)}), tmp_path / "cache"
    cache.mkdir()
    sizes = {"data": str(data), "image_size": SIDE, "batch_size": BATCH, "cores": CORES, "cache": str(cache)}
    source = open_source(peer.target, {**sizes, **peer.options})
    orders = []
    try:
        for epoch in islice(source.epochs, 3):
            orders.append([])
            for images, labels in epoch:
                orders[-1] += [int(label) for label in labels]
                if images is not None:
                    check(np.asarray(images), len(labels), peer)
    finally:
        source.close()
    assert [sorted(order) for order in orders] == [[*range(PHOTOS)]] * 3
    assert orders[0] != orders[1] or orders[1] != orders[2]


def check(images: np.ndarray, count: int, peer: Peer) -> None:
    """Images of the peer's layout and of the type that its row says."""
    assert len(images) == count
    assert sorted(images.shape[1:]) == [3, SIDE, SIDE]
    assert images.dtype == (np.uint8 if "normalise" in peer.leaves_out else np.float32)
    if images.dtype == np.float32:
        assert -3 < images.min() < 0 < images.max() < 3


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
