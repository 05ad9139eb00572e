"""How well a model does on labelled batches."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from flowerfast.loaders.batch import Batch
from flowerfast.training.progress import sum_dtype
from flowerfast.training.scores import Confusion
from flowerfast.training.state import Precision


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, top-1 and top-5 accuracy (0..1; None for fewer than six classes), confusion."""

    loss: float
    accuracy: float
    confusion: Confusion
    top5: float | None = None


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable[Batch], classes: int, precision: Precision) -> Evaluation:
    """Loss, accuracies and confusion of a model over batches on the model's device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=sum_dtype(device), device=device)
    among5 = torch.zeros((), dtype=torch.int64, device=device)
    pairs: list[torch.Tensor] = []  # on the device, so that no batch is waited for: 16 bytes a sample
    for batch in batches:
        if not len(batch):
            continue
        with precision.autocast(device):
            logits = model(batch.images).float()
        loss += F.cross_entropy(logits, batch.labels, reduction="sum")
        pairs.append(torch.stack([batch.labels, logits.argmax(1)]))
        if classes > 5:
            among5 += (logits.topk(5).indices == batch.labels[:, None]).sum()
    model.train(was_training)
    true, predicted = torch.cat(pairs or [torch.zeros(2, 0, dtype=torch.int64)], 1).cpu().numpy()
    total = max(len(true), 1)
    confusion = Confusion.of(true, predicted, classes)
    top5 = among5.item() / total if classes > 5 else None
    return Evaluation(loss.item() / total, confusion.accuracy(), confusion, top5)
