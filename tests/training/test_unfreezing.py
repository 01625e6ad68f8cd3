"""Blocks that join the training later: `training.finetune.unfreeze`."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gsfl_tune.cli import main
from gsfl_tune.models import probe
from gsfl_tune.training import Training
from gsfl_tune.training.seeds import mix

from .test_tuning import assert_close, check_exported, config, run, weights

BLOCKS = probe("test_efficientnet").block_names


def block_of(name):
    """The place of a parameter or buffer from the end, 0 for the last block; None outside."""
    path = name.removeprefix("backbone.model.").rpartition(".")[0]
    for place, names in enumerate(reversed(BLOCKS)):
        if any(each.rpartition(".")[0] == path for each in names):
            return place
    return None


def test_one_block_more_joins_from_epoch_to_epoch_as_a_plain_loop_has_it(workspace, tmp_path):
    settings = config(
        blocks=3, unfreeze=1, epochs=4, warmup=0, schedule="constant", weight_decay=0.1,
        learning_rate=0.02, head_learning_rate=0.1,
    )  # fmt: skip
    training = Training(settings, workspace, tmp_path / "loop")
    stage = training._current()
    network = copy.deepcopy(stage.module)
    for epoch in range(4):
        network.eval()
        network.head.train()
        reached = [
            n for n, _ in network.named_parameters() if block_of(n) in range(min(3, 1 + epoch))
        ]
        paths = {name.rpartition(".")[0] for name in reached}
        for path, module in network.named_modules():
            if path in paths:
                module.train()
        trained = {
            n: p for n, p in network.named_parameters() if n in reached or n.startswith("head.")
        }
        for batch in stage._batches.train_batches(epoch, mix(training.seed, epoch)):
            loss = F.cross_entropy(network(batch.inputs).logits, batch.labels)
            gradients = torch.autograd.grad(loss, list(trained.values()))
            with torch.no_grad():
                for (name, p), gradient in zip(trained.items(), gradients, strict=True):
                    rate = 0.1 if name.startswith("head.") else 0.02
                    p -= rate * (gradient + (0.1 if p.ndim > 1 else 0.0) * p)
    assert_close(
        weights(run(Training(settings, workspace, tmp_path / "ours"))), network.state_dict()
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("train", ["all", "norms", "dora"])
def test_blocks_that_were_not_reached_do_not_move(workspace, tmp_path, optimizer, train):
    settings = config(
        blocks=3, unfreeze=2, epochs=3, weight_decay=0.5, optimizer=optimizer, train=train,
        learning_rate=0.01, layer_decay=0.5,
    )  # fmt: skip
    training = Training(settings, workspace, tmp_path)
    states = [copy.deepcopy(training._current().module.state_dict())]
    while not training.finished:
        training.run_epoch()
        states.append(copy.deepcopy(training._current().module.state_dict()))
    moved = [
        {block_of(name) for name in old if not torch.equal(old[name], new[name])} - {None}
        for old, new in itertools.pairwise(states)
    ]
    if train == "dora":  # parameters of adapters have longer names
        assert all(each <= {0, 1} for each in moved)
        names = [
            {n for n in old if not torch.equal(old[n], new[n]) and "lora_B" in n}
            for old, new in itertools.pairwise(states)
        ]
        assert names[0] == names[1] < names[2]
    else:
        assert moved == [{0}, {0}, {0, 1}]


@pytest.mark.parametrize("views", [0, 2])
def test_the_average_of_weights_takes_blocks_in_when_they_join(workspace, tmp_path, views):
    settings = config(views, unfreeze=1, learning_rate=0.05).model_dump(mode="json")
    settings["training"]["ema"] = 0.5
    settings = type(config()).model_validate(settings)
    training = Training(settings, workspace, tmp_path / "ours")
    stage = training._current()
    pretrained = copy.deepcopy(stage.module.state_dict())
    training.run_epoch()
    average = stage.averaged.module.state_dict()
    joined = [n for n in pretrained if block_of(n) == 1 and n.endswith("weight")]
    assert all(torch.equal(average[n], pretrained[n]) for n in joined)
    run(training)
    average = stage.averaged.module.state_dict()
    assert not any(torch.equal(average[n], pretrained[n]) for n in joined)
    if not views:
        check_exported(training, Training(config(), workspace, tmp_path / "plain"))


def test_methods_of_two_passes_train_what_was_reached(workspace, tmp_path):
    settings = config(unfreeze=1).model_dump(mode="json")
    settings["training"]["method"] = "sam"
    training = Training(type(config()).model_validate(settings), workspace, tmp_path)
    before = copy.deepcopy(training._current().module.state_dict())
    training.run_epoch()
    after = training._current().module.state_dict()
    changed = {block_of(n) for n in before if not torch.equal(before[n], after[n])}
    assert changed == {0, None}


def test_norms_of_blocks_that_join_later_are_of_the_whole_batch_too(workspace, tmp_path):
    """Processes that share batches are told once, before the first epoch."""
    training = Training(config(unfreeze=1), workspace, tmp_path)
    stage = training._current()
    stage.module.backbone.unfreeze(1)
    stage.divide(2)
    norms = [
        type(module).__name__
        for path, module in stage.module.named_modules()
        if isinstance(module, nn.BatchNorm2d) and block_of(f"{path}.weight") in (0, 1)
    ]
    assert norms
    assert all(name.startswith("Synchronised") for name in norms)


FILE = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none, head: linear, pooling: average}
training:
  head: {epochs: 0}
  finetune:
    epochs: 6
    blocks: {choice: [2, 3]}
    unfreeze: 4
    compile: false
"""


def test_blocks_that_no_epoch_reaches_are_named(tmp_path, capsys):
    file = tmp_path / "t.yaml"
    file.write_text(FILE)
    assert main(["check", str(file)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "unfreeze: 4 reaches 2 of the last 3 blocks of test_efficientnet in 6 epochs" in shown
    assert "of the last 2 blocks" not in shown


def test_a_network_that_is_compiled_is_refused(tmp_path, capsys):
    file = tmp_path / "t.yaml"
    file.write_text(FILE.replace("compile: false", "compile: true"))
    assert main(["check", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{file}:9: training.finetune.unfreeze: found it with")
    assert "allowed: 0, or compile: false" in error
