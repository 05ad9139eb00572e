"""What changes from step to step: model, optimiser, schedule, precision."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch.optim.lr_scheduler import LRScheduler

from flowerfast.config import TrainConfig
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.ranges import stage
from flowerfast.philox import philox, stream_key
from flowerfast.ranks.who import Ranks
from flowerfast.training.allocator import keep_freed_memory
from flowerfast.training.fitting import check_alike
from flowerfast.training.freezing import Freezing
from flowerfast.training.loss import batch_loss, right_answers
from flowerfast.training.model import Classifier
from flowerfast.training.optimizer import load_optimizer, make_optimizer
from flowerfast.training.schedule import goes_by_step, make_schedule
from flowerfast.training.sharing import SharedNetwork


@dataclass(frozen=True)
class Precision:
    """Mixed precision of a run: autocast type (None: off) and whether the loss is scaled (fp16)."""

    dtype: torch.dtype | None

    @classmethod
    def choose(cls, amp: str, device: torch.device) -> "Precision":
        """`auto`: bf16 on a CUDA GPU that has it, else fp16; off on a CPU, where it measured slower, and on
        Apple's GPU, where it has not been measured.
        """
        if amp == "off" or (amp == "auto" and device.type != "cuda"):
            return cls(None)
        if amp == "auto":
            return cls(torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
        return cls({"bf16": torch.bfloat16, "fp16": torch.float16}[amp])

    @property
    def name(self) -> str:
        """off, bf16 or fp16."""
        return {None: "off", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    def autocast(self, device: torch.device) -> torch.autocast:
        """Context in which the forward pass runs."""
        return torch.autocast(device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)


@dataclass
class TrainState:
    """All that a step needs: model, optimiser, schedule, precision.

    Attributes:
        least_batch: a batch of fewer samples, 1 or 2, is none to train on (`image_size.least_batch`).
        class_weights: of the loss, float32 (classes,), or None.
        threshold: of several labels a photo, probability from which one counts as given.
        forward: the model as training steps call it: itself, or what `compile_network` made of it.
        average, averaged: with `train.ema` the running average of the model's weights, and of how many steps.
        full_batch: samples that this rank has of a full batch.
    """

    model: Classifier
    config: TrainConfig
    device: torch.device
    batches_per_epoch: int
    least_batch: int = 1
    class_weights: torch.Tensor | None = None
    threshold: float = 0.5
    precision: Precision = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    scheduler: LRScheduler = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)
    forward: Callable[[torch.Tensor], torch.Tensor] = field(init=False)
    average: ModelEmaV3 | None = field(init=False)
    averaged: int = field(init=False, default=0)
    full_batch: int = field(init=False)

    def __post_init__(self) -> None:
        c, network = self.config, self.model.network
        self.precision = Precision.choose(c.amp, self.device)
        self.optimizer = make_optimizer(network, c, fused=self.device.type == "cuda")
        self.scheduler = make_schedule(self.optimizer, c, -(-self.batches_per_epoch // c.accumulate))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.dtype == torch.float16)
        self.forward = self.model
        self.average = ModelEmaV3(self.model, c.ema, use_warmup=True) if c.ema is not None else None
        self._freezing = Freezing(network, c)
        self.full_batch = c.batch_size
        self._weighed = c.accumulate > 1  # whether gradients are divided once all samples of a step are known
        self._shared: SharedNetwork | None = None
        self._ranks, self._apart = Ranks(), False  # whether ranks have gradients of their own
        self._counted = torch.zeros((), device=self.device)  # of the batches since the last step
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(self.device)
        self.begin_epoch(0)

    @property
    def evaluated(self) -> Classifier:
        """The model that is validated and kept: the average of its weights where there is one."""
        return self.model if self.average is None else cast(Classifier, self.average.module)

    def share(self, ranks: Ranks) -> None:
        """Train together with other ranks from now on: gradients are those of all, of whole batches."""
        if ranks.are_many:
            self._ranks, self._weighed = ranks, True
            self._shared = SharedNetwork(self.model, self.forward, self.device, ranks)

    def begin_epoch(self, epoch: int) -> None:
        """Set the model to training, but for what is frozen in this epoch, counted from 0."""
        self.model.train()
        self._freezing.begin_epoch(epoch)
        if self._shared is not None:
            self._shared.begin()

    def begin_batch(self, epoch: int, batch: int) -> None:
        """With other ranks: draw random numbers, as of dropout, by where the run is, not by what came before.

        So no rank has a state of its own that a restart with another number of ranks would miss.
        """
        if self._shared is not None:
            place = np.array([(batch << 20) + self._ranks.rank], np.uint64)
            drawn = philox(stream_key("dropout", self.config.seed, epoch), place)
            torch.manual_seed(int(drawn[0, 0]))

    def gradients(self, batch: Batch, due: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward of a batch: (mean loss, right answers) as device scalars.

        The gradients are added to those since the last step, each batch by what it counts for. With other
        ranks `batch` is this one's part, which may be empty, and the figures are those of the whole; `due`
        says whether a step follows.
        """
        c = self.config
        if self._shared is not None:
            return self._gradients_of_all(self._shared, batch, due)
        with stage("forward"), self.precision.autocast(self.device):
            logits = self.forward(batch.images)
            loss, counts = batch_loss(logits, batch, c.label_smoothing, self.class_weights)
            correct = right_answers(logits.detach(), batch.labels, self.threshold)
        with stage("backward"):
            if c.accumulate == 1:
                self.scaler.scale(loss).backward()
            else:
                part = counts / c.batch_size  # about 1: gradients of the usual size suit fp16 best
                self.scaler.scale(loss * part).backward()
                self._counted += part
        return loss.detach(), correct

    def _gradients_of_all(
        self, shared: SharedNetwork, batch: Batch, due: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        c, here = self.config, len(batch) >= self.least_batch
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss x counts, counts, right answers
        with shared.alone(not due):
            with stage("forward"), self.precision.autocast(self.device):
                logits = shared(batch.images if here else batch.images[:0])
                loss: torch.Tensor = logits
                counts: torch.Tensor | float = 0.0
                if here:
                    loss, counts = batch_loss(logits, batch, c.label_smoothing, self.class_weights)
                    sums[0], sums[1] = loss.detach() * counts, counts
                    sums[2] = right_answers(logits.detach(), batch.labels, self.threshold)
            adding = shared.add_up(sums)
            with stage("backward"):
                self.scaler.scale(loss * (counts * self._ranks.world_size / c.batch_size)).backward()
        adding.wait()
        self._counted += sums[1] / c.batch_size
        self._apart = not due
        return sums[0] / sums[1], sums[2]

    def agree(self) -> None:
        """Have all ranks hold the same: the means of their running statistics, and of their gradients if
        a step is yet to be made on them. Goes before a save and before an evaluation.
        """
        if self._shared is None:
            return
        models = [self.model, *([self.evaluated] if self.average is not None else [])]
        held = [each for model in models for each in model.buffers() if each.is_floating_point()]
        if self._apart:
            held += [weight.grad for weight in self._weights_with_gradients() if weight.grad is not None]
            self._apart = False
        self._shared.average(held)

    def update(self) -> torch.Tensor | None:
        """Step on the gradients since the last step: their norm where it tells of numbers too large, or None.

        One that is infinite is clipped to nothing, and no weight would tell of it. (With fp16 such steps are
        left out, and the scale of the loss is lowered.)
        """
        c, norm = self.config, None
        if self._apart:
            self.agree()  # the last batch of the group, on which they would have, was empty
        if self._weighed:
            for weight in self._weights_with_gradients():
                assert weight.grad is not None
                weight.grad.div_(self._counted)
        if c.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(self._weights_with_gradients(), c.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.drop_gradients()
        if goes_by_step(c):
            self.scheduler.step()
        if self.average is not None:
            self.averaged += 1
            self.average.update(self.model, self.averaged)
        return None if self.scaler.is_enabled() else norm

    @property
    def holds_gradients(self) -> bool:
        """Whether there are gradients on which no step was made yet."""
        return bool(self._weights_with_gradients())

    def drop_gradients(self) -> None:
        """Forget the gradients since the last step."""
        self.optimizer.zero_grad(set_to_none=True)
        if self._weighed:
            self._counted.zero_()

    def end_epoch(self) -> None:
        """Step the schedules that go by epoch."""
        if not goes_by_step(self.config):
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from step to step."""
        state = {
            "network": self.model.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.average is not None:
            state["ema"] = {"network": self.evaluated.network.state_dict(), "steps": self.averaged}
        if self.config.accumulate > 1:
            named = self.model.network.named_parameters()
            gradients = {name: weight.grad for name, weight in named if weight.grad is not None}
            state["accumulated"] = {"counted": self._counted, "gradients": gradients}
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        if self.device.type == "mps":
            state["mps_rng"] = torch.mps.get_rng_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back to a saved step. Raises KeyError, RuntimeError or ValueError when it is not of such a run.

        Of the optimiser and the schedule it takes what changes from step to step; the rest follows from the
        settings.
        """
        check_alike(state, self.state_dict(), "trainer")
        # A step of it, which also tells the schedule that the optimiser goes first.
        load_optimizer(self.optimizer, state["optimizer"], "trainer.optimizer")
        self.model.network.load_state_dict(state["network"])
        changing = {name: state["scheduler"][name] for name in _SCHEDULED}
        LRScheduler.load_state_dict(self.scheduler, changing)  # those of its kinds ask for more
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.evaluated.network.load_state_dict(state["ema"]["network"])
            self.averaged = state["ema"]["steps"]
        if self.config.accumulate > 1:
            self._load_gradients(**state["accumulated"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        if self.device.type == "mps" and "mps_rng" in state:
            torch.mps.set_rng_state(state["mps_rng"])

    def _load_gradients(self, counted: torch.Tensor, gradients: dict[str, torch.Tensor]) -> None:
        self._counted.copy_(counted)
        weights = dict(self.model.network.named_parameters())
        for name, gradient in gradients.items():
            check_alike(gradient, weights[name], f"trainer.accumulated.gradients.{name}")
            weights[name].grad = gradient.to(weights[name])

    def _weights_with_gradients(self) -> list[torch.Tensor]:
        return [weight for weight in self.model.parameters() if weight.grad is not None]


_SCHEDULED = ("last_epoch", "_step_count", "_last_lr")
"""What changes in the state of a schedule."""


def place_model(model: Classifier, config: TrainConfig, device: torch.device) -> Classifier:
    """The model on its device, in the memory format that `train.channels_last` says."""
    keep_freed_memory(device)
    model = model.to(device)
    last = config.channels_last == "on" or (config.channels_last == "auto" and device.type == "cuda")
    return model.to(memory_format=torch.channels_last) if last else model
