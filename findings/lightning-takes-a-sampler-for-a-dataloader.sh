#!/usr/bin/env bash
# lightning 2.6.6: Trainer.fit takes any iterable as a loader, unless the object happens to have an attribute named
# `sampler`: then a validation loader is taken for a torch DataLoader, and its `batch_sampler` is asked for.
#
# Seen: the same iterable of tensors validates well; with `.sampler` set to anything at all, fit raises
# AttributeError: ... has no attribute 'batch_sampler'. As a training loader it is taken either way.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q lightning==2.6.6 "torch>=2.6"
"$home/venv/bin/python" - <<'PY' 2>&1 | grep -v Warning
import logging
import sys
import warnings

warnings.simplefilter("ignore")
import lightning
import torch

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Batches:
    def __len__(self):
        return 2

    def __iter__(self):
        return iter([torch.ones(3, 4), torch.zeros(3, 4)])


class Named(Batches):
    sampler = "which samples come when"


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, _):
        return self.layer(batch).mean()

    def validation_step(self, batch, _):
        self.layer(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(train, val):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    try:
        trainer.fit(Module(), train, val)
    except AttributeError as error:
        return f"AttributeError: {error}"
    return "well"


plain, trained, validated = fit(Batches(), Batches()), fit(Named(), Batches()), fit(Batches(), Named())
print(f"no sampler: {plain}\nin training: {trained}\nin validation: {validated}")
sys.exit(0 if (plain, trained) == ("well", "well") and "batch_sampler" in validated else 1)
PY
