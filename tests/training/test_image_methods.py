"""Methods that look at maps and make other images, in real trainings."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gsfl_tune.experiment.methods import (
    ATTRIBUTE_METHODS,
    FINETUNE_METHODS,
    METHODS,
    PART_METHODS,
)
from gsfl_tune.methods import method_class
from gsfl_tune.training import Training

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

HEAD = {"epochs": 1, "batch_size": 16}
FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 2}
# Those that need annotations have files of their own.
NAMES = [name for name in FINETUNE_METHODS if name not in (*ATTRIBUTE_METHODS, *PART_METHODS)]
# Files of their own resume these in every run of the tests.
RESUMED = ("counterfactual_attention", "feature_alignment", "recurrent_attention")


def config_of(name, **finetune):
    training = {"head": HEAD, "finetune": {**FINETUNE, **finetune}, "method": name}
    # Of 32 pixels the map has one position.
    return tiny_config(data={"image_size": 48}, training=training)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in RESUMED else n for n in NAMES]
)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, name):
    whole = check_resumes(config_of(name), workspace, tmp_path, stop_after=2)
    assert all(np.isfinite(record["train/loss"]) for record in whole.log.read())


@pytest.fixture(scope="module")
def plain(workspace, tmp_path_factory):
    """What no method trains: the head after its stage, and all behind the last one."""
    training = Training(config_of("single"), workspace, tmp_path_factory.mktemp("single"))
    training.run_epoch()
    head = copy.deepcopy(training.head.state_dict())
    return head, state_of(run(training))


@pytest.mark.parametrize("name", NAMES)
def test_only_the_finetune_stage_differs(workspace, tmp_path, plain, name):
    head, whole = plain
    own = Training(config_of(name), workspace, tmp_path)
    own.run_epoch()
    assert_equal_states(head, own.head.state_dict())
    run(own)
    key = "head.classifier.weight"
    assert not torch.equal(whole["module"][key], state_of(own)["module"][key])


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_network_is_trained_with_it_too(workspace, tmp_path, name):
    training = Training(config_of(name, epochs=1, blocks="all"), workspace, tmp_path)
    run(training)
    assert training.trained_network().training is False
    assert np.isfinite(training.predict("test").logits).all()


def test_what_reads_maps_is_said_to_have_no_effect_on_the_head_stage():
    assert tuple(name for name in METHODS if method_class(name).reads_maps) == FINETUNE_METHODS


def test_classifiers_of_jigsaws_are_trained_and_kept(workspace, tmp_path):
    training = Training(config_of("pmg", epochs=1), workspace, tmp_path)
    before = {k: v.clone() for k, v in training.context.method.state_dict().items()}
    assert {name.split(".")[1] for name in before} == {"0", "1"}
    training.run_epoch()
    head = state_of(training)["method"]
    assert all(torch.equal(before[name], head[name]) for name in before)
    record = training.run_epoch()
    assert record["train/jigsaw"] > 0
    after = state_of(training)["method"]
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert not any("classifiers" in name for name in training.trained_network().state_dict())


def test_jigsaws_are_of_mixed_images_too(workspace, tmp_path):
    run(Training(config_of("pmg", epochs=1, mixup=0.3), workspace, tmp_path))


def test_a_method_without_a_finetune_stage_has_no_classifiers(workspace, tmp_path):
    config = tiny_config(training={"head": HEAD, "method": "pmg"})
    training = Training(config, workspace, tmp_path)
    assert not training.context.method.state_dict()
    run(training)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("blocks", [2, "all"])
def test_half_precision_trains_too(workspace, tmp_path, name, blocks):
    config = config_of(name, epochs=1, blocks=blocks)
    training = config.training.model_copy(update={"precision": "bf16"})
    record = Training(config.model_copy(update={"training": training}), workspace, tmp_path)
    run(record)
    assert all(np.isfinite(each["train/loss"]) for each in record.log.read())
