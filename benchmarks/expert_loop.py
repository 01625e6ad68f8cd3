"""The expert's side of `expert.py`: Optuna in one process, on features cached by hand.

What somebody who knows Optuna and torch writes instead of a training script: the features of
the frozen backbone are computed once and kept in a tensor, TPE proposes, Hyperband prunes, and
torch uses all cores as it sees fit. Head, loss, centres, order of the steps and learning-rate
schedule are those of gsfl_tune, so that both sides train the same model.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import optuna
import torch

from gsfl_tune.grouping import make_groups
from gsfl_tune.losses import Loss, Sizes, gsfl_terms
from gsfl_tune.models import GsflHead
from gsfl_tune.training.optim import learning_rate_factor, parameter_groups, set_learning_rate

BATCH = 64


def suggest(trial: optuna.Trial, most_groups: int) -> dict[str, Any]:
    """One configuration; `expert.py` verifies that the space is that of the other side."""
    return {
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "latent_dim": trial.suggest_int("latent_dim", 64, 256, log=True),
        "feature_scale": trial.suggest_float("feature_scale", 1.0, 64.0, log=True),
        "count": trial.suggest_int("count", 1, most_groups),
        "reconstruction": trial.suggest_float("reconstruction", 1e-6, 10.0, log=True),
        "class_center": trial.suggest_float("class_center", 1e-5, 1.0, log=True),
        "shared_center": trial.suggest_float("shared_center", 1e-5, 1.0, log=True),
        "center_rate": trial.suggest_float("center_rate", 1e-3, 0.5, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
    }


def torch_dropout(module: torch.nn.Module) -> None:
    """Puts torch's own dropout in the place of ours, which nobody writes by hand."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Dropout):
            setattr(module, name, torch.nn.Dropout(child.p))
        else:
            torch_dropout(child)


class Loop:
    """The objective, with a record of when which accuracy was there.

    Args:
        file: What `expert.py` left of the features: ``features`` (N, D), ``labels`` (N,),
            ``train`` and ``validation`` positions, ``most_groups``.
        epochs: Of a trial that is not pruned.
    """

    def __init__(self, file: Path, epochs: int) -> None:
        data = torch.load(file, weights_only=True)
        self.features, self.labels = data["features"], data["labels"]
        self.train_features = self.features[data["train"]]
        self.train_labels = self.labels[data["train"]]
        self.validation_features = self.features[data["validation"]]
        self.validation_labels = self.labels[data["validation"]]
        self.class_count = int(self.labels.max()) + 1
        self.most_groups = data["most_groups"]
        self.epochs = epochs
        self.epochs_trained = 0
        self.started = time.perf_counter()
        self.epoch_seconds = 0.0
        self.any_epoch: list[tuple[float, float]] = []
        # Cached by hand, as the features.
        self.groups = {count: self._groups(count) for count in range(1, self.most_groups + 1)}

    def _groups(self, count: int) -> torch.Tensor:
        found = make_groups(
            "kmeans",
            count,
            self.train_features.numpy(),
            self.train_labels.numpy(),
            self.class_count,
            seed=0,
        )
        return torch.from_numpy(found)

    def __call__(self, trial: optuna.Trial) -> float:
        p = suggest(trial, self.most_groups)
        torch.manual_seed(0)
        head = GsflHead(
            self.features.shape[1],
            self.class_count,
            latent_dim=p["latent_dim"],
            dropout=p["dropout"],
            feature_scale=p["feature_scale"],
        )
        torch_dropout(head)
        sizes = Sizes(
            self.features.shape[1], p["latent_dim"], self.class_count, self.groups[p["count"]]
        )
        loss = Loss(
            sizes,
            gsfl_terms(
                reconstruction=p["reconstruction"],
                class_center=p["class_center"],
                shared_center=p["shared_center"],
                center_rate=p["center_rate"],
            ),
            label_smoothing=p["label_smoothing"],
            feature_scale=p["feature_scale"],
        )
        optimizer = torch.optim.AdamW(
            parameter_groups(
                head.parameters(), learning_rate=p["learning_rate"], weight_decay=p["weight_decay"]
            ),
            fused=True,
        )
        per_epoch = -(-len(self.train_labels) // BATCH)
        accuracy = 0.0
        for epoch in range(self.epochs):
            began = time.perf_counter()
            head.train()
            order = torch.randperm(len(self.train_labels))
            for step, batch in enumerate(order.split(BATCH), start=epoch * per_epoch):
                f, y = self.train_features[batch], self.train_labels[batch]
                output = head(f)
                loss(output, f, y, head.classifier.weight).total.backward()
                total = self.epochs * per_epoch
                factor = learning_rate_factor(step, total, warmup=0.1, schedule="cosine")
                set_learning_rate(optimizer, factor)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                loss.after_step()
            head.eval()
            with torch.inference_mode():
                predicted = head.infer(self.validation_features).argmax(1)
                accuracy = (predicted == self.validation_labels).double().mean().item()
            self.epochs_trained += 1
            now = time.perf_counter()
            self.epoch_seconds += now - began
            self.any_epoch.append((now - self.started, accuracy))
            trial.report(accuracy, epoch + 1)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spawned", type=float, default=None, help="time.time() of the start")
    parser.add_argument("--enqueue", type=json.loads, help="a configuration to try first")
    args = parser.parse_args()
    spawned = args.spawned or time.time()

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    loop = Loop(args.features, args.epochs)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=args.seed),
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=args.epochs, reduction_factor=3
        ),
    )
    if args.enqueue:
        study.enqueue_trial(args.enqueue)
    ended: list[float] = []
    startup = time.time() - spawned
    loop.started = time.perf_counter()
    study.optimize(
        loop,
        n_trials=args.trials,
        callbacks=[lambda study, trial: ended.append(time.perf_counter() - loop.started)],
    )
    seconds = time.perf_counter() - loop.started
    record = {
        "startup": startup,
        "seconds": seconds,
        "epochs": loop.epochs_trained,
        "busy": loop.epoch_seconds / seconds,
        "threads": torch.get_num_threads(),
        "trials": [
            {"state": trial.state.name, "value": trial.value, "end": end}
            for trial, end in zip(study.trials, ended, strict=True)
        ],
        "any_epoch": max(accuracy for _, accuracy in loop.any_epoch),
        "distributions": {
            name: optuna.distributions.distribution_to_json(distribution)
            for name, distribution in study.trials[0].distributions.items()
        },
    }
    args.out.write_text(json.dumps(record))


if __name__ == "__main__":
    main()
