"""A restorer of degraded images in real trainings."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from gsfl_tune.data.transforms.restorer import Restorer
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.training import Training
from gsfl_tune.training.pricing import training_work
from gsfl_tune.training.pricing.cost import largest_model

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import run, state_of

pytest.importorskip("spandrel")

STAGES = {
    "head": {"epochs": 1, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 1},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from spandrel.architectures.Compact import Compact

    folder = tmp_path_factory.mktemp("networks")
    for seed in range(2):
        torch.manual_seed(seed)
        network = Compact(num_feat=4, num_conv=1, upscale=2)
        save_file(network.state_dict(), folder / f"{seed}.safetensors")
    return [str(folder / f"{seed}.safetensors") for seed in range(2)]


def config_of(restorer, views=0):
    augment = {"degrade": 0.8, "restorer": restorer}
    return tiny_config(data={"views": views, "augment": augment}, training=STAGES)


@pytest.mark.parametrize("views", [0, 2])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, files, views):
    check_resumes(config_of(files[0], views), workspace, tmp_path, stop_after=2)


def test_fixed_views_of_another_network_are_computed_anew(workspace, tmp_path, files):
    states = [
        state_of(run(Training(config_of(file, 2), workspace, tmp_path / str(number))))["module"]
        for number, file in enumerate([files[0], files[1], None])
    ]
    key = "head.classifier.weight"
    assert not torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


def test_its_passes_and_its_weights_are_priced(files):
    def of(path, degrade=0.8):
        augment = {"degrade": degrade, "restorer": path}
        config = tiny_config(data={"augment": augment}, training=STAGES)
        return training_work(config, train=100, validation=20, classes=5)[-1]

    pixels = 100 * config_of(None).data.image_size ** 2
    network = Restorer(files[0])
    more = of(files[0]).operations - of(None).operations
    # A product and a sum of each weight at each place of the small image.
    assert 0.3 < more / (2 * network.parameters * 0.8 * pixels) < 0.4
    assert of(files[0]).kind != of(None).kind
    assert of(files[0], 0.0) == of(None, 0.0)
    text = """
name: t
data: {source: typefaces, augment: {degrade: 0.5, restorer: FILE}}
model: {backbone: test_efficientnet, weights: none}
training: {finetune: {epochs: 1}}
"""
    bytes_of = [
        largest_model(Experiment.parse(text.replace("FILE", path))).bytes
        for path in (files[0], "null")
    ]
    assert bytes_of[0] - bytes_of[1] == 4 * network.parameters


def test_a_file_that_is_not_there_is_said(workspace, tmp_path):
    training = Training(config_of(str(tmp_path / "none.safetensors")), workspace, tmp_path)
    training.run_epoch()  # the head stage has no use for it
    words = r"data\.augment\.restorer: .*none\.safetensors cannot be"
    with pytest.raises(UserError, match=words):
        training.run_epoch()
    # So is it where the key of fixed views has its content.
    config = config_of(str(tmp_path / "none.safetensors"), views=2)
    with pytest.raises(UserError, match=words):
        run(Training(config, workspace, tmp_path / "views"))
