"""Checkpoints of a trial: tensors and plain values, replaced atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from gsfl_tune.run import write_bytes
from gsfl_tune.run.checkpoints import set_aside

FORMAT = 1


class CheckpointError(Exception):
    """Raised for a checkpoint that exists but cannot be used."""


def save_checkpoint(path: Path, state: dict[str, Any], keep: int = 1) -> None:
    """Replaces the checkpoint at `path`; earlier ones are kept, up to `keep` in all."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    set_aside(path, keep)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads a checkpoint to the CPU without running code from it.

    Returns:
        The state, or None when there is no file.

    Raises:
        CheckpointError: When the file is broken or of another format.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}: {error})"
        ) from error
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {state.get('format')}, this version reads {FORMAT}")
    return state
