"""Check for the packages of extras, which only some exports and engines need."""

from __future__ import annotations

from importlib.util import find_spec

from gsfl_tune.experiment.errors import UserError

# Module name to its name on PyPI; all are in the extra ``export`` but those of `_EXTRAS`.
_PACKAGES = {
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "torchao": "torchao",
    "torch_pruning": "torch-pruning",
}
_EXTRAS = {"openvino": "cpu"}


def require(what: str, *modules: str) -> None:
    """Checks that packages are installed.

    Args:
        what: The option that needs them, as a user wrote it.
        modules: Names of importable modules.

    Raises:
        UserError: With the command that installs them.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        names = " and ".join(_PACKAGES[module] for module in missing)
        extra = _EXTRAS.get(missing[0], "export")
        raise UserError(f"{what} needs {names}: run  pip install 'gsfl-tune[{extra}]'")
