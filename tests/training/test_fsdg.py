"""Trainings with common, specific and confounding parts: what they learn, resumed, exported."""

from __future__ import annotations

import math

import pytest
import torch

from gsfl_tune.experiment import Experiment
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.training import Training
from gsfl_tune.training.fingerprint import fingerprint
from gsfl_tune.training.pricing.cost import term_bytes
from gsfl_tune.training.pricing.work import training_work

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import run

TERMS = ("decorrelation", "consistency", "specificity", "calibration")


def config_of(kind="fsdg", weight=0.1, terms=TERMS, **training):
    weights = {name: weight if name in terms else 0.0 for name in TERMS}
    return tiny_config(
        model={"head": kind},
        loss={"fsdg": weights},
        training={"head": {"epochs": 6, "batch_size": 32, "learning_rate": 3e-3}} | training,
    )


@pytest.fixture(scope="module")
def unweighted(workspace, tmp_path_factory):
    training = Training(config_of(weight=0.0), workspace, tmp_path_factory.mktemp("unweighted"))
    return run(training).log.read()[-1]


@pytest.mark.parametrize("name", TERMS)
def test_every_term_is_learnt_when_it_counts(workspace, tmp_path, unweighted, name):
    training = run(Training(config_of(weight=3.0, terms=(name,)), workspace, tmp_path))
    # The evidence of a plain head: there is no shared part to compare groups with.
    assert training.groups is None
    key = f"train/fsdg_{name}"
    assert training.log.read()[-1][key] < 0.98 * unweighted[key]


def test_resuming_equals_never_having_stopped(workspace, tmp_path):
    finetune = {"epochs": 2, "batch_size": 24, "blocks": 1}
    config = config_of(head={"epochs": 1, "batch_size": 16}, finetune=finetune)
    trained = check_resumes(config, workspace, tmp_path, 2)
    network = trained.trained_network()
    # What only training needs is not in the bundle: it is that of a plain head.
    path = bundle_from_network(
        tmp_path / "bundle",
        network,
        config,
        classes=workspace.dataset.classes,
        groups=None,
        side=workspace.dataset.test.side,
        metrics={},
    )
    found = load_bundle(path).network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())


def test_it_starts_as_the_plain_head(workspace, tmp_path):
    heads = [
        Training(config_of(head), workspace, tmp_path).head.state_dict()
        for head in ("fsdg", "plain")
    ]
    assert heads[0].keys() == heads[1].keys()
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    assert fingerprint(config_of("plain", 0.1)) == fingerprint(config_of("plain", 0.2))
    assert fingerprint(config_of("fsdg", 0.1)) != fingerprint(config_of("fsdg", 0.2))


def test_what_training_adds_is_priced(workspace, tmp_path):
    config = config_of()
    training = Training(config, workspace, tmp_path)
    counted = sum(parameter.numel() for parameter in training.loss.parameters())
    dim, classes = training.head.feature_dim, training.head.class_count
    text = "name: t\ndata: {source: typefaces}\nmodel: {head: fsdg, latent_dim: 16, "
    experiment = Experiment.parse(text + "groups: {count: 3}}\n")
    assert term_bytes(experiment, 16, classes, dim) == 16 * counted
    plain, fsdg = (
        training_work(config_of(head), train=64, validation=0, classes=classes)[0].operations
        for head in ("plain", "fsdg")
    )
    size = training.head.latent_dim // 2
    added = (dim + size + 2) * size
    assert fsdg - plain == pytest.approx((2 * 3 * 64 + 60 * math.ceil(64 / 32)) * added)
