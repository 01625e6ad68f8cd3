"""fastai's `fine_tune` with its defaults: one frozen epoch, then all of the backbone.

`aug_transforms`, its head, its discriminative rates and one cycle; base rate 2e-3. The number of
epochs fills the time: the frozen and one unfrozen batch are timed first. It trains on training
and validation images together.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from fastai.vision.all import (  # noqa: E402
    CategoryBlock,
    DataBlock,
    ImageBlock,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    create_head,
    get_image_files,
    params,
    parent_label,
    set_seed,
)
from torch import nn  # noqa: E402

from gsfl_tune.models import create_backbone  # noqa: E402

SIZE, BATCH = 224, 64


def main() -> None:
    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    begun = time.perf_counter()
    set_seed(seed)
    backbone = create_backbone("tf_efficientnet_lite0", "package")
    backbone.train_last("all")
    mean, std = backbone.preprocessing
    files = [*get_image_files(folder / "train"), *get_image_files(folder / "validation")]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_y=parent_label,
        # fastai wants a validation part: one batch, which nothing is chosen by.
        splitter=lambda items: (list(range(len(items))), list(range(8))),
        item_tfms=Resize(258),
        batch_tfms=[*aug_transforms(size=SIZE, min_scale=0.35), Normalize.from_stats(mean, std)],
    )
    loaders = block.dataloaders(files, bs=BATCH, num_workers=2)
    network = nn.Sequential(backbone.model, create_head(backbone.channels, loaders.c))
    network[0].forward = network[0].forward_features
    learner = Learner(
        loaders,
        network,
        splitter=lambda m: [params(m[0]), params(m[1])],
        metrics=accuracy,
    )
    tests = get_image_files(folder / "test")
    images, labels = loaders.one_batch()
    images, labels = images.as_subclass(torch.Tensor), labels.as_subclass(torch.Tensor)
    times = {}
    for frozen in (True, False):
        learner.freeze() if frozen else learner.unfreeze()
        network.train()
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            nn.functional.cross_entropy(network(images), labels).backward()
            times[frozen] = time.perf_counter() - started
            network.zero_grad()
    test_seconds = times[False] / 3 * len(tests) / BATCH * 1.3
    steps = len(files) // BATCH
    left = seconds - (time.perf_counter() - begun) - test_seconds - 1.1 * times[True] * steps
    epochs = max(1, int(left / (1.1 * times[False] * steps)))
    print(f"{times[False]:.2f} s a step, {epochs} epochs", flush=True)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)
        test = learner.dls.test_dl(tests, with_labels=True)
        logits, truth = learner.get_preds(dl=test)
    right = float((logits.argmax(1) == truth).float().mean())
    found = {"accuracy": right, "seconds": time.perf_counter() - begun, "epochs": epochs + 1}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
