"""Embeddings of texts by the text tower of an image and text model, through open_clip.

Source of the models: Radford et al., "Learning Transferable Visual Models From Natural Language
Supervision", ICML 2021, and what followed it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

_BATCH = 64


class TextTowerError(ValueError):
    """Raised where texts cannot be embedded; the message begins with the setting."""


def embed_texts(texts: Sequence[str], name: str, weights: Path) -> np.ndarray:
    """Embeds texts with a text tower, on the CPU.

    Args:
        texts: The texts, as they are; a prompt is part of them.
        name: Name of a model of open_clip.
        weights: File of its weights, safetensors or a state dict.

    Returns:
        (N, E) float32, of length 1.

    Raises:
        TextTowerError: If open_clip is missing or does not know the model, if the weights do not
            fit, or if the model's tokenizer would have to be downloaded.
    """
    try:
        clip: Any = importlib.import_module("open_clip")
    except ImportError as error:
        raise TextTowerError(
            "data.text_model: needs open_clip: pip install 'gsfl-tune[text]', or give embeddings "
            "in data.class_text"
        ) from error
    settings = clip.get_model_config(name)
    if settings is None:
        known = ", ".join(clip.list_models()[:5])
        raise TextTowerError(
            f"data.text_model: found {name}, allowed a model of open_clip ({known}..)"
        )
    if "hf_tokenizer_name" in settings.get("text_cfg", {}):
        raise TextTowerError(
            f"data.text_model: found {name}, whose tokenizer is downloaded from a hub; allowed one "
            "of OpenAI's tokenizer, or embeddings in data.class_text"
        )
    if not weights.is_file():
        raise TextTowerError(f"data.text_weights: {weights} is not a file; nothing is downloaded")
    try:
        model = clip.create_model(name, pretrained=str(weights), device="cpu").eval()
    except Exception as error:  # open_clip and torch raise any error for weights that do not fit
        line = " ".join(str(error).split())[:200]
        raise TextTowerError(f"data.text_weights: {weights} does not fit {name}: {line}") from error
    tokens = clip.get_tokenizer(name)(list(texts))
    with torch.inference_mode():
        rows = [model.encode_text(each, normalize=True).float() for each in tokens.split(_BATCH)]
    found: np.ndarray = torch.cat(rows).numpy()
    return found
