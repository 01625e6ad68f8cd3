"""The contract holds for every method that is built in, and finds what breaks it."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.experiment.config import TrainingConfig
from gsfl_tune.experiment.methods import METHODS
from gsfl_tune.methods import Method, create_method, method_class, single_pass
from gsfl_tune.models import Recurrence
from gsfl_tune.testing import check_method


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_are_built_in_keep_the_contract(name):
    # What SAM adds to the weights follows from a whole batch, SnapMix mixes its images, feature
    # alignment exchanges their surroundings, and the contrast of attributes compares them.
    alone = name not in ("sam", "snapmix", "feature_alignment", "attribute_attention")
    check_method(lambda: create_method(TrainingConfig(method=name)), image_by_image=alone)


def test_attributes_without_contrast_are_a_mean_over_images():
    settings = {"attribute_attention": {"contrast": 0.0}}
    check_method(lambda: create_method(TrainingConfig(method="attribute_attention", **settings)))


def test_an_attention_map_of_the_class_keeps_the_contract():
    settings = {"attention_crop": {"map": "class"}}
    check_method(lambda: create_method(TrainingConfig(method="attention_crop", **settings)))


def test_a_network_whose_classifiers_add_up_keeps_the_contract():
    settings = {"pmg": {"prediction": "joint"}}
    check_method(lambda: create_method(TrainingConfig(method="pmg", **settings)))


def test_every_section_of_a_method_is_the_one_that_makes_it():
    for name in METHODS:
        section = getattr(TrainingConfig(), name, None)
        if section is not None:
            numbers = {k: v for k, v in section.model_dump().items() if isinstance(v, float)}
            assert numbers
            settings = dict.fromkeys(numbers, 0.25)
            made = create_method(TrainingConfig(method=name, **{name: settings}))
            assert all(getattr(made, key) == 0.25 for key in settings)
        assert isinstance(create_method(TrainingConfig(method=name)), method_class(name))


class Memory(Method):
    """A sound method with a state: the mean feature of all images seen, which pulls on others."""

    views = 2

    def build(self, sizes):
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("total", torch.zeros(sizes.feature_dim))
        self.register_buffer("new_count", torch.zeros(()), persistent=False)
        self.register_buffer("new_total", torch.zeros(sizes.feature_dim), persistent=False)

    def step(self, batch, passes):
        features = passes.features(batch.views[0])
        if self.training:
            self.new_count += len(batch)
            self.new_total += features.detach().sum(0)
        terms = passes.loss(passes.head(features), features, batch.targets)
        mean = self.total / self.count.clamp(min=1)
        return terms.plus("pull", 0.1, (features - mean).square().sum(1).mean())

    def sums(self):
        return [self.new_count, self.new_total]

    def after_step(self):
        self.count += self.new_count
        self.total += self.new_total
        self.new_count.zero_()
        self.new_total.zero_()


def test_a_sound_method_passes():
    check_method(Memory)


class Forgetful(Memory):
    """Keeps its state where no checkpoint finds it."""

    def build(self, sizes):
        super().build(sizes)
        self.steps = 0

    def step(self, batch, passes):
        terms = super().step(batch, passes)
        return terms.plus("late", 0.0, torch.tensor(float(self.steps)))

    def after_step(self):
        super().after_step()
        self.steps += 1


class Selfish(Memory):
    """Adds nothing up over ranks."""

    def sums(self):
        return []


class Twice(Memory):
    """Lets the terms note each image in both passes."""

    def step(self, batch, passes):
        terms = super().step(batch, passes)
        features = passes.features(batch.views[1])
        return terms.blended(
            passes.loss(passes.head(features), features, batch.targets).plus(
                "pull", 0.0, torch.zeros(())
            ),
            0.5,
        )


class Sum(Memory):
    """Adds up where it should average."""

    def step(self, batch, passes):
        features = passes.features(batch.views[0])
        terms = passes.loss(passes.head(features), features, batch.targets)
        return terms.plus("size", 1.0, features.square().sum())


class Careless(Memory):
    """Writes into the batch."""

    def step(self, batch, passes):
        batch.views[0].mul_(0.5)
        return super().step(batch, passes)


class Random(Memory):
    def step(self, batch, passes):
        return super().step(batch, passes).plus("noise", 1.0, torch.rand(()))


class Elsewhere(Memory):
    """Predicts what no bundle computes."""

    def predict(self, inputs, passes):
        return passes.infer(passes.features(inputs.flip(1)))


class Learning(Memory):
    """Learns from what it predicts."""

    def predict(self, inputs, passes):
        self.count += 1
        return super().predict(inputs, passes)


class Blind(Method):
    """Asks for regions and looks at none."""

    reads_maps = needs_images = True
    recurrence = Recurrence(2)

    def step(self, batch, passes):
        if passes.maps is None:
            return single_pass(batch, passes)
        features = passes.pool(passes.maps(batch.inputs))
        return passes.loss(passes.head(features), features, batch.targets)


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (Blind, "leaves regions untrained"),
        (Forgetful, "another one after it was restored"),
        (Selfish, "a batch divided over two ranks"),
        (Twice, "lets the centres note 16 of 8 images"),
        (Sum, "for its images one by one"),
        (Careless, "changes the batch"),
        (Random, "other values for the same batches"),
        (Elsewhere, "predicts otherwise than the exported model"),
        (Learning, "changes as it predicts"),
    ],
)
def test_what_breaks_the_contract_is_found(method, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_method(method)


def test_a_method_that_compares_images_says_so():
    check_method(Sum, image_by_image=False)
