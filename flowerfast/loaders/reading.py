"""Batches whose photos threads are making ready."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import Task, results
from flowerfast.plans.plan import Plan

Ready = tuple[Plan, Any, dict[int, str]]
"""(plan of the readable samples, their photos, why the others are bad by sample index)."""


@dataclass
class Reading:
    """A batch whose photos are being read.

    Attributes:
        photos: the set that the plan speaks of.
        plan: the batch's plan.
        tasks: read some samples each, in order.
        finish: makes the batch of the plan and what the tasks returned.
    """

    photos: Photos
    plan: Plan
    tasks: list[Task[Any]]
    finish: Callable[[Any, list[Any]], Ready]

    @property
    def done(self) -> bool:
        """All photos have been read."""
        return all(task.done() for task in self.tasks)

    def result(self) -> Ready:
        """What has been read; waits for it."""
        return self.finish(self.plan, results(self.tasks, self.photos.place))
