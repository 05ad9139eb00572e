"""The loss of training: cross-entropy with smoothing, weights of classes and mixed labels."""

import numpy as np
import torch
import torch.nn.functional as F

from flowerfast.loaders.batch import Batch


def batch_loss(
    logits: torch.Tensor, batch: Batch, smoothing: float, class_weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """(mean loss of a batch, what it counts for beside others), scalars.

    A sample counts for 1, or for the weight of its class, float32 (classes,), as `torch.nn.CrossEntropyLoss`
    has it; a mixed one for its two labels by their shares (Zhang et al., "mixup", ICLR 2018).
    """
    if batch.partner_labels is None or batch.weight is None:
        loss = F.cross_entropy(logits, batch.labels, class_weights, label_smoothing=smoothing)
        return loss, len(batch) if class_weights is None else class_weights[batch.labels].sum()
    total = counted = torch.zeros((), device=logits.device)
    for labels, share in ((batch.labels, batch.weight), (batch.partner_labels, 1 - batch.weight)):
        each = F.cross_entropy(logits, labels, class_weights, reduction="none", label_smoothing=smoothing)
        total = total + (share * each).sum()
        counted = counted + (share if class_weights is None else share * class_weights[labels]).sum()
    return total / counted, counted


def balanced_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Weights of the classes, samples / (classes x samples of the class): float32 (classes,).

    `labels` are those of the training photos, int (n,). Classes without any have weight 0 and do not count.
    """
    count = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels) / (count > 0).sum(), count, out=np.zeros(classes), where=count > 0)
    return torch.from_numpy(weights.astype(np.float32))
