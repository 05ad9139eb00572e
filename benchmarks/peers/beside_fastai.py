"""A classifier by fastai, as its documentation has it: the script that benchmarks/beside.py runs."""

import sys

from fastai.vision.all import *

data, epochs, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
set_seed(0, reproducible=True)
dls = ImageDataLoaders.from_folder(
    data,
    train="train",
    valid="val",
    item_tfms=RandomResizedCrop(224),
    bs=batch,
    device="cpu",
)
learn = vision_learner(dls, resnet18, pretrained=False, metrics=accuracy, opt_func=SGD)
learn.unfreeze()
learn.fit(epochs, lr=0.05)
print("accuracy", float(learn.validate()[1]))
