"""Reading of a bundle: its description, and the network of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gsfl_tune.bundles import files
from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.bundles.files import BundleError
from gsfl_tune.models import Ensemble, Network


def read_network(
    path: Path, description: Mapping[str, Any], architecture: Architecture
) -> Network | Ensemble:
    """Reads the network of a bundle of safetensors, in eval mode on the CPU.

    Args:
        path: The bundle's directory.
        description: Of `read_description`.
        architecture: That of the description.

    Raises:
        BundleError: If the tensors are damaged or do not match the description.
    """
    file = path / files.MODEL
    # The model computes in fp32, even if it is stored in fp16.
    state = {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in files.read_tensors(file, description["sha256"][files.MODEL]).items()
    }
    try:
        return stored_network(architecture, state, description.get("export", {}))
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{file}: does not fit {files.CONFIG} ({error})") from error


def stored_network(
    architecture: Architecture, state: Mapping[str, Tensor], export: Mapping[str, Any]
) -> Network | Ensemble:
    """Builds the network or networks of tensors.

    Args:
        architecture: Architecture of each network.
        state: Tensors by name.
        export: How they were exported; empty for the bundle of a run.

    Raises:
        RuntimeError, ValueError: If they do not match.
    """
    together = export.get("ensemble")
    if together:
        return architecture.build_ensemble(
            state,
            members=int(together["members"]),
            flip=bool(together["flip"]),
            crops=bool(together.get("crops", False)),
        )
    return architecture.build(state, pruned=bool(export.get("prune")))


def read_description(path: Path) -> dict[str, Any]:
    """Reads and checks ``config.json``, and checks that every file exists.

    Raises:
        BundleError: With the problem.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle (a bundle is a directory, such as RUN/best)")
    _require_files(path, files.REQUIRED)
    description = files.read_json_file(path / files.CONFIG)
    found = description.get("format") if isinstance(description, dict) else None
    if found != files.FORMAT:
        raise BundleError(
            f"{path / files.CONFIG}: bundle format {found}, this version of gsfl-tune reads "
            f"{files.FORMAT}"
        )
    lacking = {"architecture", "preprocessing", "sha256", "experiment"} - set(description)
    format = description.get("export", {}).get("format", "safetensors")
    if format not in files.MODELS:
        raise BundleError(
            f"{path / files.CONFIG}: exported as {format}, this version "
            f"reads {', '.join(files.MODELS)}"
        )
    names = files.model_files(format)
    _require_files(path, names)
    if lacking or not set(names) <= set(description["sha256"]):
        raise BundleError(
            f"{path / files.CONFIG}: lacks {', '.join(sorted(lacking)) or 'a digest'}"
        )
    return description


def _require_files(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise BundleError(f"{path}: not a complete bundle, missing {', '.join(missing)}")
