"""A third row in the table of stages: its own section, epochs and rungs, with the code of another.

No experiment file has such a section. The tests register the row, and add the section to the
configuration, as a further stage of this package would.
"""

from __future__ import annotations

import pytest
import torch
from pydantic import Field

from gsfl_tune.experiment.config import Config, FinetuneStageConfig, TrainingConfig
from gsfl_tune.training import Timeline, Training
from gsfl_tune.training.batches import ActivationBatches, SplitBatches
from gsfl_tune.training.pricing import training_work
from gsfl_tune.training.pricing.one_step import rehearse
from gsfl_tune.training.stages import FinetuneStage
from gsfl_tune.training.timeline import STAGES, StageSpec

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import run, state_of

POLISH = StageSpec("polish", grace=False, divided=True, trains_backbone=True, like="finetune")
FINETUNE = {"epochs": 1, "batch_size": 24, "blocks": 1}


class WithPolish(TrainingConfig):
    polish: FinetuneStageConfig = Field(default_factory=FinetuneStageConfig)


class PolishedConfig(Config):
    training: WithPolish = Field(default_factory=WithPolish)


@pytest.fixture
def polishing():
    STAGES.append(POLISH)
    yield
    STAGES.remove(POLISH)


def polished(polish=None, **changes) -> PolishedConfig:
    config = tiny_config(**{"training": {"head": {"epochs": 1}, "finetune": FINETUNE}, **changes})
    content = config.model_dump(exclude_defaults=True)
    content["training"]["polish"] = {**FINETUNE, "epochs": 2, "blocks": 2, **(polish or {})}
    return PolishedConfig.model_validate(content)


@pytest.mark.parametrize(
    "stop_after",
    [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)],
)
def test_it_trains_behind_the_others_and_resumes(workspace, tmp_path, polishing, stop_after):
    whole = check_resumes(polished(), workspace, tmp_path, stop_after)
    records = whole.log.read()
    assert [each["stage"] for each in records] == ["head", "finetune", "polish", "polish"]
    assert all(each["validation/nll"] > 0 for each in records)


def weights(training):
    return {
        name: each
        for name, each in state_of(training)["module"].items()
        if name.startswith("backbone.") and each.is_floating_point() and "running" not in name
    }


def test_it_goes_on_with_the_weights_of_the_stage_before(workspace, tmp_path, polishing):
    # It moves nothing: what it ends with is what it began with.
    still = {"learning_rate": 1e-12, "head_learning_rate": 1e-12, "weight_decay": 0}
    config = polished({"epochs": 1, **still})
    training = Training(config, workspace, tmp_path)
    for _ in range(2):
        training.run_epoch()
    tuned = weights(training)
    training.run_epoch()
    assert training.finished
    kept = weights(training)
    pretrained = {f"backbone.{k}": v for k, v in workspace.backbone(config).state_dict().items()}
    assert all(torch.allclose(kept[name], tuned[name], atol=1e-7) for name in tuned)
    assert not all(torch.equal(kept[name], pretrained[name]) for name in kept)


def test_its_own_settings_decide_what_is_trained(workspace, tmp_path, polishing):
    training = run(Training(polished(), workspace, tmp_path))
    stage = training._current()
    assert (stage.name, stage.config.blocks, stage.config.epochs) == ("polish", 2, 2)
    trained = [name for name, p in stage.module.backbone.named_parameters() if p.requires_grad]
    alone = FinetuneStage(Training(polished(), workspace, tmp_path / "other").context)
    fewer = [name for name, p in alone.module.backbone.named_parameters() if p.requires_grad]
    assert set(fewer) < set(trained)


def test_nothing_cached_of_the_pretrained_backbone_is_read(workspace, tmp_path, polishing):
    config = polished({"epochs": 1}, data={"views": 2})
    training = Training(config, workspace, tmp_path)
    for _ in range(2):
        training.run_epoch()
    assert isinstance(training._current()._batches, ActivationBatches)
    training.run_epoch()
    # Images: block 2 from the end may have changed before.
    assert type(training._current()._batches) is SplitBatches
    training.save()
    again = Training(config, workspace, tmp_path)
    assert again.restore()
    assert type(again._current()._batches) is SplitBatches
    found, expected = again.predict("test"), training.predict("test")
    assert (found.logits == expected.logits).all()


def test_it_has_rungs_and_a_price(workspace, polishing):
    timeline = Timeline.of(polished())
    assert timeline.epochs == (1, 1, 2)
    rungs = timeline.rungs(timeline)
    assert [(each.epoch, each.stage) for each in rungs] == [
        (1, "head"), (2, "finetune"), (3, "polish"), (4, "polish"),
    ]  # fmt: skip
    works = training_work(polished(), train=60, validation=9, classes=3)
    assert [(each.stage, each.epochs) for each in works] == [
        ("head", 1), ("finetune", 1), ("polish", 2),
    ]  # fmt: skip
    # It trains two blocks, finetune one.
    assert works[2].operations > works[1].operations
    one = training_work(polished({"blocks": 1}), train=60, validation=9, classes=3)
    assert one[2].operations == one[1].operations


def test_its_largest_step_is_rehearsed(workspace, polishing, monkeypatch):
    rehearsed = []
    real = FinetuneStage.rehearse

    def noted(stage):
        rehearsed.append((stage.name, stage.config.blocks))
        real(stage)

    monkeypatch.setattr(FinetuneStage, "rehearse", noted)
    rehearse(polished(), workspace)
    assert rehearsed == [("finetune", 1), ("polish", 2)]


def test_a_stage_on_cached_features_cannot_follow_one_that_changes_them(workspace, tmp_path):
    again = StageSpec("polish", grace=False, divided=False, trains_backbone=False, like="head")
    STAGES.append(again)
    try:
        training = Training(polished(), workspace, tmp_path)
        for _ in range(2):
            training.run_epoch()
        with pytest.raises(ValueError, match="reads features of the pretrained backbone"):
            training.run_epoch()
    finally:
        STAGES.remove(again)
