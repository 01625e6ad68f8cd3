"""The command as a user types it, in a process of its own, and a small experiment for it."""

from __future__ import annotations

import os
import sys

from . import warm

EXPERIMENT = """\
name: tiny
data:
  source: typefaces
  image_size: 32
  augment: {flip: false}
  typefaces: {train: 6, test: 3, size: 40}
model:
  backbone: test_efficientnet
  weights: none
  latent_dim: {choice: [8, 16]}
  groups:
    count: {int: [1, 20]}
loss:
  class_center: {float: [1e-4, 1e-1], log: true}
training:
  device: cpu
  head: {epochs: 4, batch_size: 32, learning_rate: {float: [1e-3, 1e-2], log: true}}
search:
  trials: 5
  control: tuned
  finalists: 2
  final_seeds: 2
  resources: {cpu: 1, gpu: 0}
"""


def make_home(tmp_path_factory):
    """A directory with an experiment; its cache is its own."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return folder


def command(home, *arguments):
    return [sys.executable, "-m", "gsfl_tune", *map(str, arguments)]


def environment(home):
    return {**os.environ, "GSFL_TUNE_CACHE": str(home / "cache"), "COLUMNS": "80"}


def gsfl_tune(home, *arguments):
    return warm.run(arguments, cwd=home, env=environment(home))
