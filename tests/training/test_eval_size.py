"""Images outside of training at a size of their own: `data.eval_image_size`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import center_crop, square_side
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.fingerprint import fingerprint

from .checks import bundle_of
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

STAGES = {
    "head": {"epochs": 1, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 1},
}


def config_of(size, views=0, blocks=1, backbone="test_efficientnet", **training):
    finetune = {**STAGES["finetune"], "blocks": blocks}
    return tiny_config(
        data={"views": views, "eval_image_size": size},
        model={"backbone": backbone},
        training={**STAGES, "finetune": finetune, **training},
    )


def _squares(workspace):
    test = workspace.dataset.test
    return test.gather(np.arange(len(test)))


@pytest.mark.parametrize(
    ("backbone", "views", "blocks"),
    [
        pytest.param("test_efficientnet", 2, 1, marks=pytest.mark.slow),
        ("test_efficientnet", 0, 1),
        pytest.param("test_efficientnet", 0, "all", marks=pytest.mark.slow),
        ("test_vit", 2, 1),
        pytest.param("test_vit", 0, 1, marks=pytest.mark.slow),
        ("test_vit", 0, "all"),
    ],
)
def test_predictions_are_those_of_the_trained_network_at_that_size(
    workspace, tmp_path, backbone, views, blocks
):
    training = run(
        Training(config_of(48, views, blocks, backbone, ema=0.5), workspace, tmp_path / "own")
    )
    network = training.trained_network().eval()
    images = torch.from_numpy(_squares(workspace))
    found = training.predict("test").logits
    for size, same in ((48, True), (32, False)):
        with torch.inference_mode():
            seen = center_crop(images, size, *network.backbone.preprocessing)
            wanted = network.infer(seen).numpy()
        assert np.allclose(found, wanted, atol=1e-4) == same


@pytest.mark.parametrize("views", [0, 2])
def test_weights_do_not_depend_on_it(workspace, tmp_path, views):
    states = []
    for size in (None, 48):
        training = run(Training(config_of(size, views), workspace, tmp_path / str(size)))
        states.append(state_of(training)["module"])
    assert_equal_states(*states)


def test_a_checkpoint_without_it_stays_valid_and_one_with_another_size_is_not_taken():
    plain = config_of(None)
    content = plain.model_dump(mode="json")
    del content["data"]["eval_image_size"]
    assert fingerprint(type(plain).model_validate(content)) == fingerprint(plain)
    assert len({fingerprint(config_of(size)) for size in (None, 48, 64)}) == 3


def test_a_head_alone_is_validated_on_what_it_is_trained_on(workspace, tmp_path):
    """A space may hold both: trials that stay frozen, and trials that do not."""
    config = config_of(48, finetune={"epochs": 0})
    assert config.eval_image_size == 32
    one = run(Training(config, workspace, tmp_path / "one"))
    other = run(Training(config_of(None, finetune={"epochs": 0}), workspace, tmp_path / "other"))
    assert np.array_equal(one.predict("test").logits, other.predict("test").logits)


def test_a_bundle_sees_images_as_the_test_did(cache_dir, tmp_path):
    config = config_of(48, blocks="all")
    workspace = Workspace.open(config.data, cache_dir=cache_dir, device=torch.device("cpu"))
    test = workspace.dataset.test
    assert test.side == square_side(48), "pixels of the larger size are there"
    training = run(Training(config, workspace, tmp_path / "training"))
    bundle = bundle_of(training, tmp_path / "bundle")
    assert bundle.preprocessing.image_size == 48
    found = bundle.predict(test.squares(np.arange(12)), top=1)
    logits = torch.from_numpy(training.predict("test").logits[:12])
    wanted = logits.softmax(dim=1).amax(dim=1).tolist()
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.probabilities[0] == pytest.approx(theirs, abs=1e-4)
