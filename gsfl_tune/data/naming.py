"""What a data set is called."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.url_options import split_options


def name_of(config: DataConfig) -> str:
    """Returns the name for people: that of the folder or file, else of the source."""
    path = config.path[0] if isinstance(config.path, list) and config.path else config.path
    if not isinstance(path, str):
        return config.source
    path, _ = split_options(path)
    named = Path(path)
    # A pattern is named after its folder; brackets may be part of a name, too.
    while "://" not in path and set("*?[") & set(named.name) and not named.exists():
        named = named.parent
    return named.name or config.source
