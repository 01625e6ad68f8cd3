"""What a second layer costs, and what is said of it before anything runs."""

import math

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.models import boundary_shape, probe
from gsfl_tune.training.pricing.cost import head_parameters, largest_model, pretrained
from gsfl_tune.training.pricing.one_step import largest_config
from gsfl_tune.training.pricing.passes import feature_passes
from gsfl_tune.training.pricing.prefix_caches import prefix_caches
from gsfl_tune.training.pricing.problems import cost_problems
from gsfl_tune.training.pricing.work import training_work

NAME = "test_efficientnet"
TEXT = f"""name: t
data: {{source: typefaces, image_size: 64, views: 2}}
model:
  backbone: {NAME}
  layer_b: {{choice: [0, 2], when: {{model.pooling: [average, isqrt_cov]}}}}
  weights: none
  head: plain
  pooling: {{choice: [average, native]}}
training: {{finetune: {{epochs: 1, blocks: 1}}}}
"""
OWN = {"model.pooling": "average", "model.layer_b": 2}


def parse(text=TEXT, **changes):
    experiment = Experiment.parse(text, file="t.yaml")
    return experiment.fixed(changes) if changes else experiment


def test_the_largest_model_has_the_channels_of_both():
    model = largest_model(parse(**OWN))
    facts = probe(f"{NAME}@2")
    assert model.backbone == f"{NAME}@2"
    assert model.feature_dim == facts.channels == 256 + 32
    head = head_parameters("plain", facts.channels, 512, model.class_count)
    assert model.parameters == head + probe(NAME).parameters
    assert largest_config(parse(**OWN)).model.extractor == model.backbone
    # 256 channels are projected to 128, all 32 of the second layer are kept.
    covariance = largest_model(parse(**{**OWN, "model.pooling": "isqrt_cov"}))
    assert covariance.feature_dim == 160 * 161 // 2


def test_each_layer_has_features_of_its_own_and_the_weights_are_looked_for_once_each():
    assert feature_passes(parse(**{"model.pooling": "average"}))[0] == 2
    assert feature_passes(parse(**OWN))[0] == 1
    # It takes no part where the pooling reads no map.
    assert feature_passes(parse(**{"model.pooling": "native"}))[0] == 1
    assert [each[0] for each in pretrained(parse())] == [NAME, f"{NAME}@2", NAME]


def test_work_is_that_of_the_backbone_and_the_larger_head():
    def operations(experiment):
        works = training_work(experiment.defaults(), train=20, validation=10, classes=3)
        return [work.operations for work in works]

    both, alone = parse(**OWN), parse(**{**OWN, "model.layer_b": 0})
    assert operations(both)[0] > operations(alone)[0]
    assert operations(both)[-1] == pytest.approx(operations(alone)[-1], rel=0.2)


def test_the_cache_holds_the_second_layer_where_it_is_in_front_of_the_cut():
    def floats(blocks, layer):
        changes = {**OWN, "model.layer_b": layer, "training.finetune.blocks": blocks}
        (cache,) = prefix_caches(parse(**changes))
        assert cache.problem is None
        return cache.image_bytes // 4

    for blocks in (2, 3):
        assert floats(blocks, 2) == floats(blocks, 0)
    last = 2 * 2 * 32  # channels of the second layer on the grid of the last map
    assert floats(1, 2) == floats(1, 0) + 3 * last
    assert boundary_shape(f"{NAME}@2", 1, 64) == (math.prod(boundary_shape(NAME, 1, 64)) + last,)


def test_what_does_not_go_together_is_named_with_its_line():
    fixed = TEXT.replace("{choice: [0, 2], when: {model.pooling: [average, isqrt_cov]}}", "2")
    average = fixed.replace("{choice: [average, native]}", "average")

    def problems(text):
        try:
            return [str(each) for each in cost_problems(parse(text))]
        except ExperimentError as error:
            return str(error).splitlines()

    assert problems(TEXT) == problems(fixed) == problems(average) == []
    (found,) = problems(fixed.replace("{choice: [average, native]}", "native"))
    assert found.startswith(
        "t.yaml:5: model.layer_b: found 2 with model.pooling native, allowed 0, or model.pooling: "
        "average, bilinear, compact_bilinear, attention, gem, isqrt_cov"
    )
    both = average.replace("  weights", "  backbone_b: test_vit\n  weights")
    (found,) = problems(both.replace("pooling: average", "pooling: bilinear"))
    assert found.startswith(
        "t.yaml:5: model.layer_b: found 2 with model.backbone_b test_vit, allowed 0, or "
        "model.backbone_b: none"
    )
    (found,) = problems(average.replace("layer_b: 2", "layer_b: 7"))
    assert found == (
        f"t.yaml:5: model.layer_b: found 7, but '{NAME}' has no block that 7 others follow: it has "
        "5; allowed: 0 to 4"
    )
    # Hiera's tokens of another grid are in an order of their own.
    text = average.replace(NAME, "hiera_tiny_224").replace("image_size: 64", "image_size: 224")
    (found,) = problems(text)
    assert "'hiera_tiny_224' has no single map behind the block that 2 others follow" in found
    (found,) = problems(average.replace("layer_b: 2", "layer_b: -1"))
    assert "t.yaml:5: model.layer_b: found -1" in found


def test_combinations_that_are_drawn_are_looked_at_too():
    text = TEXT.replace("[average, isqrt_cov]", "bilinear")
    text = text.replace("[average, native]", "[bilinear]")
    text = text.replace("  weights", "  backbone_b: {choice: [none, test_vit]}\n  weights")
    (found,) = [str(each) for each in cost_problems(parse(text))]
    assert "model.layer_b: found 2 with model.backbone_b test_vit, allowed 0" in found
    allowed = text.replace("{model.pooling: bilinear}", "{model.backbone_b: none}")
    assert cost_problems(parse(allowed)) == []


def test_a_layer_that_is_never_read_is_said():
    text = TEXT.replace("[average, native]", "[native, cls]")
    text = text.replace(", when: {model.pooling: [average, isqrt_cov]}", "")
    warnings = [str(each) for each in parse(text.replace(NAME, "test_vit")).warnings]
    assert any("model.layer_b" in each and "has no effect" in each for each in warnings)
