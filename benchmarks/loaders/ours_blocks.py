"""flowerfast's Loader on shards, whose first epoch shuffles shards and then the photos within each."""

from benchmarks.loaders.ours import Loader as Ours
from benchmarks.loaders.ours import prepare as prepare


class Loader(Ours):
    """One loader for all epochs."""

    order = "blocks-first"
