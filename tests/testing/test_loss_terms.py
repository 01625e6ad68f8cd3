"""The contract holds for every term that is built in, and finds what breaks it."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.losses import (
    Attributes,
    Causality,
    Center,
    ClassCenter,
    Consistency,
    Decorrelation,
    Distill,
    GranularityCalibration,
    GroupReversal,
    GroupUnlearning,
    Independence,
    Isda,
    LossTerm,
    MetricLearning,
    PairwiseConfusion,
    Reconstruction,
    SharedCenter,
    SharedVariance,
    Specificity,
)
from gsfl_tune.testing import check_loss_term


@pytest.mark.parametrize(
    "create",
    [
        Reconstruction,
        lambda: ClassCenter(0.3),
        SharedCenter,
        lambda: Center(0.5),
        lambda: Isda(0.7),
        lambda: Isda(0.7, "full"),
        PairwiseConfusion,
        lambda: Independence("hsic_linear"),
        lambda: Independence("hsic_gaussian"),
        lambda: Independence("cosine"),
        lambda: SharedVariance(2.0),
        lambda: Distill(2.0, standardize=False),
        lambda: Distill(2.0, standardize=True),
        Attributes,
        lambda: Decorrelation(3.0),
        Consistency,
        Specificity,
        GranularityCalibration,
        lambda: MetricLearning("arcface", scale=4.0),
        lambda: MetricLearning("subcenter_arcface", scale=4.0),
        lambda: MetricLearning("proxy_anchor"),
        lambda: MetricLearning("soft_triple"),
        Causality,
    ],
    ids=[
        *("reconstruction", "class-centre", "shared-centre", "centre", "isda", "isda-full"),
        *("pairs", "hsic-linear", "hsic-gaussian", "cosine", "variance"),
        *(
            "distill",
            "distill-standardised",
            "attributes",
            "decorrelation",
            "consistency",
            "specificity",
            "calibration",
        ),
        *("arcface", "subcenter-arcface", "proxy-anchor", "soft-triple", "causality"),
    ],
)
def test_terms_that_are_built_in_keep_the_contract(create):
    check_loss_term(create)


def test_a_reversed_gradient_is_named_by_who_checks_it():
    check_loss_term(lambda: GroupReversal(3), own_gradients=["shared"])
    check_loss_term(lambda: GroupUnlearning(3), own_gradients=["discriminative"])
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        check_loss_term(lambda: GroupReversal(3))


class Mean(LossTerm):
    """Distance of d from its running mean: a sound term to break."""

    any_head = True

    def build(self, sizes):
        self.register_buffer("mean", torch.zeros(sizes.latent_dim))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("total", torch.zeros(sizes.latent_dim), persistent=False)
        self.register_buffer("count", torch.zeros(1), persistent=False)

    def forward(self, batch):
        if self.training:
            self.note(batch.discriminative.detach())
        return (batch.discriminative - self.mean).square().mean()

    def note(self, d):
        self.total += d.sum(0)
        self.count += len(d)

    def sums(self):
        return [self.total, self.count]

    def after_step(self):
        if self.count > 0:
            self.mean += 0.5 * (self.total / self.count - self.mean)
        self.total.zero_()
        self.count.zero_()


def test_a_sound_term_passes():
    check_loss_term(Mean)


class Rows(Mean):
    def forward(self, batch):
        return (batch.discriminative - self.mean).square().mean(1)


class Blind(Mean):
    def sums(self):
        return []


class Forgetful(Mean):
    def build(self, sizes):
        super().build(sizes)
        del self.mean
        self.register_buffer("mean", torch.zeros(sizes.latent_dim), persistent=False)


class LastPiece(Mean):
    def note(self, d):
        self.total.copy_(d.sum(0))
        self.count.fill_(len(d))


class Restless(Mean):
    def forward(self, batch):
        self.note(batch.discriminative.detach())
        return (batch.discriminative - self.mean).square().mean()


class Spoiling(Mean):
    def forward(self, batch):
        batch.discriminative.mul_(2)
        return super().forward(batch)


class Random(Mean):
    def forward(self, batch):
        return super().forward(batch) + torch.rand(())


class Wrong(Mean):
    def forward(self, batch):
        d = batch.discriminative
        # A gradient of its own making.
        return super().forward(batch) + (d.detach() * d).sum()


class OfTheSharedPart(LossTerm):
    """Gives a wrong gradient for the shared part alone."""

    def forward(self, batch):
        return batch.discriminative.square().mean() + (batch.shared.detach() * batch.shared).mean()


class OfTheReconstruction(LossTerm):
    def forward(self, batch):
        r = batch.reconstruction
        return batch.discriminative.square().mean() + (r.detach() * r).mean()


class OfAMap(LossTerm):
    any_head = True

    def forward(self, batch):
        *_, other = batch.extras["restituted"]
        return batch.discriminative.square().mean() + (other.detach() * other).mean()


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (Rows, "not a scalar"),
        (Blind, "divided over two ranks: mean"),
        (Forgetful, "another one after it was restored"),
        (LastPiece, "in pieces: mean"),
        (Restless, "in eval mode"),
        (Spoiling, "changes the batch"),
        (Random, "other values for the same batches"),
    ],
)
def test_what_breaks_the_contract_is_said(kind, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_loss_term(kind)


@pytest.mark.parametrize("kind", [Wrong, OfTheSharedPart, OfTheReconstruction, OfAMap])
def test_a_wrong_gradient_is_found(kind):
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        check_loss_term(kind)
