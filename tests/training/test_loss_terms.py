"""Terms of the loss in real trainings: their state is kept, and any head may use some of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.training import Training
from gsfl_tune.training.checkpoint import load_checkpoint, save_checkpoint

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

BOTH = {"head": {"epochs": 2, "batch_size": 16}, "finetune": {"epochs": 2, "batch_size": 24}}
TERMS = {
    "center": {"center": {"weight": 0.05, "rate": 0.5}},
    "isda": {"isda": {"weight": 1.0, "strength": 2.0}},
    "isda-full": {"isda": {"weight": 0.5, "covariance": "full"}},
}


@pytest.mark.parametrize("head", ["gsfl", "plain"])
@pytest.mark.parametrize("loss", TERMS.values(), ids=TERMS)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, head, loss):
    config = tiny_config(model={"head": head}, loss=loss, training=BOTH)
    whole = check_resumes(config, workspace, tmp_path, stop_after=3)
    name = next(iter(loss))
    values = [record[f"train/{name}"] for record in whole.log.read()]
    assert all(np.isfinite(values))
    assert any(value > 0 for value in values)


@pytest.mark.parametrize("loss", TERMS.values(), ids=TERMS)
def test_a_term_changes_what_is_trained_and_nothing_at_weight_0(workspace, tmp_path, loss):
    head = {"head": "plain"}
    without = run(Training(tiny_config(model=head), workspace, tmp_path / "without"))
    name, settings = next(iter(loss.items()))
    off = tiny_config(model=head, loss={name: {**settings, "weight": 0}})
    ignored = run(Training(off, workspace, tmp_path / "off"))
    assert_equal_states(state_of(without)["module"], state_of(ignored)["module"])
    # It is the same training: what is there may be used.
    assert ignored._fingerprint == without._fingerprint
    trained = run(Training(tiny_config(model=head, loss=loss), workspace, tmp_path / "on"))
    weight = "classifier.weight"
    assert not torch.equal(state_of(trained)["module"][weight], state_of(without)["module"][weight])


def test_centre_loss_draws_a_plain_heads_classes_together(workspace, tmp_path):
    spread = {}
    for weight in (0.0, 0.5):
        config = tiny_config(
            model={"head": "plain", "dropout": 0.0},
            loss={"center": {"weight": weight}},
            training={"head": {"epochs": 12, "learning_rate": 0.003}},
        )
        training = run(Training(config, workspace, tmp_path / str(weight)))
        index = training.context.train_positions.numpy()
        d = training._current().discriminative(index)
        labels = training.context.labels[training.context.train_positions]
        means = torch.stack([d[labels == k].mean(0) for k in range(int(labels.max()) + 1)])
        inside = (d - means[labels]).square().sum(1).mean()
        spread[weight] = float(inside / (means - means.mean(0)).square().sum(1).mean())
    assert spread[0.5] < 0.8 * spread[0.0]


def test_a_checkpoint_of_an_earlier_version_keeps_its_centres(workspace, tmp_path):
    training = Training(tiny_config(), workspace, tmp_path)
    training.run_epoch()
    training.save()
    state = load_checkpoint(training.checkpoint_path)
    # As it was written when class centres were the only state of a loss.
    state["centers"] = training.centers.state_dict()
    del state["loss"]
    save_checkpoint(training.checkpoint_path, state)
    again = Training(tiny_config(), workspace, tmp_path)
    assert again.restore()
    assert torch.equal(again.centers.centers, training.centers.centers)
    assert float(again.centers.centers.abs().max()) > 0
