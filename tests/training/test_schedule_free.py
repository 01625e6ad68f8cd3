"""Schedule-free AdamW in the finetune stage: what is validated is what was averaged."""

from __future__ import annotations

import copy
import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from gsfl_tune.cli import main
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training import Training
from gsfl_tune.training.batch_norm import NORM_BATCHES
from gsfl_tune.training.seeds import mix

from .test_tuning import check_exported, config, run, weights

pytest.importorskip("schedulefree")


def settings(views=0, **changes):
    finetune = {"optimizer": "schedule_free", "learning_rate": 0.01, "epochs": 2, **changes}
    return config(views, **finetune)


@pytest.mark.parametrize("train", ["all", "lora"])
def test_what_is_exported_predicts_what_was_validated(workspace, tmp_path, train):
    training = run(Training(settings(train=train), workspace, tmp_path / "ours"))
    check_exported(training, Training(config(), workspace, tmp_path / "plain"))


@pytest.mark.parametrize("views", [0, 2])
def test_norms_have_the_statistics_of_the_weights_that_are_used(workspace, tmp_path, views):
    training = run(Training(settings(views, epochs=1), workspace, tmp_path))
    stage = training._current()
    network = copy.deepcopy(stage.module)
    # Cutting it passes something through it.
    features = stage._batches.features(network)
    norms = {
        path: module
        for path, module in network.train().named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.training
    }
    assert norms
    seen = {path: [] for path in norms}
    for path, module in norms.items():

        def note(module, args, path=path):
            (x,) = args
            moments = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)
            seen[path].append([each.detach() for each in moments])

        module.register_forward_pre_hook(note)
    batches = stage._batches.train_batches(0, mix(training.seed, 0))
    for number, batch in enumerate(batches):
        if number < NORM_BATCHES:
            features(batch.inputs)
    for path, module in stage.module.named_modules():
        if path in norms:
            mean, variance = (torch.stack(each).mean(0) for each in zip(*seen[path], strict=True))
            torch.testing.assert_close(module.running_mean, mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(module.running_var, variance, rtol=1e-4, atol=1e-5)
            assert module.momentum is not None


def test_frozen_norms_keep_theirs(workspace, tmp_path):
    training = Training(settings(blocks=1), workspace, tmp_path)
    before = copy.deepcopy(training._current().module)
    after = weights(run(training))
    frozen = {
        path
        for path, module in before.train().named_modules()
        if isinstance(module, nn.BatchNorm2d) and not module.training
    }
    kept = {name for name, value in before.state_dict().items() if torch.equal(value, after[name])}
    assert frozen
    assert all(f"{path}.running_mean" in kept for path in frozen)


def test_the_schedule_has_no_effect(workspace, tmp_path):
    states = [
        weights(run(Training(settings(schedule=each), workspace, tmp_path / each)))
        for each in ("cosine", "constant")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_goes_on_from_where_gradients_were_taken(workspace, tmp_path):
    """The last epoch's validation is that of weights which differ from those trained."""
    training = run(Training(settings(), workspace, tmp_path))
    stage = training._current()
    used = copy.deepcopy(weights(training))
    stage.optimizer.train()
    name = "head.classifier.weight"
    assert not torch.equal(used[name], weights(training)[name])
    stage.optimizer.eval()
    torch.testing.assert_close(used[name], weights(training)[name])
    assert np.isfinite(training.log.read()[-1]["validation/nll"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": 0.9}, r"training\.ema: found it with .*schedule_free.*allowed: 0"),
        ({"unfreeze": 1}, r"training\.finetune\.unfreeze: found it with .*schedule_free"),
    ],
)
def test_what_does_not_combine_is_refused(workspace, tmp_path, changes, message):
    content = settings().model_dump(mode="json")
    content["training"]["ema"] = changes.pop("ema", 0)
    content["training"]["finetune"] |= changes
    training = Training(type(config()).model_validate(content), workspace, tmp_path)
    with pytest.raises(UserError, match=message):
        training.run_epoch()


FILE = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none, head: linear}
training:
  head: {epochs: 0}
  ema: EMA
  finetune:
    epochs: 4
    optimizer: {choice: [adamw, schedule_free]}
"""


@pytest.mark.parametrize(
    ("ema", "code"),
    [
        ("0.9", 2),
        ("{choice: [0, 0.9], when: {training.finetune.optimizer: adamw}}", 0),
        ("0", 0),
    ],
)
def test_a_space_may_have_both_under_conditions(tmp_path, capsys, ema, code):
    file = tmp_path / "t.yaml"
    file.write_text(FILE.replace("EMA", ema))
    assert main(["check", str(file)]) == code
    shown = capsys.readouterr()
    if code:
        assert shown.err.startswith(f"{file}:6: training.ema: found it with")
    else:
        assert "schedule_free keeps its rate after the warm-up" in " ".join(shown.out.split())


def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))  # no answer of a check before
    monkeypatch.setattr(
        "gsfl_tune.training.optim.find_spec",
        lambda name: None if name == "schedulefree" else find(name),
    )
    file = tmp_path / "t.yaml"
    file.write_text(FILE.replace("EMA", "0"))
    assert main(["check", str(file)]) == 2
    assert "pip install 'gsfl-tune[schedule-free]'" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["two_views", "sam", "rdrop"])
def test_every_method_trains_with_it(workspace, tmp_path, method):
    content = settings(epochs=1).model_dump(mode="json")
    content["training"]["method"] = method
    training = run(Training(type(config()).model_validate(content), workspace, tmp_path))
    assert np.isfinite(training.log.read()[-1]["validation/nll"])
    training._current().rehearse()
