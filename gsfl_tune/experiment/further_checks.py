"""Settings that need each other, or exclude each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gsfl_tune.experiment.data_config import EMBEDDINGS
from gsfl_tune.experiment.edit import WEIGHTS
from gsfl_tune.experiment.fields import MISSING
from gsfl_tune.experiment.generate_checks import generator_problems
from gsfl_tune.experiment.methods import ATTRIBUTE_METHODS, PART_METHODS, UNLABELLED_METHODS
from gsfl_tune.experiment.model_config import TWO_STREAMS, layer_poolings
from gsfl_tune.experiment.pretrain_checks import pretraining_problems
from gsfl_tune.experiment.space import Space, ends
from gsfl_tune.plugins import BUILT_IN

UNTRAINED_ATTENTION = (
    "found attention without a finetune stage, allowed average, which it is before it is trained, "
    "or training.finetune.epochs above 0"
)

ONE_OR_TWO = (
    "allowed 0, or model.backbone_b: none: two layers are of one backbone, and of two backbones "
    "the last maps are read"
)

Complaint = tuple[str, str, Any]
"""The leaf, the message, and the value that it is about."""


def further_problems(space: Space, *, finetunes: bool) -> Iterator[Complaint]:
    """Finds settings of a space that do not go together.

    Args:
        space: The compiled space.
        finetunes: Whether trials have a finetune stage.
    """
    yield from _second_backbone(space)
    yield from _second_layer(space)
    yield from _attention(space, finetunes)
    yield from _causality(space)
    yield from _class_text(space)
    yield from _unlabelled(space, finetunes)
    yield from _attributes(space, finetunes)
    yield from _parts(space, finetunes)
    yield from generator_problems(space)
    yield from pretraining_problems(space)


def _values(space: Space, path: str) -> list[Any]:
    return ends(space.possible(path))


def _second_backbone(space: Space) -> Iterator[Complaint]:
    path = "model.backbone_b"
    names = [name for name in _values(space, path) if name != "none"]
    if not names:
        return
    poolings = _values(space, "model.pooling")
    if path in space.constants and not set(poolings) & set(TWO_STREAMS):
        yield (
            path,
            f"found {names[0]} with model.pooling {', '.join(poolings)}, allowed none, or "
            f"model.pooling: {' or '.join(TWO_STREAMS)}, which multiply the channels of two "
            "backbones",
            names[0],
        )
    files = [each for each in _values(space, "model.weights") if each not in WEIGHTS]
    if files and None in _values(space, "model.weights_b"):
        yield (
            path,
            f"found {names[0]} without model.weights_b, allowed model.weights_b: "
            f"{', '.join(WEIGHTS)}, a file or hf-hub:OWNER/NAME: those of model.weights are of the "
            "first backbone",
            names[0],
        )


def _second_layer(space: Space) -> Iterator[Complaint]:
    path = "model.layer_b"
    place = space.constants.get(path)
    if not place:  # of those that are searched every combination is looked at elsewhere
        return
    poolings, able = _values(space, "model.pooling"), layer_poolings()
    if not set(poolings) & set(able):
        yield (
            path,
            f"found {place} with model.pooling {', '.join(poolings)}, allowed 0, or model.pooling: "
            f"{', '.join(able)}, which read the map",
            place,
        )
    elif (second := space.constants.get("model.backbone_b", "none")) != "none":
        yield path, f"found {place} with model.backbone_b {second}, {ONE_OR_TWO}", place


def _attention(space: Space, finetunes: bool) -> Iterator[Complaint]:
    path = "model.pooling"
    if "attention" in _values(space, path) and not finetunes:
        yield (path, UNTRAINED_ATTENTION, "attention")


def _causality(space: Space) -> Iterator[Complaint]:
    path = "loss.causality.weight"
    weight = max(_values(space, path), default=0)
    if weight > 0 and True not in _values(space, "training.finetune.snr"):
        yield (
            path,
            f"found {weight:g} without training.finetune.snr, allowed 0, or "
            "training.finetune.snr: true, whose parts it compares",
            weight,
        )


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


def _unlabelled(space: Space, finetunes: bool) -> Iterator[Complaint]:
    given = space.constants.get("data.unlabelled")
    if given is not None and space.constants.get("data.crop", "none") == "box":
        yield (
            "data.unlabelled",
            "found images with data.crop box, allowed data.crop: none: they have no boxes to cut",
            MISSING,
        )
    path = "training.method"
    for name in (each for each in _values(space, path) if each in UNLABELLED_METHODS):
        if given is None:
            yield (
                path,
                f"found {name} without data.unlabelled, allowed another method, or "
                "data.unlabelled: a folder, a pattern, or Parquet files of images",
                name,
            )
        if not finetunes:
            yield (
                path,
                f"found {name} without a finetune stage, allowed another method: the head stage "
                "reads features, of which there is no strongly changed view",
                name,
            )
        views = space.constants.get("data.views")
        if views:
            yield (
                path,
                f"found {name} with data.views {views}, allowed data.views: 0: images without "
                "labels are changed anew in every epoch",
                name,
            )


def _attributes(space: Space, finetunes: bool) -> Iterator[Complaint]:
    source = space.constants.get("data.source", "auto")
    columns = space.constants.get("data.attribute_columns")
    lacks = source in BUILT_IN["source"] and source not in ("auto", "cub") and not columns
    if not lacks:
        return
    allowed = "source cub, or data.attribute_columns (sources csv, jsonl): there are no attributes"
    path = "loss.attributes.weight"
    weight = max(_values(space, path), default=0)
    if weight > 0:
        yield (path, f"found {weight:g} with source {source}, allowed 0, {allowed}", weight)
    path = "training.method"
    for name in _values(space, path) if finetunes else ():
        if name in ATTRIBUTE_METHODS:
            message = f"found {name} with source {source}, allowed another method, {allowed}"
            yield (path, message, name)


# Sources that may have boxes or points.
_WITH_PARTS = ("auto", "csv", "jsonl", "coco", "cub", "nabirds", "dogs", "cars")


def _parts(space: Space, finetunes: bool) -> Iterator[Complaint]:
    path = "training.method"
    names = [name for name in _values(space, path) if name in PART_METHODS]
    source = space.constants.get("data.source", "auto")
    for name in names:
        if not finetunes:
            yield (
                path,
                f"found {name} without a finetune stage, allowed another method, or "
                "training.finetune.epochs above 0: the head stage reads features of whole images, "
                "averaged over the places at which parts are",
                name,
            )
        elif source in BUILT_IN["source"] and source not in _WITH_PARTS:
            yield (
                path,
                f"found {name} with source {source}, allowed another method, or a source with "
                f"boxes or points ({', '.join(_WITH_PARTS[1:])}): there are no parts",
                name,
            )
