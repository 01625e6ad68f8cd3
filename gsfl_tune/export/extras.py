"""Packages that only some exports need: the extra ``export``."""

from __future__ import annotations

from importlib.util import find_spec

from gsfl_tune.experiment.errors import UserError

# What is imported, and what pip calls it.
_PACKAGES = {
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
    "torchao": "torchao",
    "torch_pruning": "torch-pruning",
}


def require(what: str, *modules: str) -> None:
    """Makes sure that packages are there.

    Args:
        what: Who needs them, as a user wrote it.
        modules: Names of importable modules.

    Raises:
        UserError: With the command that installs them.
    """
    missing = [_PACKAGES[module] for module in modules if find_spec(module) is None]
    if missing:
        raise UserError(
            f"{what} needs {' and '.join(missing)}: run  pip install 'gsfl-tune[export]'"
        )
