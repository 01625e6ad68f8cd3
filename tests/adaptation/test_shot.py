"""The equations against plain loops in float64, and what they must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gsfl_tune.adaptation.shot import diversity_of, entropy_of, pseudo_labels, terms


def softmax(row):
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def test_terms_are_those_of_the_equations():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 1, 2, 0, 3])
    rows = [softmax(row) for row in logits.tolist()]
    entropy = sum(-p * math.log(p) for row in rows for p in row) / len(rows)
    mean = [sum(row[k] for row in rows) / len(rows) for k in range(4)]
    diversity = sum(-p * math.log(p) for p in mean)
    pseudo = sum(-math.log(row[k]) for row, k in zip(rows, labels.tolist(), strict=True)) / 7
    found = terms(logits, labels)
    assert [float(each) for each in found] == pytest.approx([entropy, diversity, pseudo])
    assert float(found.loss(0.3)) == pytest.approx(entropy - diversity + 0.3 * pseudo)


def test_sure_and_diverse_answers_have_the_lowest_loss():
    sure = 60 * torch.eye(4)
    assert float(entropy_of(sure.log_softmax(1)).mean()) == pytest.approx(0, abs=1e-6)
    assert float(diversity_of(sure.log_softmax(1))) == pytest.approx(math.log(4))
    unsure, gathered = torch.zeros(4, 4), 60 * torch.eye(4)[[0, 0, 0, 0]]
    own = torch.arange(4)
    losses = [float(terms(x, own).loss(0.0)) for x in (sure, unsure, gathered)]
    assert losses[0] == pytest.approx(-math.log(4))
    assert min(losses[1:]) > losses[0] + 1


def test_gradients_are_finite_where_a_class_has_no_probability():
    logits = torch.tensor([[200.0, 0.0, -200.0], [150.0, 10.0, -300.0]], requires_grad=True)
    terms(logits, torch.tensor([0, 0])).loss(0.3).backward()
    assert torch.isfinite(logits.grad).all()


def loop_labels(features, probabilities):
    """The same in plain loops: weighted centroids, cosine, centroids of what was taken, cosine."""

    def nearest(centroids):
        def cosine(a, b):
            return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)

        return [int(np.argmax([cosine(x, c) for c in centroids])) for x in features]

    classes = probabilities.shape[1]
    first = [
        sum(p[k] * x for p, x in zip(probabilities, features, strict=True))
        / probabilities[:, k].sum()
        for k in range(classes)
    ]
    taken = nearest(first)
    second = []
    for k in range(classes):
        own = [x for x, label in zip(features, taken, strict=True) if label == k]
        second.append(np.mean(own, axis=0) if own else first[k])
    return nearest(second)


@pytest.mark.parametrize("seed", range(5))
def test_pseudo_labels_are_those_of_plain_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(40, 6, generator=generator, dtype=torch.float64).relu()
    probabilities = torch.randn(40, 5, generator=generator, dtype=torch.float64).softmax(1)
    expected = loop_labels(features.numpy(), probabilities.numpy())
    assert pseudo_labels(features, probabilities).tolist() == expected


def test_pseudo_labels_repair_answers_that_a_shift_has_moved():
    """Three clusters; the answers of half the images of the third are wrong."""
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(3).repeat_interleave(40)
    features = torch.eye(3)[true] + 0.1 * torch.randn(120, 3, generator=generator)
    answers = true.clone()
    answers[80:98] = 0
    probabilities = (4 * torch.eye(3)[answers]).softmax(1)
    assert (pseudo_labels(features, probabilities) == true).all()


def test_a_class_without_a_probability_makes_nothing_undefined():
    features = torch.eye(3)
    probabilities = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 1.0, 0]])
    assert pseudo_labels(features, probabilities).tolist() == [0, 1, 1]
    # Features that are zero have no direction.
    assert len(pseudo_labels(torch.zeros(2, 3), torch.full((2, 3), 1 / 3))) == 2
