"""Heads: the GSFL autoencoder with its classifier, and the plain control.

Source: Li and Monga, "Group Based Deep Shared Feature Learning for Fine-grained Image
Classification", arXiv 2004.01817.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, Self

from torch import Tensor, nn

from gsfl_tune.models.dropout import Dropout
from gsfl_tune.models.granularities import SCORES

Decoder = Literal["linear", "sigmoid"]
INFERENCE_PARTS = ("discriminative", "classifier")
# Tensors of a network in which the logits of its head are linear.
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")


class HeadOutput(NamedTuple):
    """Holds the output of a head for a batch.

    Attributes:
        logits: (B, C) class scores.
        discriminative: (B, H) discriminative part d.
        shared: (B, H) shared part s; None in a plain head.
        reconstruction: (B, D) decoder(s + d), in units of feature_scale * f; None in a plain head.
    """

    logits: Tensor
    discriminative: Tensor
    shared: Tensor | None
    reconstruction: Tensor | None


def encoder(feature_dim: int, latent_dim: int, dropout: float) -> nn.Sequential:
    """Makes an encoder: dropout, linear D->H, dropout, linear H->H, ReLU."""
    return nn.Sequential(
        Dropout(dropout),
        nn.Linear(feature_dim, latent_dim),
        Dropout(dropout),
        nn.Linear(latent_dim, latent_dim),
        nn.ReLU(),
    )


class PlainHead(nn.Module):
    """Holds the discriminative encoder and the classifier only: the control, and all of inference.

    Args:
        feature_dim: Size D of a feature.
        class_count: Number of classes C.
        latent_dim: H, size of the discriminative part.
        dropout: Rate of both dropouts of the encoder.
        feature_scale: The encoder sees feature_scale * f.

    Attributes:
        architecture: Name, in bundles, of what is left of it for inference; see `INFERENCE_HEADS`.
        encodes: Whether it has an encoder, with a latent size and dropout of its own.
    """

    architecture: ClassVar[str] = "encoder"
    encodes: ClassVar[bool] = True

    def __init__(
        self,
        feature_dim: int,
        class_count: int,
        *,
        latent_dim: int,
        dropout: float,
        feature_scale: float,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.class_count = class_count
        self.latent_dim = latent_dim
        self.feature_scale = feature_scale
        self.discriminative = encoder(feature_dim, latent_dim, dropout)
        self.classifier = nn.Linear(latent_dim, class_count)

    @classmethod
    def create(
        cls,
        feature_dim: int,
        class_count: int,
        *,
        latent_dim: int,
        dropout: float,
        feature_scale: float,
        decoder: Decoder,
    ) -> Self:
        """Creates the head from all settings of a model; it uses only those that it needs."""
        return cls(
            feature_dim,
            class_count,
            latent_dim=latent_dim,
            dropout=dropout,
            feature_scale=feature_scale,
        )

    @staticmethod
    def count_parameters(feature_dim: int, latent_dim: int, class_count: int) -> int:
        """Counts its parameters (weights and biases)."""
        return _encoder_size(feature_dim, latent_dim) + latent_dim * class_count + class_count

    @staticmethod
    def latent_size(feature_dim: int, latent_dim: int) -> int:
        """Returns the size H of its discriminative part for a setting of it."""
        return latent_dim

    def forward(self, f: Tensor) -> HeadOutput:
        """Runs the head on unit features f (B, D), see `divided`."""
        f, added = self.divided(f)
        d = self.discriminative(self.feature_scale * f)
        return HeadOutput(_plus(self.classifier(d), added), d, None, None)

    def infer(self, f: Tensor) -> Tensor:
        """Returns logits (B, C) of unit features f (B, D), from encoder and classifier only."""
        f, added = self.divided(f)
        return _plus(self.classifier(self.discriminative(self.feature_scale * f)), added)

    def divided(self, f: Tensor) -> tuple[Tensor, Tensor | None]:
        """Divides what a network gives to its head.

        Args:
            f: (B, D) unit features; of a network with `gsfl_tune.models.Granularities` (B, D + C),
                with what is added to the logits behind them.

        Returns:
            Unit features (B, D), and what is added (B, C), or None.
        """
        if f.shape[1] == self.feature_dim:
            return f, None
        return f[:, : self.feature_dim], f[:, self.feature_dim :]

    def inference_state(self) -> dict[str, Tensor]:
        """Returns the tensors that inference needs; a `PlainHead` of the same sizes loads them."""
        return {k: v for k, v in self.state_dict().items() if k.split(".")[0] in INFERENCE_PARTS}


class GsflHead(PlainHead):
    """Holds shared and discriminative encoder, decoder of their sum, classifier on the latter.

    With one seed its discriminative encoder and classifier start like those of a `PlainHead`.

    Args:
        feature_dim: Size D of a feature.
        class_count: Number of classes C.
        latent_dim: Size H of the shared and of the discriminative part.
        dropout: Rate of both dropouts of each encoder.
        feature_scale: The encoders see feature_scale * f.
        decoder: ``linear`` ends in a linear layer; ``sigmoid`` squashes, as in the authors' code.
    """

    def __init__(
        self,
        feature_dim: int,
        class_count: int,
        *,
        latent_dim: int,
        dropout: float,
        feature_scale: float,
        decoder: Decoder = "linear",
    ) -> None:
        super().__init__(
            feature_dim,
            class_count,
            latent_dim=latent_dim,
            dropout=dropout,
            feature_scale=feature_scale,
        )
        if decoder not in ("linear", "sigmoid"):
            raise ValueError(f"decoder is {decoder!r}, allowed are linear and sigmoid")
        self.shared = encoder(feature_dim, latent_dim, dropout)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, latent_dim), nn.ReLU(), nn.Linear(latent_dim, feature_dim)
        )
        if decoder == "sigmoid":
            self.decoder.append(nn.Sigmoid())

    @classmethod
    def create(
        cls,
        feature_dim: int,
        class_count: int,
        *,
        latent_dim: int,
        dropout: float,
        feature_scale: float,
        decoder: Decoder,
    ) -> Self:
        """Creates the head from all settings of a model."""
        return cls(
            feature_dim,
            class_count,
            latent_dim=latent_dim,
            dropout=dropout,
            feature_scale=feature_scale,
            decoder=decoder,
        )

    @staticmethod
    def count_parameters(feature_dim: int, latent_dim: int, class_count: int) -> int:
        """Counts its parameters (weights and biases)."""
        d, h = feature_dim, latent_dim
        plain = PlainHead.count_parameters(d, h, class_count)
        return plain + _encoder_size(d, h) + h * h + h + h * d + d

    def forward(self, f: Tensor) -> HeadOutput:
        """Runs the head on unit features f (B, D), see `divided`."""
        f, added = self.divided(f)
        scaled = self.feature_scale * f
        d = self.discriminative(scaled)
        s = self.shared(scaled)
        return HeadOutput(_plus(self.classifier(d), added), d, s, self.decoder(s + d))


class LinearHead(PlainHead):
    """Classifies unit features linearly, as usual in fine-tuning; also the yardstick's head.

    Its discriminative part is the scaled feature itself.

    Args:
        feature_dim: Size D of a feature.
        class_count: Number of classes C.
        feature_scale: The classifier sees feature_scale * f.
    """

    architecture = "linear"
    encodes = False

    def __init__(self, feature_dim: int, class_count: int, *, feature_scale: float = 1.0) -> None:
        super().__init__(
            feature_dim, class_count, latent_dim=1, dropout=0.0, feature_scale=feature_scale
        )
        self.latent_dim = feature_dim
        self.discriminative = nn.Sequential()
        self.classifier = nn.Linear(feature_dim, class_count)

    @classmethod
    def create(
        cls,
        feature_dim: int,
        class_count: int,
        *,
        latent_dim: int,
        dropout: float,
        feature_scale: float,
        decoder: Decoder,
    ) -> Self:
        """Creates the head from all settings of a model; it uses the feature scale alone."""
        return cls(feature_dim, class_count, feature_scale=feature_scale)

    @staticmethod
    def count_parameters(feature_dim: int, latent_dim: int, class_count: int) -> int:
        """Counts its parameters (weights and biases)."""
        return feature_dim * class_count + class_count

    @staticmethod
    def latent_size(feature_dim: int, latent_dim: int) -> int:
        """Returns D: its discriminative part is the feature."""
        return feature_dim


# The class of each ``model.head``; what else differs is in `gsfl_tune.experiment.heads`.
HEAD_CLASSES: dict[str, type[PlainHead]] = {
    "gsfl": GsflHead,
    "plain": PlainHead,
    "linear": LinearHead,
    "fsdg": PlainHead,  # differs by its terms of the loss
}

# What is left of heads for inference, by the name in bundles.
INFERENCE_HEADS: dict[str, type[PlainHead]] = {
    each.architecture: each for each in (PlainHead, LinearHead)
}


def create_head(
    kind: str,
    feature_dim: int,
    class_count: int,
    *,
    latent_dim: int,
    dropout: float,
    feature_scale: float,
    decoder: Decoder = "linear",
) -> PlainHead:
    """Creates the head that ``model.head`` names; each head uses only the settings it needs.

    Raises:
        ValueError: If there is no such head.
    """
    return head_class(kind).create(
        feature_dim,
        class_count,
        latent_dim=latent_dim,
        dropout=dropout,
        feature_scale=feature_scale,
        decoder=decoder,
    )


def head_class(kind: str) -> type[PlainHead]:
    """Finds the class of a head.

    Raises:
        ValueError: If there is no such head.
    """
    if kind not in HEAD_CLASSES:
        *others, last = HEAD_CLASSES
        raise ValueError(f"head is {kind!r}, allowed are {', '.join(others)} and {last}")
    return HEAD_CLASSES[kind]


def head_parameters(kind: str, feature_dim: int, latent_dim: int, class_count: int) -> int:
    """Counts the parameters of a head (weights and biases)."""
    return head_class(kind).count_parameters(feature_dim, latent_dim, class_count)


def scales_logits(name: str) -> bool:
    """Returns whether the logits of a network are linear in a tensor of it, with all others such.

    Args:
        name: Of the tensor, in a network or an ensemble.
    """
    return name.endswith(CLASSIFIER) or SCORES in name


def _plus(logits: Tensor, added: Tensor | None) -> Tensor:
    return logits if added is None else logits + added


def _encoder_size(feature_dim: int, latent_dim: int) -> int:
    return feature_dim * latent_dim + latent_dim + latent_dim * latent_dim + latent_dim
