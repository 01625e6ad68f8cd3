"""ISDA against the equation of its paper, sample by sample, and through a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.losses import Isda, LossInput, Sizes

CLASSES, LATENT = 4, 3


def made(d, y, w, progress):
    def cross_entropy(logits):
        return torch.nn.functional.cross_entropy(logits, y)

    return LossInput(d, d, d @ w.T, y, w, cross_entropy, progress)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_the_term_is_that_of_the_paper(covariance):
    random = np.random.default_rng(0)
    term = Isda(0.8, covariance)
    term.build(Sizes(5, LATENT, CLASSES))
    term.double()
    w = torch.from_numpy(random.normal(size=(CLASSES, LATENT)))
    seen = {label: [] for label in range(CLASSES)}
    for step in range(4):
        # Class 3 is never seen; class 2 once.
        y = torch.from_numpy(random.integers(0, 2, 7) if step else np.array([0, 1, 2, 0, 1, 1, 0]))
        d = torch.from_numpy(random.normal(size=(7, LATENT)) + y.numpy()[:, None])
        progress = (step + 1) / 4
        found = term(made(d, y, w, progress))
        expected = 0.0
        for row, label in zip(d.numpy(), y.tolist(), strict=True):
            rows = np.array(seen[label]).reshape(-1, LATENT)
            sigma = np.cov(rows.T, bias=True) if len(rows) else np.zeros((LATENT, LATENT))
            sigma = np.diag(np.diag(sigma)) if covariance == "diagonal" else sigma
            scores = w.numpy() @ row
            apart = w.numpy() - w.numpy()[label]
            raised = scores + 0.5 * 0.8 * progress * np.array([a @ sigma @ a for a in apart])
            expected += np.log(np.exp(raised).sum()) - raised[label]
            expected -= np.log(np.exp(scores).sum()) - scores[label]
        assert float(found) == pytest.approx(expected / 7, abs=1e-12)
        term.after_step()
        for row, label in zip(d.numpy(), y.tolist(), strict=True):
            seen[label].append(row)
    assert term.count.tolist() == [len(seen[label]) for label in range(CLASSES)]


def test_it_never_lowers_the_loss_and_begins_at_nothing():
    term = Isda(5.0)
    term.build(Sizes(5, LATENT, CLASSES))
    torch.manual_seed(0)
    w = torch.randn(CLASSES, LATENT)
    for step in range(5):
        d, y = torch.randn(9, LATENT), torch.randint(CLASSES, (9,))
        assert float(term(made(d, y, w, 0.0))) == 0
        assert float(term(made(d, y, w, 1.0))) >= 0
        term.after_step()
        assert step == 0 or float(term(made(d, y, w, 1.0))) > 0
