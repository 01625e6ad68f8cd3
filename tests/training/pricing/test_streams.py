"""What two backbones side by side cost, and what is said of them before anything runs."""

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.models import create_backbone, probe
from gsfl_tune.training.pricing.cost import head_parameters, largest_model, pretrained
from gsfl_tune.training.pricing.one_step import largest_config
from gsfl_tune.training.pricing.passes import feature_passes
from gsfl_tune.training.pricing.prefix_caches import prefix_caches
from gsfl_tune.training.pricing.problems import cost_problems
from gsfl_tune.training.pricing.work import training_work

TEXT = """name: t
data: {source: typefaces, image_size: 64, views: 2}
model:
  backbone: test_efficientnet
  backbone_b: {choice: [none, test_vit], when: {model.pooling: bilinear}}
  weights: none
  head: plain
  pooling: {choice: [average, bilinear]}
training: {finetune: {epochs: 1, blocks: 1}}
"""


BOTH = {"model.pooling": "bilinear", "model.backbone_b": "test_vit"}


def parse(text=TEXT, **changes):
    experiment = Experiment.parse(text, file="t.yaml")
    return experiment.fixed(changes) if changes else experiment


def test_the_largest_model_has_both():
    model = largest_model(parse(**BOTH))
    assert model.backbone == "test_efficientnet+test_vit"
    own, other = probe("test_efficientnet"), probe("test_vit")
    # 256 channels are projected to 128, all 64 of the other are kept.
    assert model.feature_dim == 128 * 64
    head = head_parameters("plain", 128 * 64, 512, model.class_count)
    assert model.parameters == head + own.parameters + other.parameters
    config = largest_config(parse(**BOTH))
    assert config.model.extractor == model.backbone
    counted = sum(p.numel() for p in create_backbone(config.model.extractor, "none").parameters())
    assert counted >= own.parameters + other.parameters


def test_each_choice_has_features_of_its_own():
    assert feature_passes(parse(**{"model.pooling": "bilinear"}))[0] == 2
    assert feature_passes(parse(**BOTH))[0] == 1
    assert pretrained(parse()) == [
        ("test_efficientnet", "none", "map"),
        ("test_efficientnet+test_vit", ("none", "none"), "map"),
    ]


def test_work_and_caches_are_those_of_both():
    own = {"model.pooling": "bilinear", "model.pooling_channels": 8}
    names = ("test_efficientnet", "test_vit")
    alone = [parse(TEXT.replace("backbone: test_efficientnet", f"backbone: {name}"),
                   **own, **{"model.backbone_b": "none"}) for name in names]  # fmt: skip
    both = parse(**own, **{"model.backbone_b": "test_vit"})

    def operations(experiment):
        works = training_work(experiment.defaults(), train=20, validation=10, classes=3)
        return works[-1].operations - works[0].operations

    # The heads have the same size; one of them is counted in both of those alone.
    assert operations(both) == pytest.approx(sum(map(operations, alone)), rel=0.02)
    sizes = [prefix_caches(each)[0].image_bytes for each in (both, *alone)]
    assert sizes[0] == sizes[1] + sizes[2]


def test_what_does_not_go_together_is_named_with_its_line():
    fixed = TEXT.replace("{choice: [none, test_vit], when: {model.pooling: bilinear}}", "test_vit")
    bilinear = fixed.replace("{choice: [average, bilinear]}", "bilinear")
    average = fixed.replace("{choice: [average, bilinear]}", "average")

    def problems(text):
        try:
            return [str(each) for each in cost_problems(parse(text))]
        except ExperimentError as error:
            return str(error).splitlines()

    assert problems(fixed) == problems(bilinear) == []
    (found,) = problems(average)
    assert found.startswith(
        "t.yaml:5: model.backbone_b: found test_vit with model.pooling average, allowed none, or "
        "model.pooling: bilinear or compact_bilinear"
    )
    (found,) = problems(bilinear.replace("weights: none", f"weights: {__file__}"))
    assert "t.yaml:5: model.backbone_b: found test_vit without model.weights_b" in found
    (found,) = problems(bilinear.replace("blocks: 1", "blocks: 1, mixstyle: 0.5"))
    assert "training.finetune.mixstyle: found 0.5, but" in found
    assert "there are two" in found
    (found,) = problems(bilinear.replace("  weights: none", "  weights: none\n  licenses: [mit]\n"
                                         "  weights_b: imagenet"))  # fmt: skip
    assert "model.backbone: found test_vit, whose weights (imagenet) have the licence" in found
