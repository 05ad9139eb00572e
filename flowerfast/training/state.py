"""What changes from step to step: model, optimiser, schedule, precision."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from flowerfast.config import TrainConfig
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.ranges import stage
from flowerfast.training.fitting import check_alike
from flowerfast.training.model import Classifier


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
        forward: the model as training steps call it: itself, or what `compile_network` made of it.
    """

    model: Classifier
    config: TrainConfig
    device: torch.device
    batches_per_epoch: int
    least_batch: int = 1
    precision: Precision = field(init=False)
    optimizer: torch.optim.SGD = field(init=False)
    scheduler: LRScheduler = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)
    forward: Callable[[torch.Tensor], torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        c = self.config
        self.precision = Precision.choose(c.amp, self.device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=c.lr,
            momentum=c.momentum,
            weight_decay=c.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.scheduler = make_schedule(self.optimizer, c, self.batches_per_epoch)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.dtype == torch.float16)
        self.forward = self.model

    def gradients(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward of a batch: (mean loss, right answers) as device scalars."""
        with stage("forward"), self.precision.autocast(self.device):
            logits = self.forward(batch.images)
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.config.label_smoothing)
            correct = (logits.detach().argmax(1) == batch.labels).sum()
        with stage("backward"):
            self.scaler.scale(loss).backward()
        return loss.detach(), correct

    def end_epoch(self) -> None:
        """Step the schedules that go by epoch."""
        if self.config.schedule != "onecycle":
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
        fresh = self.state_dict()
        check_alike(state, fresh, "trainer")
        fresh["optimizer"]["state"] = self._momenta(state["optimizer"]["state"])
        for group, saved in zip(
            fresh["optimizer"]["param_groups"], state["optimizer"]["param_groups"], strict=True
        ):
            group.update({name: saved[name] for name in ("lr", "momentum")})
        self.optimizer.step()  # of nothing: tells the schedule that the optimiser goes first, as it did
        self.model.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(fresh["optimizer"])
        self.scheduler.load_state_dict({name: state["scheduler"][name] for name in _SCHEDULED})
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        if self.device.type == "mps" and "mps_rng" in state:
            torch.mps.set_rng_state(state["mps_rng"])

    def _momenta(self, saved: Any) -> dict[int, dict[str, Any]]:
        """The optimiser's state by the number of the weights, from a saved one."""
        place = "trainer.optimizer.state"
        weights = dict(enumerate(self.optimizer.param_groups[0]["params"]))
        check_alike(saved, {}, place)
        for number, kept in saved.items():
            if number not in weights:
                raise ValueError(f"{place}.{number}: of none of the {len(weights)} weights")
            fresh = None if kept["momentum_buffer"] is None else weights[number]
            check_alike(kept, {"momentum_buffer": fresh}, f"{place}.{number}")
        return {number: {"momentum_buffer": kept["momentum_buffer"]} for number, kept in saved.items()}


_SCHEDULED = ("last_epoch", "_step_count", "_last_lr")
"""What changes in the state of a schedule."""


def place_model(model: Classifier, config: TrainConfig, device: torch.device) -> Classifier:
    """The model on its device, in the memory format that `train.channels_last` says."""
    model = model.to(device)
    last = config.channels_last == "on" or (config.channels_last == "auto" and device.type == "cuda")
    return model.to(memory_format=torch.channels_last) if last else model


def make_schedule(optimizer: torch.optim.SGD, config: TrainConfig, batches_per_epoch: int) -> LRScheduler:
    """Schedule of the learning rate; onecycle steps per batch, the others per epoch."""
    if config.schedule == "step":
        return StepLR(optimizer, config.step_size, config.gamma)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, config.epochs)
    if config.schedule == "onecycle":
        return OneCycleLR(optimizer, config.lr, epochs=config.epochs, steps_per_epoch=batches_per_epoch)
    return ConstantLR(optimizer, factor=1.0)
