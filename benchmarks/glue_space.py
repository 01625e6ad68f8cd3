"""What `glue.py` and `expert.py` search: one space, on one of three data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from gsfl_tune.experiment import Experiment

# The ranges of `search_spaces/typefaces.yaml`; a latent part of 256 is enough for these classes.
SPACE = """
model:
  backbone: tf_efficientnet_lite0
  weights: package
  dropout: {float: [0, 0.7], default: 0.28}
  latent_dim: {int: [64, 256], log: true, default: 128}
  feature_scale: {float: [1, 64], log: true, default: 11.8}
  groups:
    method: kmeans
    count: {int: [1, 10], default: 5}
loss:
  reconstruction: {float: [1e-6, 10], log: true, default: 0.17}
  class_center: {float: [1e-5, 1], log: true, default: 0.005}
  shared_center: {float: [1e-5, 1], log: true, default: 0.075}
  center_rate: {float: [1e-3, 0.5], log: true, default: 0.21}
  label_smoothing: {float: [0, 0.2], default: 0}
training:
  head:
    batch_size: 64
    learning_rate: {float: [1e-4, 1e-2], log: true}
    weight_decay: {float: [1e-5, 1e-1], log: true}
"""

DATA_SETS = ("typefaces", "clothing", "omniglot")


def real_data() -> Path | None:
    """The folder of real images, where there is one."""
    folder = os.environ.get("GSFL_TUNE_REAL_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None


def data_section(name: str, image_size: int | None = None) -> dict[str, Any]:
    """The section ``data`` of a data set.

    Args:
        name: One of DATA_SETS.
        image_size: Pixels that the backbone sees; default: what suits the images.

    Raises:
        SystemExit: If it is not on this machine.
    """
    if name == "typefaces":
        return {"source": "typefaces", "image_size": image_size or 96}
    root = real_data()
    if root is None or not (root / name).is_dir():
        raise SystemExit(f"--data {name}: GSFL_TUNE_REAL_DATA names no folder that has {name}/")
    return {
        "source": "parquet",
        "path": str(root / name / "*.parquet"),
        "image_size": image_size or (224 if name == "clothing" else 105),
    }


def experiment(name: str, data: dict[str, Any], *, epochs: int, **search: Any) -> Experiment:
    """The space on some data.

    Args:
        name: Of the experiment.
        data: Section ``data``.
        epochs: Of the head stage.
        **search: Section ``search``.
    """
    content = {"name": name, "data": data, **yaml.safe_load(SPACE)}
    content["training"]["head"]["epochs"] = epochs
    content["search"] = {
        "resources": {"cpu": 1, "gpu": 0},
        **search,
    }
    return Experiment.parse(yaml.safe_dump(content))
