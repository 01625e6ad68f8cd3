"""The command of the report that trains the winner alone makes the winner's configuration."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import optuna
import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.report.answer import answer
from gsfl_tune.report.files import read_run
from gsfl_tune.run.results import read_results, write_results
from tests.report.runs import RunMaker

# Everything that the grammar has: alternatives, named mappings, conditions with and without
# `else`, words that YAML takes for something else, and choices that are no scalars of one kind.
EXPERIMENT = """\
name: everything
data:
  source: typefaces
  image_size: {choice: [96, 64]}
  augment: {flip: {choice: [true, false]}}
model:
  size:
    choice:
      small: {latent_dim: 64, dropout: 0.1}
      large: {latent_dim: 512}
  pooling: {choice: [average, bilinear]}
  pooling_channels: {choice: [32, null, 64], when: {model.pooling: bilinear}}
  groups:
    method: {choice: [kmeans, single, taxonomy]}
    count: {int: [2, 8], when: {model.groups.method: kmeans}, else: 1}
loss:
  reconstruction: {float: [1.0e-6, 10], log: true}
training:
  head: {epochs: 2, learning_rate: {float: [1.0e-4, 1.0e-1], log: true}}
  finetune:
    epochs: {choice: [0, 3]}
    blocks: {choice: [all, 2], when: {training.finetune.epochs: 3}}
    optimizer: {choice: [adamw, sgd]}
    learning_rate:
      - {float: [1.0e-5, 1.0e-3], log: true, when: {training.finetune.optimizer: adamw}}
      - {float: [1.0e-3, 1.0e-1], log: true, when: {training.finetune.optimizer: sgd}}
search: {trials: 30}
"""


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    maker = RunMaker(tmp_path_factory.mktemp("commands") / "a run").begin().search(4).finish()
    maker.run.experiment_file.write_text(EXPERIMENT)
    return maker


def test_whatever_won_the_command_trains_it(maker):
    experiment = Experiment.load(maker.run.experiment_file)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=5))
    results = read_results(maker.run.results_file)
    seen = set()
    for _ in range(40):
        params = experiment.space.suggest(study.ask())
        config = experiment.configure(params).model_dump(mode="json")
        seen |= {(name, json.dumps(value)) for name, value in params.items()}
        winner = replace(results.winner, params=params, config=config)
        write_results(maker.run.results_file, replace(results, winner=winner))
        commands = dict(answer(read_run(maker.path)).commands)
        program, command, file, *words = shlex.split(
            commands["Train the winner's configuration alone"]
        )
        assert (program, command, set(words[::2])) == ("gsfl-tune", "train", {"--set"})
        trained = Experiment.load(file, overrides=words[1::2]).defaults()
        assert trained.model_dump(mode="json") == config, params
    # Each kind of value has won at least once.
    for name, value in (
        ("model.size", '"large"'),
        ("model.pooling_channels", "null"),
        ("data.augment.flip", "false"),
        ("training.finetune.blocks", '"all"'),
        ("training.finetune.epochs", "3"),
    ):
        assert (name, value) in seen
    assert any(name == "training.finetune.learning_rate@1" for name, _ in seen)
