"""A plain fine-tuning script: timm, torchvision's transforms, one recipe, no search.

The classifier is trained on the frozen backbone for two epochs, then with the last two blocks at a
tenth of its rate: AdamW, one cycle with warm-up, label smoothing 0.1, random resized crops and
mirroring. It knows how long it may take: the first steps are timed, and the rest of the time is
filled with epochs. It trains on training and validation images together, as nothing is chosen.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from gsfl_tune.models import create_backbone

SIZE, BATCH = 224, 64


def main() -> None:
    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    begun = time.perf_counter()
    torch.manual_seed(seed)
    # The same weights as all sides have; without this package a user loads the file.
    backbone = create_backbone("tf_efficientnet_lite0", "package")
    model = backbone.model
    change = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    change.append(v2.Normalize(*backbone.preprocessing))
    train_change = v2.Compose(
        [v2.RandomResizedCrop(SIZE, (0.35, 1.0)), v2.RandomHorizontalFlip(), *change]
    )
    test_change = v2.Compose([v2.Resize(258), v2.CenterCrop(SIZE), *change])
    classes = sorted(path.name for path in (folder / "train").iterdir())
    index = {name: number for number, name in enumerate(classes)}

    def part(name: str, how: v2.Compose) -> ImageFolder:
        found = ImageFolder(str(folder / name), how)
        # A part may lack classes.
        found.samples = [(p, index[found.classes[y]]) for p, y in found.samples]
        return found

    data = ConcatDataset([part("train", train_change), part("validation", train_change)])
    loader = DataLoader(
        data, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )
    test = DataLoader(part("test", test_change), 128, num_workers=2)
    head = nn.Linear(model.num_features, len(classes))
    network = nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    trained = backbone.train_last(2)
    optimizer = torch.optim.AdamW(
        [{"params": trained, "lr": 0.0}, {"params": head.parameters(), "lr": 0.0}],
        weight_decay=0.01,
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    # What testing and starting take is left alone.
    test_seconds = 0.0
    network.eval()
    with torch.inference_mode():
        started = time.perf_counter()
        network(torch.randn(128, 3, SIZE, SIZE))
        test_seconds = (time.perf_counter() - started) * (len(test) + 2)
    per_epoch = len(loader)
    first: list[float] = []
    total = per_epoch  # until the first steps are timed
    step = 0
    done = False
    while not done:
        network.train()
        for images, labels in loader:
            if step == 3:
                first.append(time.perf_counter())
            if step == 13:
                each = (time.perf_counter() - first[0]) / 10
                left = seconds - (time.perf_counter() - begun) - test_seconds
                total = max(per_epoch, int(left / each * 0.97) + step)
                print(f"{each:.2f} s a step, {total / per_epoch:.1f} epochs", flush=True)
            share = step / total
            rate = min(1.0, share / 0.1) * (1 - max(0.0, share - 0.1) / 0.9)
            optimizer.param_groups[0]["lr"] = rate * 1e-3
            optimizer.param_groups[1]["lr"] = rate * 3e-3
            loss = loss_of(network(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if step >= total:
                done = True
                break
    network.eval()
    right = count = 0
    with torch.inference_mode():
        for images, labels in test:
            right += int((network(images).argmax(1) == labels).sum())
            count += len(labels)
    found = {"accuracy": right / count, "seconds": time.perf_counter() - begun}
    print(json.dumps(found | {"epochs": step / per_epoch}))


if __name__ == "__main__":
    main()
