"""What style normalisation and restitution cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.methods import METHODS
from gsfl_tune.methods import method_class
from gsfl_tune.models import pooling_class, restitution_channels, restitution_problem

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
    if problem := method_problem(config.training.method):
        yield _PATH, problem
    if stage.compile:
        yield _PATH, COMPILED


def method_problem(name: str) -> str | None:
    """Says why a method of training cannot have it, or None."""
    if method_class(name).loss_follows_pass:
        return None
    others = [each for each in METHODS if method_class(each).loss_follows_pass]
    return (
        f"found true with training.method: {name}, allowed false, or training.method: "
        f"{' or '.join(others)}, whose losses are each of one pass"
    )


def restituted_channels(config: Config) -> int:
    """Returns the channels of the map that is restituted; 0 without that."""
    stage, model = config.training.finetune, config.model
    if not (stage.epochs and stage.snr):
        return 0
    reads = pooling_class(model.pooling).reads
    return restitution_channels(model.extractor, stage.blocks, config.data.image_size, reads)
