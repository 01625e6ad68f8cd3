"""What a generator learns from the features of a few classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training.generate import (
    CRITICS,
    FeatureGenerator,
    class_means,
    fit_generator,
    generator_operations,
)
from gsfl_tune.training.generate.pairs import Pairs

from .synthetic import DIM, SIZES, VARYING, settings, synthetic, table_of, training_part

CLASSES = len(SIZES)


def fitted(seed: int = 0, views: int = 1, spoil: bool = False, **changes) -> FeatureGenerator:
    tables, labels = synthetic(views)
    if spoil:
        for each in tables:
            each[sum(SIZES) :] = torch.nan
    table, part = table_of(tables), training_part()
    means = class_means(table, part, labels, CLASSES)
    return fit_generator(table, means, part, labels, settings(**changes), seed=seed)


def made_by(generator: FeatureGenerator, count: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Returns features of the rare classes (2, count, D), their conditions, and class means."""
    [features], labels = synthetic()
    means = class_means(table_of([features]), training_part(), labels, CLASSES)
    random = torch.Generator().manual_seed(1)
    found, given = [], []
    for label in (CLASSES - 2, CLASSES - 1):
        members = np.flatnonzero(labels[training_part()] == label)
        rows = features[torch.from_numpy(np.resize(members, count))]
        condition = generator.condition(rows, torch.full((count,), label))
        noise = torch.randn((count, generator.noise_dim), generator=random)
        found.append(generator(condition, noise))
        given.append(condition)
    return torch.stack(found), torch.stack(given), means


def varying_share(made: Tensor, condition: Tensor) -> float:
    """The share of the changes that is in the dimensions in which images of a class differ."""
    change = made - condition
    squares = (change - change.mean(dim=1, keepdim=True)).square().sum(dim=(0, 1))
    return float(squares[VARYING].sum() / squares.sum())


@pytest.mark.parametrize(
    ("critic", "condition"), [*((each, "image") for each in CRITICS), ("relation", "class_mean")]
)
def test_features_of_a_rare_class_are_nearest_to_it_and_vary_as_others_do(critic, condition):
    made, given, means = made_by(fitted(critic=critic, condition=condition))
    assert torch.allclose(made.norm(dim=2), torch.ones(()), atol=1e-5)
    nearest = (made @ means.T).argmax(dim=2)
    for row, label in zip(nearest, (CLASSES - 2, CLASSES - 1), strict=True):
        assert float((row == label).float().mean()) > 0.8
    torch.manual_seed(0)
    with torch.no_grad():
        untrained = varying_share(*made_by(FeatureGenerator(DIM, 8, 32))[:2])
    # 3 of 16 dimensions: 0.19 by chance.
    assert untrained < 0.25
    assert varying_share(made, given) > 0.35


def test_it_is_a_function_of_the_seed_and_of_the_training_images():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = fitted(steps=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, spoilt = fitted(steps=3).state_dict(), fitted(steps=3, spoil=True).state_dict()
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert all(torch.equal(one[key], spoilt[key]) for key in one)
    other = fitted(seed=1, steps=3).state_dict()
    assert not torch.equal(one["first.weight"], other["first.weight"])


def test_it_learns_from_every_view():
    one, two = fitted(steps=2, views=1).state_dict(), fitted(steps=2, views=2).state_dict()
    assert not torch.equal(one["first.weight"], two["first.weight"])


def test_means_of_classes_are_those_of_their_training_images():
    [features], labels = synthetic()
    found = class_means(table_of([features]), training_part(), labels, CLASSES + 1)
    for label in range(CLASSES):
        rows = features[: sum(SIZES)][torch.from_numpy(labels[: sum(SIZES)] == label)].double()
        mean = rows.mean(dim=0)
        assert found[label].tolist() == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
    assert not found[CLASSES].any()


def test_a_pair_is_two_images_of_a_class():
    labels = np.array([0, 1, 0, 2, 0, 1, 2, 2, 3])
    positions = np.array([0, 1, 2, 4, 5, 8, 6])
    first, second = Pairs(positions, labels).draw(4000, torch.Generator().manual_seed(0)).numpy()
    assert (first != second).all()
    assert (labels[first] == labels[second]).all()
    # Classes 2 and 3 have one training image.
    counts = np.bincount(first, minlength=9)
    assert set(np.flatnonzero(counts)) == {0, 1, 2, 4, 5}
    assert counts[counts > 0] == pytest.approx([800] * 5, rel=0.15)
    partners = np.bincount(second[first == 0], minlength=9)
    assert partners[[2, 4]] == pytest.approx([400, 400], rel=0.2)


def test_single_images_show_no_difference():
    [features], labels = synthetic()
    part, table = np.array([0, 30, 60]), table_of([features])
    means = class_means(table, part, labels, CLASSES)
    with pytest.raises(UserError, match=r"generate\.share: found 0\.5, but no class has two"):
        fit_generator(table, means, part, labels, settings(), seed=0)


@pytest.mark.parametrize("critic", CRITICS)
def test_its_price_is_about_what_it_computes(critic):
    with FlopCounterMode(display=False) as counted:
        fitted(critic=critic, steps=2)
    priced = generator_operations(settings(critic=critic, steps=2), DIM)
    assert priced == pytest.approx(counted.get_total_flops(), rel=0.35)
