"""Section ``training.head.generate``: features that a generator makes for rare classes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gsfl_tune.experiment.section import NonNegative, Positive, Section

# Critics whose score has a gradient penalty.
PENALISED = ("wasserstein", "instance")


class GenerateConfig(Section):
    """A conditional generator of features for rare classes, trained before the head."""

    share: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="Generated features in every epoch, as a share of its images; the rarest "
        "classes get them first. 0 is off.",
    )
    critic: Literal["wasserstein", "relation", "instance"] = Field(
        "wasserstein",
        description="What the generator is trained against: `wasserstein` scores (AFHN), "
        "`relation` compares pairs by a triplet loss (RelationGAN), `instance` also tells every "
        "feature from all others (InsGen).",
    )
    condition: Literal["image", "class_mean"] = Field(
        "image",
        description="What a feature is made from: that of an image of the class, or the mean of "
        "the class.",
    )
    noise_dim: int = Field(32, ge=1, le=4096, description="Size of the noise.")
    hidden_dim: int = Field(
        256, ge=2, le=8192, description="Width of the hidden layers of generator and critic."
    )
    steps: int = Field(500, ge=1, le=100_000, description="Steps of the generator.")
    critic_steps: int = Field(
        3, ge=1, le=100, description="Steps of the critic before each of the generator."
    )
    batch_size: int = Field(64, ge=2, le=65536, description="Images per step.")
    learning_rate: Positive = Field(5e-4, description="Rate of both (Adam).")
    gradient_penalty: NonNegative = Field(
        10.0, description="Weight of the gradient penalty of the critic's score."
    )
    margin: Positive = Field(
        1.0, description="By how much a pair of real features must score above a mixed one."
    )
    instance_weight: NonNegative = Field(
        0.05, description="Weight of the discrimination of instances."
    )
    temperature: Positive = Field(0.2, description="Of the discrimination of instances.")
    classification: NonNegative = Field(
        0.1, description="Weight of the class of a generated feature, by the means of the classes."
    )
    diversity: NonNegative = Field(
        0.01, description="Weight against features that do not vary with the noise."
    )
