"""Settings that need each other, or exclude each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gsfl_tune.experiment.data_config import EMBEDDINGS
from gsfl_tune.experiment.space import Space, ends

Complaint = tuple[str, str, Any]
"""The leaf, the message, and the value that it is about."""


def further_problems(space: Space, *, finetunes: bool) -> Iterator[Complaint]:
    """Finds settings of a space that do not go together.

    Args:
        space: The compiled space.
        finetunes: Whether trials have a finetune stage.
    """
    yield from _class_text(space)


def _values(space: Space, path: str) -> list[Any]:
    return ends(space.possible(path))


def _class_text(space: Space) -> Iterator[Complaint]:
    path = "model.classifier_init"
    if "class_text" not in _values(space, path):
        return
    file = space.constants.get("data.class_text")
    if file is None:
        yield (
            path,
            "found class_text without data.class_text, allowed random, or data.class_text: a file "
            "of embeddings or texts of the classes",
            "class_text",
        )
        return
    if file.lower().endswith(EMBEDDINGS):
        return
    lacking = [
        key for key in ("data.text_model", "data.text_weights") if space.constants.get(key) is None
    ]
    if lacking:
        yield (
            path,
            f"found class_text with texts ({file}) but without {' and '.join(lacking)}, allowed a "
            f"file of embeddings ({', '.join(EMBEDDINGS)}), or both: a model of open_clip, and a "
            "file of its weights",
            "class_text",
        )
