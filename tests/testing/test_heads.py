"""The contract holds for every head, and finds what breaks it."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from gsfl_tune.experiment.heads import ENCODING_HEADS, HEADS, HeadKind
from gsfl_tune.models import HEAD_CLASSES, HeadOutput, PlainHead, create_head
from gsfl_tune.testing import check_head

SETTINGS = {"latent_dim": 6, "dropout": 0.4, "feature_scale": 3.0}


@pytest.mark.parametrize("decoder", ["linear", "sigmoid"])
@pytest.mark.parametrize("name", HEADS)
def test_every_head_keeps_the_contract(name, decoder):
    check_head(lambda d, c: create_head(name, d, c, decoder=decoder, **SETTINGS))


def test_heads_are_the_same_in_the_schema_the_table_and_the_models():
    assert tuple(HEADS) == get_args(HeadKind) == tuple(HEAD_CLASSES)
    assert tuple(name for name in HEADS if HEAD_CLASSES[name].encodes) == ENCODING_HEADS


class Sound(PlainHead):
    def __init__(self, d, c):
        super().__init__(d, c, **SETTINGS)


def test_a_sound_head_passes():
    check_head(Sound)


class Noisy(Sound):
    def forward(self, f):
        return super().forward(f + 0.1 * torch.rand_like(f))


class Squared(Sound):
    """Its logits are not linear in d."""

    def forward(self, f):
        output = super().forward(f)
        return output._replace(logits=output.logits.square())


class OverTheBatch(Sound):
    def infer(self, f):
        return self.forward(f).logits

    def forward(self, f):
        return super().forward(f - f.mean(0))


class Elsewhere(Sound):
    def infer(self, f):
        return super().infer(f) + 1


class Forgetful(Sound):
    def __init__(self, d, c):
        super().__init__(d, c)
        self.feature_scale = float(torch.rand(()))  # in no state


class Unbiased(Sound):
    """Lacks what every bundle has."""

    def __init__(self, d, c):
        super().__init__(d, c)
        self.classifier = torch.nn.Linear(self.latent_dim, c, bias=False)

    @staticmethod
    def count_parameters(feature_dim, latent_dim, class_count):
        return PlainHead.count_parameters(feature_dim, latent_dim, class_count) - class_count


class Uncounted(Sound):
    @staticmethod
    def count_parameters(feature_dim, latent_dim, class_count):
        return feature_dim


class Half(Sound):
    """Gives a shared part that nothing reconstructs."""

    def forward(self, f):
        output = super().forward(f)
        return HeadOutput(output.logits, output.discriminative, output.discriminative, None)


class Idle(Sound):
    def __init__(self, d, c):
        super().__init__(d, c)
        self.shared = torch.nn.Linear(d, 3)

    @staticmethod
    def count_parameters(feature_dim, latent_dim, class_count):
        own = PlainHead.count_parameters(feature_dim, latent_dim, class_count)
        return own + 3 * feature_dim + 3


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        (Noisy, "something else for the same features"),
        (Squared, "not those of its classifier"),
        (OverTheBatch, "depends on the other images"),
        (Elsewhere, "infers other logits"),
        (Forgetful, "another one after it was restored"),
        (Unbiased, "keeps what no bundle of the architecture encoder loads"),
        (Uncounted, "has 136 parameters, it says 10"),
        (Half, "shared parts without reconstructions"),
        (Idle, "does not train shared.weight, shared.bias"),
    ],
)
def test_what_breaks_the_contract_is_found(head, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_head(head)
