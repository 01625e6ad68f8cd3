"""What a user can get wrong about ``search.resources.shard``."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError

TEXT = """
name: t
data: {source: typefaces}
model: {backbone: {choice: [resnet10t, vit_large_patch16_224]}}
training: {finetune: {epochs: 2}}
search:
  resources: {gpus_per_trial: 4, shard: true}
"""
SHARD = "search.resources.shard"


def _problems(*overrides: str, text: str = TEXT) -> list[str]:
    with pytest.raises(ExperimentError) as error:
        Experiment.parse(text, overrides=overrides)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "search.resources.gpus_per_trial=1",
            f"{SHARD}: found true for 1 process a trial, allowed false, or gpus_per_trial "
            "(workers_per_trial where there are no GPUs) of at least 2",
        ),
        (
            "training.finetune.train=lora",
            f"training.finetune.train: found lora with {SHARD}, allowed all: ",
        ),
        (
            "training.finetune.optimizer={choice: [adamw, muon]}",
            f"training.finetune.optimizer: found muon with {SHARD}, allowed adamw, sgd: ",
        ),
        ("training.finetune.unfreeze=1", f"found 1 with {SHARD}, allowed 0: "),
        ("training.finetune.compile=true", f"found true with {SHARD}, allowed false: "),
        (
            "training.method=sam",
            f"found sam with {SHARD}, allowed single, rdrop, two_views, fixmatch: ",
        ),
        (
            "search.time_budget=2h",
            f"search.time_budget: found 2h with {SHARD}, allowed without it: ",
        ),
    ],
)
def test_one_message_says_what_was_found_and_what_is_allowed(override: str, message: str) -> None:
    (problem,) = _problems(override)
    assert message in problem


def test_a_head_alone_is_not_divided() -> None:
    found = _problems("training.finetune.epochs=0")
    assert any(f"{SHARD}: found true without a finetune stage, allowed false" in p for p in found)


def test_one_backbone_may_be_divided_and_others_not() -> None:
    entry = "{backbone: vit_large*, gpus_per_trial: 4, shard: true}"
    own = TEXT.replace("{gpus_per_trial: 4, shard: true}", f"{{gpu: 1, per_backbone: [{entry}]}}")
    resources = Experiment.parse(own).defaults().search.resources
    large = resources.of("vit_large_patch16_224")
    assert large is not None
    assert large.shard
    assert not resources.shard
    (problem,) = _problems(text=own.replace("gpus_per_trial: 4", "gpu: 1"))
    assert "per_backbone[0].shard: found true for 1 process a trial" in problem
    # What the large one refuses, no trial of the space may ask for.
    (problem,) = _problems("training.finetune.train=lora", text=own)
    assert f"found lora with {SHARD}" in problem
    (problem,) = _problems("search.time_budget=2h", text=own)
    assert f"found 2h with {SHARD}" in problem


def test_two_whole_gpus_are_two_processes() -> None:
    Experiment.parse(TEXT.replace("gpus_per_trial: 4", "gpu: 2"))
