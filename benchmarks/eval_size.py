"""The size of images outside of training: one trained network, tested at several sizes.

A network is trained on random crops of 224 px, as `recipes.py` does it, and tested on the same
centres of images at 224, 256 and 288 px (`data.eval_image_size`; Touvron et al., NeurIPS 2019).
What was measured once stays in ``results/eval_size.jsonl``.

    python benchmarks/eval_size.py --data grocery --recipe "best trial" --seed 2   # six minutes
    python benchmarks/eval_size.py --page
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import recipes
import torch
from _report import RESULTS, publish, table

from gsfl_tune.data import center_crop
from gsfl_tune.training import Training, Workspace

LOG = RESULTS / "eval_size.jsonl"
SIZES = (224, 256, 288)
RECIPES = {"base": recipes.BASE, "best trial": f"{recipes.BASE}, best trial"}
_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["grocery", "clothing"], default="grocery")
    parser.add_argument("--recipe", choices=list(RECIPES), default="base")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="train nothing")
    args = parser.parse_args()
    if not args.page:
        torch.set_num_threads(1)
        with LOG.open("a") as file:
            file.write(json.dumps(measure(args.data, args.recipe, args.seed)) + "\n")
    rows = [json.loads(line) for line in LOG.read_text().splitlines()]
    publish("eval_size", "Larger images outside of training", page(rows))


def measure(data: str, recipe: str, seed: int) -> dict[str, Any]:
    """Trains once, and tests at every size."""
    changes = {"data.eval_image_size": max(SIZES)}
    config = recipes.experiment(data, RECIPES[recipe], changes).defaults()
    workspace = Workspace.open(config.data)
    with tempfile.TemporaryDirectory() as directory:
        training = Training(config, workspace, Path(directory), seed=seed)
        while not training.finished:
            training.run_epoch()
        network = training.trained_network().eval()
    test = workspace.dataset.test
    images = torch.from_numpy(test.gather(np.arange(len(test))))
    labels = np.asarray(test.labels)

    def accuracy(size: int) -> float:
        statistics = network.backbone.preprocessing
        with torch.inference_mode():
            rows = [
                network.infer(center_crop(batch, size, *statistics)).argmax(dim=1)
                for batch in images.split(_BATCH)
            ]
        return float((torch.cat(rows).numpy() == labels).mean())

    found = {str(size): accuracy(size) for size in SIZES}
    return {"data": data, "recipe": recipe, "seed": seed, "images": len(test), "accuracy": found}


def page(rows: list[dict[str, Any]]) -> str:
    """One row a training."""
    cells = [
        [
            row["data"],
            row["recipe"],
            row["seed"],
            *(f"{row['accuracy'][str(size)]:.1%}" for size in SIZES),
            f"{half_width(row):.1%}",
        ]
        for row in rows
    ]
    header = ["data", "recipe", "seed", *(f"tested at {size} px" for size in SIZES), "±"]
    note = (
        "Trained on random crops of 224 px; recipes as in [recipes.md](recipes.md). ± is half of a "
        "95 % interval of the middle accuracy over the test images. In a row the images and the "
        "network are the same, so differences are surer than that. Tests of this project ran "
        "beside the first four trainings, which ran in a script outside of this folder that did "
        "the same; only accuracies are compared. `data.eval_image_size: 256` was chosen by this "
        "table, so other images have to confirm it."
    )
    return f"{note}\n\n{table(header, cells)}"


def half_width(row: dict[str, Any]) -> float:
    """Half of a normal 95 % interval of the accuracy at the middle size."""
    share = row["accuracy"][str(SIZES[1])]
    return float(1.96 * (share * (1 - share) / row["images"]) ** 0.5)


if __name__ == "__main__":
    main()
