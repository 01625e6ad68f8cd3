"""What style normalisation and restitution cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from gsfl_tune.experiment.config import Config
from gsfl_tune.models import pooling_class, restitution_channels, restitution_problem

# Each of their losses is of the pass before it.
METHODS = ("single", "sam")
COMPILED = (
    "found true with training.finetune.compile: true, which would lose the parts that "
    "loss.causality compares; allowed: false, or compile: false"
)
_PATH = "training.finetune.snr"


def snr_problems(config: Config) -> Iterator[tuple[str, str]]:
    """Finds what a configuration with ``training.finetune.snr`` cannot have.

    Args:
        config: The configuration.

    Yields:
        The leaf, and a message.

    Raises:
        BackboneError: If there is no such backbone.
    """
    stage, model = config.training.finetune, config.model
    reads = pooling_class(model.pooling).reads
    where = (model.extractor, stage.blocks, config.data.image_size, reads)
    if problem := restitution_problem(*where):
        yield _PATH, f"found true, but {problem}; allowed: false"
    if config.training.method not in METHODS:
        yield _PATH, with_method(config.training.method)
    if stage.compile:
        yield _PATH, COMPILED


def with_method(name: str) -> str:
    """Says that a method of training cannot have it."""
    return (
        f"found true with training.method: {name}, allowed false, or training.method: "
        f"{' or '.join(METHODS)}, whose losses are each of one pass"
    )


def restituted_channels(config: Config) -> int:
    """Returns the channels of the map that is restituted; 0 without that."""
    stage, model = config.training.finetune, config.model
    if not (stage.epochs and stage.snr):
        return 0
    reads = pooling_class(model.pooling).reads
    return restitution_channels(model.extractor, stage.blocks, config.data.image_size, reads)
