"""Which source a path is meant for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gsfl_tune.data.sources._base import IMAGE_SUFFIXES, expand
from gsfl_tune.data.sources.cub import FILES
from gsfl_tune.experiment.errors import UserError


def detect_source(path: str) -> Literal["folder", "cub", "parquet"]:
    """Tells from what lies at a path how to read it.

    Args:
        path: A folder, a Parquet file, a pattern or a URL.

    Raises:
        UserError: If nothing lies there, or a file that is no Parquet file.
    """
    expanded = expand(path)
    local = Path(expanded)
    if "://" in expanded or expanded.endswith(".parquet") or any(c in expanded for c in "*?["):
        return "parquet"
    if not local.exists():
        raise UserError(f"{expanded} does not exist (looked in {Path.cwd()})")
    if not local.is_dir():
        raise UserError(
            f"{expanded} is neither an experiment (.yaml), nor a Parquet file, nor a folder"
        )
    if any((root / FILES[0]).is_file() for root in (local, local / "CUB_200_2011")):
        return "cub"
    if next(local.glob("*.parquet"), None) is not None:
        return "parquet"
    # Data sets of the hub keep their files one or more folders down.
    inside = (file.suffix.lower() for file in local.rglob("*"))
    suffixes = {suffix for suffix in inside if suffix in IMAGE_SUFFIXES or suffix == ".parquet"}
    return "parquet" if suffixes == {".parquet"} else "folder"
