"""Models of timm as `push_to_hf_hub` publishes them, on the server of the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models._hub import generate_readme, save_for_hf
from torch import nn

from tests.hub_server import HubServer

STATISTICS: dict[str, tuple[float, ...]] = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
"""How the inputs of these models are normalised: not as those of ImageNet."""


def timm_model(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """Makes a model of seven classes, as somebody may have trained it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, num_classes=7, **options)
    model.pretrained_cfg |= STATISTICS
    return model.eval()


def files_of(model: nn.Module, folder: Path, licence: str | None = "mit") -> dict[str, bytes]:
    """Returns what timm publishes of a model: tensors twice, ``config.json``, a model card."""
    save_for_hf(model, folder, safe_serialization="both")
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    if licence is not None:
        card = generate_readme({"license": licence}, "zoo")
        content["README.md"] = card.encode()
    return content


def publish(
    hub: HubServer, name: str, model: nn.Module, folder: Path, licence: str | None = "mit"
) -> str:
    """Puts a model on the hub, and returns the name of its commit."""
    return hub.put(name, files_of(model, folder, licence))


def with_config(content: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """Returns files of a model with another ``config.json``; None removes a key."""
    config = json.loads(content["config.json"]) | changes
    kept = {key: value for key, value in config.items() if value is not None}
    return content | {"config.json": json.dumps(kept).encode()}
