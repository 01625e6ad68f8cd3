"""FixMatch in real trainings: images without labels, pseudo-labels, resuming."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.data.sources import TypefacesSource
from gsfl_tune.experiment import UserError
from gsfl_tune.experiment.data_config import TypefacesConfig
from gsfl_tune.training import Training, Workspace

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import run, state_of

STAGES = {
    "head": {"epochs": 1, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 2},
}
# A new model is sure of little.
FIXMATCH = {"threshold": 0.05, "mu": 2}
AUGMENT = {"policy": "trivial", "erasing": 0.5}


@pytest.fixture(scope="module")
def unlabelled(workspace, tmp_path_factory):
    """The tiny workspace, and pictures of the same classes that it does not have."""
    folder = tmp_path_factory.mktemp("unlabelled")
    source = TypefacesSource(TypefacesConfig(train=2, test=1, size=40, seed=1))
    for position, reader in source.readers(range(len(source.samples))):
        reader().save(folder / f"{position:03d}.png")
    data = tiny_config(data={"unlabelled": str(folder), "augment": AUGMENT}).data
    device = torch.device("cpu")
    return Workspace.open(data, cache_dir=workspace.cache_dir, device=device), str(folder)


def configured(folder, method="fixmatch", stages=STAGES, **changes):
    data = {"unlabelled": folder, "augment": AUGMENT}
    training = {**stages, "method": method, "fixmatch": {**FIXMATCH, **changes}}
    return tiny_config(data=data, training=training)


def test_resuming_equals_never_having_stopped(unlabelled, tmp_path):
    workspace, folder = unlabelled
    whole = check_resumes(configured(folder), workspace, tmp_path, stop_after=2)
    head, *finetune = whole.log.read()
    assert "train/pseudo" not in head
    for record in finetune:
        assert record["train/pseudo"] > 0
        assert 0 < record["train/pseudo_share"] <= 1


def test_pseudo_labels_change_what_is_trained(unlabelled, tmp_path):
    workspace, folder = unlabelled
    stages = {}
    for name, config in (
        ("single", configured(folder, "single")),
        ("unsure", configured(folder, threshold=0.999)),
        ("fixmatch", configured(folder)),
    ):
        training = Training(config, workspace, tmp_path / name)
        stages[name] = state_of(run(training))["module"]["head.classifier.weight"]
    # Batch norms see the images, even where none is a label.
    assert not torch.equal(stages["unsure"], stages["fixmatch"])
    assert not torch.equal(stages["single"], stages["fixmatch"])


def test_labelled_images_are_changed_weakly_alone(unlabelled, tmp_path):
    """They are those of a training without other changes, in the same order."""
    workspace, folder = unlabelled
    weak = {"scale": 0.875**2, "ratio": 1.0}
    for start in (1.0, 0.6):
        stages = {**STAGES, "finetune": {**STAGES["finetune"], "start_size": start}}
        alone = tiny_config(data={"augment": weak}, training=stages)
        both = configured(folder, stages=stages)
        trainings = [Training(each, workspace, tmp_path / "x") for each in (alone, both)]
        for training in trainings:
            training.epoch = 1
        pairs = zip(
            *(each._enter("finetune")._batches.train_batches(0, 3) for each in trainings),
            strict=True,
        )
        for batch, more in pairs:
            assert torch.equal(batch.inputs, more.inputs)
            assert batch.unlabelled is None
            assert [len(each) for each in more.unlabelled] == [2 * len(batch)] * 2


def test_without_images_it_is_refused(workspace, tmp_path):
    training = {"head": {"epochs": 0}, "finetune": STAGES["finetune"], "method": "fixmatch"}
    config = tiny_config(training=training)
    with pytest.raises(UserError, match=r"found fixmatch, which needs data\.unlabelled"):
        Training(config, workspace, tmp_path).run_epoch()


def test_views_are_refused(unlabelled, tmp_path):
    workspace, folder = unlabelled
    config = configured(folder)
    config = config.model_copy(update={"data": config.data.model_copy(update={"views": 2})})
    training = Training(config, workspace, tmp_path)
    training.epoch = 1
    with pytest.raises(UserError, match=r"data\.views: found views with method fixmatch"):
        training._enter("finetune")
