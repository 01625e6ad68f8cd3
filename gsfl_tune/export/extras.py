"""Check for the packages of the extra ``export``, which only some exports need."""

from __future__ import annotations

from importlib.util import find_spec

from gsfl_tune.experiment.errors import UserError

# Module name to its name on PyPI.
_PACKAGES = {
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
    "torchao": "torchao",
    "torch_pruning": "torch-pruning",
}


def require(what: str, *modules: str) -> None:
    """Checks that packages are installed.

    Args:
        what: The option that needs them, as a user wrote it.
        modules: Names of importable modules.

    Raises:
        UserError: With the command that installs them.
    """
    missing = [_PACKAGES[module] for module in modules if find_spec(module) is None]
    if missing:
        raise UserError(
            f"{what} needs {' and '.join(missing)}: run  pip install 'gsfl-tune[export]'"
        )
