"""The three spaces whose learning curves are recorded: twelve parameters of the head stage."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.experiment import Experiment

DATASETS = ("clothing", "omniglot", "typefaces")
EPOCHS = 27
VALIDATION_IMAGES = {"clothing": 341, "omniglot": 726, "typefaces": 252}

_DATA = {
    "clothing": "{source: parquet, path: %s/clothing/*.parquet, image_size: 224}",
    "omniglot": "{source: parquet, path: %s/omniglot/*.parquet, image_size: 96}",
    "typefaces": "{source: typefaces, image_size: 96, typefaces: {train: 60}}",
}

# The default is 64. On these small layers most of a step is overhead: fewer steps an epoch.
_BATCH = {"clothing": 256, "omniglot": 256, "typefaces": 128}

# Clothing has no grouping that is known; a taxonomy has as many groups as it has.
_GROUPS = {
    "clothing": "{method: {choice: [kmeans, random]}, count: {int: [1, 5], default: 3}}",
    "omniglot": """
    method: {choice: [kmeans, taxonomy, random]}
    taxonomy: %s/omniglot/groups.csv
    count: {int: [1, 20], default: 16, when: {model.groups.method: [kmeans, random]}}""",
    "typefaces": """
    method: {choice: [kmeans, taxonomy, random]}
    count: {int: [1, 10], default: 6, when: {model.groups.method: [kmeans, random]}}""",
}

_REST = """
loss:
  reconstruction: {float: [1e-6, 10], log: true, default: 0.17}
  class_center: {float: [1e-5, 1], log: true, default: 0.005}
  shared_center: {float: [1e-5, 1], log: true, default: 0.075}
  center_rate: {float: [1e-3, 0.5], log: true, default: 0.21}
  label_smoothing: {float: [0, 0.2], default: 0}
training:
  device: cpu
  head:
    epochs: 27
    batch_size: %d
    learning_rate: {float: [3e-4, 3e-2], log: true}
    weight_decay: {float: [1e-5, 1e-1], log: true}
"""


def experiment(dataset: str, real: Path | None = None) -> Experiment:
    """The experiment whose random configurations are recorded.

    The ranges are those of ``search_spaces/typefaces.yaml``, but for smaller latent sizes (as the
    features are smaller, see `record.py`) and learning rates that suit the larger batch.

    Args:
        dataset: One of `DATASETS`.
        real: Folder of the real images, for who trains. Without it the data are others, and the
            space is the same.
    """
    data, groups = _DATA["typefaces"], _GROUPS[dataset]
    if real is not None:
        data = _DATA[dataset].replace("%s", str(real))
        groups = groups.replace("%s", str(real))
    groups = "\n".join(line for line in groups.split("\n") if "%s" not in line)
    model = (
        f"\nname: replay-{dataset}\ndata: {data}\nmodel:\n  weights: package\n"
        "  dropout: {float: [0, 0.7], default: 0.28}\n"
        "  latent_dim: {int: [32, 256], log: true, default: 128}\n"
        "  feature_scale: {float: [1, 64], log: true, default: 11.8}\n"
        f"  groups: {groups}"
    )
    return Experiment.parse(model + _REST % _BATCH[dataset], file=f"replay-{dataset}.yaml")
