"""A space of 12 parameters for the benchmarks of the search itself."""

from __future__ import annotations

from gsfl_tune.experiment import Experiment

TEXT = """
name: benchmark
data: {source: typefaces}
model:
  latent_dim: {int: [64, 512], log: true}
  dropout: {float: [0.0, 0.7]}
  feature_scale: {float: [1, 64], log: true}
  groups:
    method: {choice: [kmeans, taxonomy, random]}
    count: {int: [1, 10], when: {model.groups.method: [kmeans, random]}}
loss:
  reconstruction: {float: [1.0e-6, 10], log: true}
  class_center: {float: [1.0e-5, 1], log: true}
  shared_center: {float: [1.0e-5, 1], log: true}
  center_rate: {float: [1.0e-3, 0.5], log: true}
  label_smoothing: {float: [0.0, 0.2]}
training:
  head:
    epochs: 9
    learning_rate: {float: [1.0e-4, 1.0e-2], log: true}
    weight_decay: {float: [1.0e-5, 1.0e-1], log: true}
search:
  trials: 1000
  seed: 1
  scheduler: {name: asha, grace: 1, reduction: 3}
"""


def experiment(*overrides: str) -> Experiment:
    """Twelve parameters, one of them conditional, as in ``search_spaces/typefaces.yaml``."""
    return Experiment.parse(TEXT, overrides=overrides)
