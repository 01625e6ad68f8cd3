"""What a user can get wrong in the section ``pretrain``."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.training.fingerprint import fingerprint

HEAD = "name: t\ndata: {source: typefaces, image_size: 64}\n"
SAME = "{scale: 1, ratio: 1, flip: false, color: 0, grey: 0, blur: 0}"


@pytest.mark.parametrize(
    ("section", "path", "words"),
    [
        (
            "pretrain: {image_size: 128}",
            "pretrain.image_size",
            ["found 128", "data.image_size, 64"],
        ),
        (
            "pretrain: {discriminative: {decoder_size: {choice: [32, 96]}}}",
            "pretrain.discriminative.decoder_size",
            ["found 96", "at most the image size, 64"],
        ),
        (
            f"pretrain: {{augment: {SAME}}}",
            "pretrain.augment.scale",
            ["views of an image are the same"],
        ),
        (
            f"pretrain: {{augment: {SAME.replace('grey: 0', 'grey: 1')}}}",
            "pretrain.augment.scale",
            ["views of an image are the same"],
        ),
        (
            "pretrain: {method: moco, batch_size: 32, norm_groups: 20}",
            "pretrain.norm_groups",
            ["found 20", "at most half of pretrain.batch_size, 16"],
        ),
        ("pretrain: {method: simclr}", "pretrain.method", ["found 'simclr'", "moco"]),
        ("pretrain: {seed: {int: [0, 3]}}", "pretrain.seed", ["found a mapping", "seeds belong"]),
        ("pretrain: {batch_size: 1}", "pretrain.batch_size", ["found 1", "2"]),
        (
            "training: {pretrain: true}\nsearch: {time_budget: 10m}",
            "training.pretrain",
            ["with search.time_budget", "gsfl-tune pretrain"],
        ),
        (
            "training: {pretrain: true}\nmodel: {backbone_b: resnet18, pooling: bilinear}",
            "training.pretrain",
            ["with model.backbone_b resnet18", "one backbone"],
        ),
        (
            "search: {scheduler: {pretrain_grace: 5}}",
            "search.scheduler.pretrain_grace",
            ["found 5 without a pretraining", "training.pretrain: true"],
        ),
        (
            "search: {scheduler: {pretrain_grace: 5, name: none}}\ntraining: {pretrain: true}",
            "search.scheduler.pretrain_grace",
            ["found 5 with search.scheduler.name none", "scheduler asha"],
        ),
    ],
)
def test_it_is_said_with_its_line(section, path, words):
    with pytest.raises(ExperimentError) as error:
        Experiment.parse(HEAD + section)
    (problem,) = error.value.problems
    assert (problem.path, problem.line) == (path, 3)
    assert all(word in str(problem) for word in words)


def test_several_processes_may_share_a_pretraining():
    several = "search: {resources: {workers_per_trial: 2}}\n"
    Experiment.parse(HEAD + several + "training: {pretrain: true}")
    with pytest.raises(ExperimentError, match="without a finetune stage"):
        Experiment.parse(HEAD + several)


def test_a_searched_augmentation_may_contain_none():
    searched = SAME.replace("scale: 1", "scale: {choice: [0.3, 1.0]}")
    assert len(Experiment.parse(f"{HEAD}pretrain: {{augment: {searched}}}").space) == 1


def test_trials_without_the_stage_are_as_before_it_existed():
    """Whatever the section says: checkpoints of earlier runs stay valid."""
    plain = Experiment.parse(HEAD).defaults()
    said = Experiment.parse(HEAD + "pretrain: {epochs: 7, lcr: {weight: 0.5}}").defaults()
    assert fingerprint(plain) == fingerprint(said)
    stage = HEAD + "training: {pretrain: true}\n"
    on = [Experiment.parse(f"{stage}pretrain: {{epochs: {n}}}") for n in (7, 8)]
    names = {fingerprint(each.defaults()) for each in on}
    assert len({fingerprint(plain), *names}) == 3
