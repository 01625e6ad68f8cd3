"""The terms of common, specific and confounding parts, against loops over images and dimensions."""

import math

import numpy as np
import pytest
import torch

from gsfl_tune.losses import (
    Consistency,
    Decorrelation,
    GranularityCalibration,
    LossInput,
    Sizes,
    Specificity,
)

GROUPS = np.array([0, 0, 1, 1, 2])
SIZES = Sizes(5, 7, 5, torch.from_numpy(GROUPS))
LABELS = [0, 1, 0, 2, 3, 4, 2, 1]


def batch_of(discriminative, labels=LABELS, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return LossInput(
        features=draw(len(labels), 5),
        discriminative=discriminative,
        logits=draw(len(labels), 5),
        labels=torch.tensor(labels),
        classifier=draw(5, 7),
        cross_entropy=lambda logits: logits.sum(),
    )


def parts(count=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 7, generator=generator, dtype=torch.float64)


def made(term):
    torch.manual_seed(0)
    term.build(SIZES)
    return term.double()


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_pairs_of_a_group_are_alike_in_one_part_and_apart_in_the_other():
    d = parts()
    values = d.numpy()
    near, apart = [], []
    for i in range(len(LABELS)):
        for j in range(i):
            if GROUPS[LABELS[i]] != GROUPS[LABELS[j]]:
                continue
            near.append(1 - cosine(values[i, :3], values[j, :3]))
            if LABELS[i] != LABELS[j]:
                apart.append(max(0.0, cosine(values[i, 3:], values[j, 3:])))
    assert len(near) > len(apart) > 0
    assert float(made(Consistency())(batch_of(d))) == pytest.approx(np.mean(near))
    assert float(made(Specificity())(batch_of(d))) == pytest.approx(np.mean(apart))


def test_without_pairs_there_is_nothing_to_compare():
    alone = batch_of(parts(3), [0, 2, 4])
    assert float(made(Consistency())(alone)) == float(made(Specificity())(alone)) == 0
    one_class = batch_of(parts(3), [2, 2, 2])
    assert float(made(Specificity())(one_class)) == 0
    assert float(made(Consistency())(one_class)) > 0


def test_decorrelation_is_the_mean_squared_correlation_of_each_pair_of_parts():
    term = made(Decorrelation(3.0))
    batch = batch_of(parts())
    with torch.no_grad():
        n = term.confounding(3.0 * batch.features)
        n[:, 0] = 2.0  # dead: no correlation with anything
        term.confounding.register_forward_hook(lambda *_: n)
    columns = {"c": batch.discriminative[:, :3], "p": batch.discriminative[:, 3:], "n": n}
    expected = 0.0
    for one, other in (("c", "p"), ("c", "n"), ("p", "n")):
        squares = []
        for x in columns[one].T.numpy():
            for y in columns[other].T.numpy():
                constant = x.std() == 0 or y.std() == 0
                squares.append(0.0 if constant else np.corrcoef(x, y)[0, 1] ** 2)
        expected += np.mean(squares)
    assert float(term(batch)) == pytest.approx(expected)
    # The scale of a part does not matter: it cannot be made small by small numbers.
    smaller = batch_of(0.01 * batch.discriminative)
    assert float(term(smaller)) == pytest.approx(expected)


def test_calibration_compares_the_predictions_of_groups_and_of_classes():
    term = made(GranularityCalibration())
    batch = batch_of(parts())
    weight, bias = (each.detach().numpy() for each in term.classifier.parameters())
    assert weight.shape == (3, 3)
    total = 0.0
    rows = zip(batch.discriminative.numpy(), batch.logits.numpy(), LABELS, strict=True)
    for d, logits, label in rows:
        u = np.exp(weight @ d[:3] + bias)
        u /= u.sum()
        fine = np.exp(logits) / np.exp(logits).sum()
        q = [fine[group == GROUPS].sum() for group in range(3)]
        total -= math.log(u[GROUPS[label]])
        total += sum(one * math.log(one / other) for one, other in zip(u, q, strict=True))
    assert term(batch).item() == pytest.approx(total / len(LABELS))


def test_groups_are_needed():
    with pytest.raises(ValueError, match="groups of the classes"):
        Consistency().build(Sizes(5, 7, 5))
