"""A search says before it begins which of its pretrainings cannot be trained."""

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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["search.resources.workers_per_trial=8"],
            "pretrain.norm_groups: found null, which is 2 here, for 8 processes, allowed 1, or a "
            "multiple of their number",
        ),
        (
            ["search.resources.workers_per_trial=8", "pretrain.norm_groups=4"],
            "pretrain.norm_groups: found 4 for 8 processes",
        ),
        (
            ["search.resources.per_backbone=[{backbone: test_res*, workers_per_trial: 3}]"],
            "pretrain.norm_groups: found null, which is 2 here, for 3 processes",
        ),
        (
            ["search.resources.workers_per_trial=17", "pretrain.method=byol"],
            "pretrain.batch_size: found 16 for 17 processes, allowed at least one image for each",
        ),
        (["search.resources.workers_per_trial=2"], None),
        (["search.resources.workers_per_trial=8", "pretrain.method=byol"], None),
        # Its norms take no statistics of a batch.
        (["search.resources.workers_per_trial=8", "model.backbone=test_vit"], None),
    ],
)
def test_processes_that_cannot_divide_a_batch_are_refused(tmp_path, changes, message):
    changes = ["pretrain.method=moco", "pretrain.batch_size=16", "data.image_size=160", *changes]
    experiment = Experiment.parse(TEXT, overrides=changes)
    workspace = open_workspace(experiment, tmp_path)
    if message is None:
        refuse_what_fails_later(experiment, workspace, print, None)
        return
    with pytest.raises(ExperimentError) as error:
        refuse_what_fails_later(experiment, workspace, print, None)
    assert message in str(error.value)
