"""What a generator of features cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gsfl_tune.experiment.space import Space, ends

_PATH = "training.head.generate.share"


def generator_problems(space: Space) -> Iterator[tuple[str, str, Any]]:
    """Finds settings of a space that do not go together with generated features.

    Args:
        space: The compiled space.

    Yields:
        The leaf, the message, and the value that it is about.
    """
    share = _largest(space, _PATH)
    if share <= 0:
        return
    if _largest(space, "training.head.epochs") == 0:
        yield (
            _PATH,
            f"found {share:g} without a head stage, allowed 0, or training.head.epochs above 0: "
            "features are generated for that stage alone",
            share,
        )
    weight = _largest(space, "loss.distill.weight")
    if weight > 0:
        yield (
            _PATH,
            f"found {share:g} with loss.distill.weight {weight:g}, allowed 0, or no distillation: "
            "the teacher answers to images, and no image has a generated feature",
            share,
        )
    shots = space.constants.get("data.shots")
    if shots == 1:
        yield (
            _PATH,
            f"found {share:g} with data.shots 1, allowed 0, or data.shots of 2 and more: one image "
            "of a class does not show how its images differ",
            share,
        )


def _largest(space: Space, path: str) -> Any:
    return max(ends(space.possible(path)), default=0)
