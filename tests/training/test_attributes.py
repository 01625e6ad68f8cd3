"""`loss.attributes` in real trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import Annotations
from gsfl_tune.experiment import UserError
from gsfl_tune.training import Training

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

BOTH = {
    "head": {"epochs": 2, "batch_size": 16, "mixup": 0.4},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 1, "mixup": 0.4},
}
LOSS = {"attributes": {"weight": 0.5}}
KEY = "states.term_attributes.layer.weight"


def annotate(monkeypatch, workspace, change=lambda values: None):
    """Gives every image the bits of its class as attributes; a fifth of them is unknown."""
    pool = workspace.dataset.pool
    values = (pool.labels[:, None] >> np.arange(5) & 1).astype(np.float32)
    random = np.random.default_rng(0)
    values[random.random(values.shape) < 0.2] = np.nan
    change(values)
    names = [f"bit {n}" for n in range(5)]
    every = Annotations.of([None] * len(pool), attributes=values, attribute_names=names)
    monkeypatch.setattr(type(workspace.dataset), "annotations", lambda self, part: every)
    return every


@pytest.mark.parametrize("views", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, monkeypatch, views):
    annotate(monkeypatch, workspace)
    config = tiny_config(data={"views": views}, loss=LOSS, training=BOTH)
    whole = check_resumes(config, workspace, tmp_path, stop_after=3)
    values = [record["train/attributes"] for record in whole.log.read()]
    assert all(value > 0 for value in values)
    assert not any("attributes" in name for name in whole.trained_network().state_dict())


def test_they_are_learnt_and_teach_the_head(workspace, tmp_path, monkeypatch):
    annotate(monkeypatch, workspace)
    stages = {"head": {"epochs": 12, "batch_size": 16, "learning_rate": 0.01}}
    found = {}
    for name, loss in (("on", LOSS), ("off", {})):
        config = tiny_config(model={"dropout": 0.0}, loss=loss, training=stages)
        fresh = Training(config, workspace, tmp_path / f"fresh {name}")
        found[name] = fresh.head.state_dict(), run(Training(config, workspace, tmp_path / name))
    # Nothing else begins in another way.
    assert_equal_states(found["on"][0], found["off"][0])
    records = found["on"][1].log.read()
    assert records[-1]["train/attributes"] < 0.9 * records[0]["train/attributes"]
    on, off = (state_of(found[name][1])["module"] for name in ("on", "off"))
    assert not torch.equal(on["discriminative.1.weight"], off["discriminative.1.weight"])


def test_those_of_validation_images_are_not_seen(workspace, tmp_path, monkeypatch):
    states = []

    def forget(values):
        values[workspace.dataset.validation_index] = 7.0  # not even looked at

    for name, change in (("known", lambda values: None), ("other", forget)):
        annotate(monkeypatch, workspace, change)
        config = tiny_config(loss=LOSS, training={"head": {"epochs": 1}})
        states.append(state_of(run(Training(config, workspace, tmp_path / name))))
    assert_equal_states(states[0]["module"], states[1]["module"])
    assert torch.equal(states[0]["loss"][KEY], states[1]["loss"][KEY])


def test_each_image_has_its_own_also_where_two_are_mixed(workspace, tmp_path, monkeypatch):
    every = annotate(monkeypatch, workspace)
    training = Training(tiny_config(loss=LOSS, training=BOTH), workspace, tmp_path)
    stage = training._current()
    seen = []
    monkeypatch.setattr(training.context.method, "step", _noted(training.context.method, seen))
    training.run_epoch()
    assert seen
    for batch in seen:
        own = every.attributes[batch.positions.numpy()]
        assert np.array_equal(batch.targets.extras["attributes"].numpy(), own, equal_nan=True)
        labels = batch.targets.others.numpy()
        others = batch.targets.extras_of_others["attributes"].numpy()
        known = np.isfinite(others)
        bits = labels[:, None] >> np.arange(5) & 1
        assert np.array_equal(others[known], bits[known])
    assert stage.name == "head"


def _noted(method, seen):
    step = method.step

    def noted(batch, passes):
        seen.append(batch)
        return step(batch, passes)

    return noted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.fill(np.nan), r"no training image has a known attribute; allowed"),
        (lambda values: values.fill(3), r"found the value 3 of the attribute bit 0, allowed 0"),
    ],
)
def test_images_without_such_attributes_are_refused(
    workspace, tmp_path, monkeypatch, change, message
):
    annotate(monkeypatch, workspace, change)
    with pytest.raises(UserError, match=rf"loss\.attributes\.weight: .*{message}"):
        Training(tiny_config(loss=LOSS), workspace, tmp_path)


def test_a_source_without_attributes_is_refused(workspace, tmp_path):
    with pytest.raises(UserError, match=r"source cub, or data\.attribute_columns"):
        Training(tiny_config(loss=LOSS), workspace, tmp_path)
