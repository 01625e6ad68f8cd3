"""The user's side of `glue.py`: a training script glued to Ray Tune in an afternoon.

A function trainable, `OptunaSearch`, `ASHAScheduler`, `ImageFolder` and `DataLoader`. The backbone
is frozen and runs under ``no_grad`` on the images of every epoch. Head, loss and centres come from
gsfl_tune, so that the model is the same; so do the class groups, from one pass over the training
images before the search.

``--remember`` computes the features of all images once, for who asks for the accuracy that this
script finds and not for its time: there is no augmentation, so that every epoch has the same ones.
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

BATCH = 64


def center(image, size):
    """The pixels that the other side sees: `CenterCrop` rounds an odd margin the other way."""
    edge = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((*edge, edge[0] + size, edge[1] + size))


def loaders(folder, size):
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose(
        [
            transforms.Resize(math.ceil(size * 1.15), transforms.InterpolationMode.BICUBIC),
            transforms.Lambda(partial(center, size=size)),
            transforms.ToTensor(),
            transforms.Normalize([0.498] * 3, [0.502] * 3),
        ]
    )
    options = {"batch_size": BATCH, "num_workers": 1, "persistent_workers": True}
    train = ImageFolder(f"{folder}/train", transform)
    validation = ImageFolder(f"{folder}/val", transform)
    return DataLoader(train, shuffle=True, **options), DataLoader(validation, **options)


def remember(folder, size):
    """Features and labels of both parts."""
    import torch

    from gsfl_tune.models import create_backbone

    backbone = create_backbone("tf_efficientnet_lite0", "package")
    parts = []
    for loader in loaders(folder, size):
        seen = [(features_of(backbone, images), labels) for images, labels in loader]
        parts.append([torch.cat(both) for both in zip(*seen, strict=True)])
    return parts


def remembered_loaders(parts):
    from torch.utils.data import DataLoader, TensorDataset

    train, validation = (TensorDataset(*part) for part in parts)
    return DataLoader(train, BATCH, shuffle=True), DataLoader(validation, BATCH)


def features_of(backbone, images):
    import torch
    from torch.nn.functional import normalize

    if images.ndim == 2:
        return images
    with torch.no_grad():
        maps = backbone(images.to(memory_format=torch.channels_last))
        return normalize(maps.mean((2, 3)), dim=1)


def class_groups(folder, size, most):
    """Groups of classes with similar mean features, for every number of groups."""
    import torch

    from gsfl_tune.grouping import make_groups
    from gsfl_tune.models import create_backbone

    backbone = create_backbone("tf_efficientnet_lite0", "package")
    loader, _ = loaders(folder, size)
    seen = [(features_of(backbone, images), labels) for images, labels in loader]
    features, labels = (torch.cat(parts).numpy() for parts in zip(*seen, strict=True))
    return {
        count: make_groups("kmeans", count, features, labels, int(labels.max()) + 1).tolist()
        for count in range(1, most + 1)
    }


def train(config, folder, size, epochs, groups, remembered):
    import torch

    from gsfl_tune.losses import Loss, Sizes, gsfl_terms
    from gsfl_tune.models import GsflHead, create_backbone

    torch.manual_seed(0)
    backbone = create_backbone("tf_efficientnet_lite0", "package")
    if remembered is None:
        train_loader, validation_loader = loaders(folder, size)
    else:
        train_loader, validation_loader = remembered_loaders(remembered)
    head = GsflHead(
        backbone.channels,
        len(groups[1]),
        latent_dim=config["latent_dim"],
        dropout=config["dropout"],
        feature_scale=config["feature_scale"],
    )
    grouping = torch.tensor(groups[config["groups"]])
    loss = Loss(
        Sizes(backbone.channels, config["latent_dim"], len(grouping), grouping),
        gsfl_terms(
            reconstruction=config["reconstruction"],
            class_center=config["class_center"],
            shared_center=config["shared_center"],
            center_rate=config["center_rate"],
        ),
        label_smoothing=config["label_smoothing"],
        feature_scale=config["feature_scale"],
    )
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config["learning_rate"],
        total_steps=epochs * len(train_loader),
        pct_start=0.1,
        cycle_momentum=False,
    )
    for _ in range(epochs):
        head.train()
        for images, labels in train_loader:
            features = features_of(backbone, images)
            output = head(features)
            optimizer.zero_grad()
            loss(output, features, labels, head.classifier.weight).total.backward()
            optimizer.step()
            schedule.step()
            loss.after_step()
        head.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in validation_loader:
                predicted = head.infer(features_of(backbone, images)).argmax(1)
                correct += (predicted == labels).sum().item()
        tune.report({"accuracy": correct / len(validation_loader.dataset)})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--most-groups", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=json.loads, required=True, help="configuration to try")
    parser.add_argument("--storage", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--remember", action="store_true", help="compute features once")
    args = parser.parse_args()

    groups = class_groups(args.folder, args.size, args.most_groups)
    space = {
        "dropout": tune.uniform(0.0, 0.7),
        "latent_dim": tune.lograndint(64, 257),
        "feature_scale": tune.loguniform(1.0, 64.0),
        "groups": tune.randint(1, args.most_groups + 1),
        "reconstruction": tune.loguniform(1e-6, 10.0),
        "class_center": tune.loguniform(1e-5, 1.0),
        "shared_center": tune.loguniform(1e-5, 1.0),
        "center_rate": tune.loguniform(1e-3, 0.5),
        "label_smoothing": tune.uniform(0.0, 0.2),
        "learning_rate": tune.loguniform(1e-4, 1e-2),
        "weight_decay": tune.loguniform(1e-5, 1e-1),
    }
    trainable = tune.with_parameters(
        train,
        folder=args.folder,
        size=args.size,
        epochs=args.epochs,
        groups=groups,
        remembered=remember(args.folder, args.size) if args.remember else None,
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=args.trials,
            max_concurrent_trials=2,
            # Where time does not count, processes are not started for each trial.
            reuse_actors=args.remember,
            search_alg=OptunaSearch(seed=args.seed, points_to_evaluate=[args.first]),
            scheduler=ASHAScheduler(max_t=args.epochs, grace_period=3, reduction_factor=3),
        ),
        run_config=tune.RunConfig(storage_path=args.storage, name="glue"),
    )
    results = tuner.fit()
    searched = time.time()
    best = results.get_best_result()
    args.out.write_text(
        json.dumps(
            {
                "searched": searched,
                "accuracy": best.metrics["accuracy"],
                "epochs": sum(result.metrics.get("training_iteration", 0) for result in results),
                "trials": len(results),
                "complete": sum(
                    result.metrics.get("training_iteration", 0) == args.epochs for result in results
                ),
                "errors": results.num_errors,
            }
        )
    )


if __name__ == "__main__":
    main()
