"""Test-time flip is measured once, with the network that a user gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.evidence import trained
from gsfl_tune.run import RunDirectory
from gsfl_tune.training.caches.engines import fast_backbone

from .conftest import FINETUNE
from .test_write import write


@pytest.mark.parametrize(
    ("views", "stages"), [(2, {}), (0, {"finetune": FINETUNE, "head": {"epochs": 3}})]
)
def test_flip_is_the_mean_of_an_image_and_its_mirror_image(
    workspace, retrained, tmp_path, views, stages
):
    winner = retrained(data={"augment": {"flip": True}, "views": views}, training=stages)
    found = write(workspace, tmp_path, winner)["flip"]
    test = workspace.dataset.test
    (model,) = winner.models(workspace, 1)
    size, (mean, std) = winner.config.eval_image_size, model.network.backbone.preprocessing
    probabilities = []
    for place in range(len(test)):
        image = Image.fromarray(test.gather(np.array([place]))[0])
        border = (image.width - size) // 2
        image = image.crop((border, border, border + size, border + size))
        views = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        pixels = torch.stack([torch.from_numpy(np.array(view)) for view in views])
        scaled = (pixels.permute(0, 3, 1, 2).float() / 255 - torch.tensor(mean)[:, None, None]) / (
            torch.tensor(std)[:, None, None]
        )
        with torch.inference_mode():
            probabilities.append(model.network.infer(scaled).softmax(1).mean(0))
    whole = torch.stack(probabilities)
    labels = torch.as_tensor(test.labels)
    accuracy = (whole.argmax(1) == labels).float().mean()
    nll = -whole.log()[torch.arange(len(labels)), labels].mean()
    assert found["images"] == len(test)
    assert found["test"]["accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    assert found["test"]["nll"] == pytest.approx(float(nll), abs=1e-4)
    plain = winner.predictions()[0].correct.mean()
    assert found["plain"]["accuracy"] == pytest.approx(plain)
    assert found["difference"]["mean"] == pytest.approx(float(accuracy) - plain, abs=1e-6)
    assert found["difference"]["low"] <= found["difference"]["mean"] <= found["difference"]["high"]
    assert RunDirectory(tmp_path).evidence_file.exists()


def test_many_images_run_through_a_fast_form_with_the_same_numbers(
    workspace, retrained, monkeypatch
):
    (model,) = retrained(data={"augment": {"flip": True}, "views": 2}).models(workspace, 1)
    backbone = model.network.backbone
    made = []

    def spy(*args, **settings):
        made.append(fast_backbone(*args, **settings))
        return made[-1]

    monkeypatch.setattr(trained, "fast_backbone", spy)
    few = np.arange(len(workspace.dataset.test))
    plain = model.mirrored_logits(few)
    assert not made
    found = model.mirrored_logits(np.resize(few, 330))
    assert len(made) == 1
    assert model.network.backbone is backbone
    np.testing.assert_allclose(found, np.resize(plain, (330, plain.shape[1])), atol=1e-4)


@pytest.mark.parametrize("flip", [False, True], ids=["off", "of centre crops alone"])
def test_where_training_does_not_mirror_nothing_is_measured(workspace, retrained, tmp_path, flip):
    winner = retrained(data={"augment": {"flip": flip}})
    assert "flip" not in write(workspace, tmp_path, winner)
