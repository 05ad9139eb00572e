#!/usr/bin/env bash
# timm 1.0.31 takes a file of "pretrained" weights that holds no layer of the network at all, as soon as the head has
# another number of classes than the weights were made for: the network then keeps its random weights, and all that is
# said is a line of the logger.
#
# Seen: create_model("resnet18", pretrained=True) with a file of one tensor under a foreign name raises RuntimeError
# for 1000 classes. For 5, as whoever fine-tunes asks for, it returns a network, and two of them made after the same
# seed, one with that file and one with pretrained=False, are equal in every weight.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 timm==1.0.31 safetensors==0.8.0
cd "$home"
"$home/venv/bin/python" - <<'PY'
import sys

import timm
import torch
from safetensors.torch import save_file

save_file({"of.another.network": torch.zeros(3)}, "weights.safetensors")


def build(classes: int, pretrained: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    place = {"file": "weights.safetensors"}
    network = timm.create_model(
        "resnet18", pretrained=pretrained, num_classes=classes, pretrained_cfg_overlay=place
    )
    return network.state_dict()


try:
    build(1000, True)
    refused = False
except RuntimeError:
    refused = True
taken, random = build(5, True), build(5, False)
same = all(torch.equal(taken[name], random[name]) for name in random)
print(f"for 1000 classes: {'refused' if refused else 'taken'}; for 5: taken, random weights: {same}")
sys.exit(0 if refused and same else 1)
PY
