"""The loss of training: cross-entropy with smoothing, weights of classes and mixed labels.

Of photos with several labels, float32 (N, classes), it is the binary cross-entropy of each class.
"""

import numpy as np
import torch
import torch.nn.functional as F

from flowerfast.loaders.batch import Batch


def batch_loss(
    logits: torch.Tensor, batch: Batch, smoothing: float, class_weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """(mean loss of a batch, what it counts for beside others), scalars.

    A sample counts for 1, or for the weight of its class, float32 (classes,), as `torch.nn.CrossEntropyLoss`
    has it; a mixed one for its two labels by their shares (Zhang et al., "mixup", ICLR 2018). Where it has
    several labels it counts for 1, weighted ones too, as `torch.nn.BCEWithLogitsLoss` has it.
    """
    if batch.labels.is_floating_point():
        targets = several_targets(batch) * (1 - smoothing) + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=class_weights)
        return loss, len(batch)
    if batch.partner_labels is None or batch.weight is None:
        loss = F.cross_entropy(logits, batch.labels, class_weights, label_smoothing=smoothing)
        return loss, len(batch) if class_weights is None else class_weights[batch.labels].sum()
    total = counted = torch.zeros((), device=logits.device)
    for labels, share in ((batch.labels, batch.weight), (batch.partner_labels, 1 - batch.weight)):
        each = F.cross_entropy(logits, labels, class_weights, reduction="none", label_smoothing=smoothing)
        total = total + (share * each).sum()
        counted = counted + (share if class_weights is None else share * class_weights[labels]).sum()
    return total / counted, counted


def several_targets(batch: Batch) -> torch.Tensor:
    """What is to be answered of photos with several labels: float32 (N, classes), 0 to 1, perhaps mixed."""
    if batch.partner_labels is None or batch.weight is None:
        return batch.labels
    return torch.lerp(batch.partner_labels, batch.labels, batch.weight[:, None])


def right_answers(logits: torch.Tensor, labels: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """How many of a batch are answered rightly, a scalar on its device.

    Of several labels a photo, float32 (N, classes), that is the share of classes that are rightly given or
    not given, those given whose probability is the threshold or more.
    """
    if not labels.is_floating_point():
        return (logits.argmax(1) == labels).sum()
    given = logits.float().sigmoid() >= threshold
    return (given == (labels > 0.5)).float().mean(1).sum()


def label_weights(having: np.ndarray, samples: int) -> torch.Tensor:
    """Weights of labels that are there, samples without / samples with each: float32 (classes,).

    `having` are how many training photos have each, int (classes,). A label that none or all have weighs 1.
    """
    without = samples - having
    known = (having > 0) & (without > 0)
    weights = np.divide(without, having, out=np.ones(len(having)), where=known)
    return torch.from_numpy(weights.astype(np.float32))


def balanced_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Weights of the classes, samples / (classes x samples of the class): float32 (classes,).

    `labels` are those of the training photos, int (n,). Classes without any have weight 0 and do not count.
    """
    count = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels) / (count > 0).sum(), count, out=np.zeros(classes), where=count > 0)
    return torch.from_numpy(weights.astype(np.float32))
