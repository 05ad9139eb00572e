"""Which samples come when, and their plans: shared by all executors."""

from collections.abc import Iterator

import numpy as np

from flowerfast.data.manifest import BadFile, Manifest
from flowerfast.data.plan import EvalPlan, Plan, epoch_order, make_eval_plan, make_plan
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Recipe


class Sampler:
    """Plans of the batches of any epoch, for one set of samples.

    Args:
        manifest: all photos.
        indices: int64 (n,), the samples of this loader (one half of the split).
        recipe: batch size, seed and which kind of plan.
    """

    def __init__(self, manifest: Manifest, indices: np.ndarray, recipe: Recipe) -> None:
        self.manifest, self.indices, self.recipe = manifest, np.asarray(indices, np.int64), recipe

    def __len__(self) -> int:
        return -(-len(self.indices) // self.recipe.batch_size)

    def plans(self, epoch: int, start_batch: int = 0) -> Iterator[Plan | EvalPlan]:
        """Plans of the epoch's batches in order, from `start_batch` on."""
        size, count = self.recipe.batch_size, len(self.indices)
        order = epoch_order(self.recipe.seed, epoch, count) if self.recipe.shuffle else np.arange(count)
        for start in range(start_batch * size, count, size):
            yield self.plan(epoch, self.indices[order[start : start + size]])

    def plan(self, epoch: int, indices: np.ndarray) -> Plan | EvalPlan:
        """Plan of some samples in an epoch."""
        r = self.recipe
        sizes = self.manifest.width[indices], self.manifest.height[indices]
        if r.augment is None:
            return make_eval_plan(indices, sizes, r.image_size, r.crop_pct)
        return make_plan(r.seed, epoch, indices, sizes, r.augment, r.image_size)


class BadFiles:
    """Counts files that cannot be decoded, and says when there are too many.

    Args:
        manifest: names the files; those it left out at the scan count too.
        on_bad: "skip" or "fail".
        max_bad: share of all files above which "skip" gives up.
    """

    def __init__(self, manifest: Manifest, on_bad: str, max_bad: float) -> None:
        self.manifest, self.on_bad, self.max_bad = manifest, on_bad, max_bad
        self.found: dict[int, BadFile] = {}
        for bad in manifest.bad:
            self._check(bad, len(manifest.bad))

    def add(self, index: int, error: str) -> None:
        """Note a sample that failed to decode. Raises UserError when the settings say stop."""
        if index not in self.found:
            self.found[index] = BadFile(self.manifest.where(index), error)
            self._check(self.found[index], len(self.found) + len(self.manifest.bad))

    def _check(self, bad: BadFile, count: int) -> None:
        root, total = self.manifest.root, len(self.manifest) + len(self.manifest.bad)
        if self.on_bad == "fail":
            raise UserError(
                f"{root / bad.path}: {bad.error}; mend or remove it, or skip such files (data.on_bad=skip)"
            )
        # One bad file in a tiny folder is no reason to stop.
        if count > max(1, self.max_bad * total):
            raise UserError(
                f"{root}: {count} of {total} files cannot be read, more than data.max_bad={self.max_bad:g}; "
                f"last: {bad.path}: {bad.error}; mend or remove them, or raise data.max_bad"
            )
