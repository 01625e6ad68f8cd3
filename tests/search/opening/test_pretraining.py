"""A search says before it begins that its pretrainings have too few images."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.search.opening.begin import refuse_what_fails_later
from gsfl_tune.training.standalone import open_workspace

TEXT = """\
name: t
data: {source: typefaces, image_size: 32, typefaces: {train: 4, test: 1, size: 40}}
model: {backbone: test_resnet, weights: none}
training: {device: cpu, pretrain: true}
pretrain:
  batch_size: {choice: [16, 500]}
"""


def test_batches_larger_than_the_number_of_images_are_refused(tmp_path):
    experiment = Experiment.parse(TEXT, file="t.yaml")
    workspace = open_workspace(experiment, tmp_path)
    with pytest.raises(ExperimentError) as error:
        refuse_what_fails_later(experiment, workspace, print, None)
    assert str(error.value) == (
        "t.yaml:6: pretrain.batch_size: found 500 for 63 images, allowed at most their number"
    )
    # Nothing is trained in the driver.
    smaller = Experiment.parse(TEXT.replace("500", "32"))
    refuse_what_fails_later(smaller, workspace, print, None)
    assert not (tmp_path / "pretrained").exists()
