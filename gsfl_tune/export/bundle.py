"""The bundle: the exported winner, written atomically and loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gsfl_tune.arguments import instance, path_of
from gsfl_tune.bundles import files
from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.bundles.files import BundleError
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.bundles.reading import read_description, read_network
from gsfl_tune.data.image_file import PLAIN, Reading
from gsfl_tune.export.card import model_card
from gsfl_tune.export.hub import fetch, hub_place
from gsfl_tune.export.predictor import Bundle
from gsfl_tune.export.runtimes import (
    ExportedRuntime,
    OnnxRuntime,
    OpenvinoRuntime,
    Runtime,
    TorchRuntime,
)
from gsfl_tune.export.thresholds import described, scaled
from gsfl_tune.run.results import Calibration
from gsfl_tune.run.verdict import Model

if TYPE_CHECKING:
    from gsfl_tune.experiment.config import Config
    from gsfl_tune.models import Network


def write_bundle(
    directory: str | Path,
    *,
    network_state: Mapping[str, Tensor],
    architecture: Architecture,
    config: Mapping[str, Any],
    classes: Sequence[str],
    groups: Mapping[str, int],
    preprocessing: Preprocessing,
    metrics: Mapping[str, Any],
    card: str | None = None,
    model: Model = "winner",
    shared: Mapping[str, Tensor] | None = None,
    calibration: Calibration | None = None,
    trained_on: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a bundle: the whole directory appears at once, or nothing does.

    Args:
        directory: The directory to write; an existing bundle is replaced.
        network_state: Inference tensors only, see `Network.inference_state`.
        architecture: Describes the network of these tensors.
        config: The complete configuration, for readers (``experiment`` in config.json).
        classes: Class names, in the order of the outputs.
        groups: Group of every class; empty for a plain head.
        preprocessing: The preprocessing of validation in training.
        metrics: Content of ``metrics.json``.
        card: ``README.md``; default: written from the other arguments.
        model: Which of the models in `metrics` it is; also written to ``config.json``.
        shared: Tensors of the shared branch; left out by default.
        calibration: Its temperature is divided out of the classifier's tensors here.
        trained_on: What it has seen, see `gsfl_tune.data.Dataset.trained_on`; for a student that
            learns from it.

    Returns:
        The directory.

    Raises:
        ValueError: If classes, groups and architecture do not match.
        OSError: If the directory cannot be written.
    """
    directory = Path(directory)
    _check_classes(classes, groups, architecture.class_count)
    if calibration is not None:
        network_state = scaled(network_state, 1 / calibration.temperature)
    weights = files.tensor_bytes(dict(network_state))
    contents = {files.MODEL: weights}
    if shared is not None:
        contents[files.SHARED] = files.tensor_bytes(dict(shared))
    description = {
        "format": files.FORMAT,
        "gsfl_tune": own_version(),
        "name": config["name"],
        "model": model,
        "architecture": asdict(architecture),
        "preprocessing": preprocessing.to_json(),
        "sha256": {name: files.sha256(data) for name, data in contents.items()},
        **({} if calibration is None else {"calibration": described(calibration)}),
        **({} if trained_on is None else {"trained_on": dict(trained_on)}),
        "experiment": dict(config),
    }
    text = card or model_card(
        config,
        classes=classes,
        groups=groups,
        preprocessing=preprocessing.to_json(),
        metrics=metrics,
        model=model,
        calibration=calibration,
    )
    contents |= {
        files.CONFIG: files.json_bytes(description),
        files.CLASSES: files.json_bytes(list(classes)),
        files.GROUPS: files.json_bytes(dict(groups)),
        files.METRICS: files.json_bytes(dict(metrics)),
        files.CARD: text.encode(),
    }

    def fill(folder: Path) -> None:
        for name, data in contents.items():
            (folder / name).write_bytes(data)

    files.replace_directory(directory, fill)
    return directory


def bundle_from_network(
    directory: str | Path,
    network: Network,
    config: Config,
    *,
    classes: Sequence[str],
    groups: Sequence[int] | None,
    side: int,
    reading: Reading = PLAIN,
    metrics: Mapping[str, Any],
    model: Model = "winner",
    calibration: Calibration | None = None,
    trained_on: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the bundle of a trained network.

    Args:
        directory: The directory to write.
        network: A network with any head; of a GSFL head only the discriminative path is written.
        config: Its configuration.
        classes: Class names, in the order of the outputs.
        groups: (C,) group of every class, or None for a plain head.
        side: Side of the decoded squares that it was validated on.
        reading: How their files were read.
        metrics: Content of ``metrics.json``.
        model: Which of the models in `metrics` it is.
        calibration: Its temperature is divided out of the classifier, so that every reader of the
            weights gets calibrated probabilities.
        trained_on: What it has seen, see `write_bundle`.
    """
    statistics = network.backbone.preprocessing
    return write_bundle(
        directory,
        network_state=network.inference_state(),
        architecture=Architecture.of(config, network, len(classes)),
        config=config.model_dump(mode="json"),
        classes=classes,
        groups={}
        if groups is None
        else {name: int(group) for name, group in zip(classes, groups, strict=True)},
        preprocessing=Preprocessing(
            image_size=config.eval_image_size,
            side=side,
            fit=config.data.fit,
            mean=[float(value) for value in statistics.mean],
            std=[float(value) for value in statistics.std],
            value_range=reading.value_range,
            float_range=reading.float_range,
            max_pixels=reading.max_pixels,
            truncated=reading.truncated,
        ),
        metrics=metrics,
        model=model,
        calibration=calibration,
        trained_on=trained_on,
    )


def load_bundle(path: str | Path, device: str = "auto") -> Bundle:
    """Loads a bundle.

    Args:
        path: The bundle's directory, or ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION`` for one
            of the Hugging Face hub. What a revision is now is told by a warning of `logging`, and
            by `Bundle.source`.
        device: ``auto`` (a GPU if there is one) or a torch device.

    Raises:
        BundleError: If a file is missing, damaged, changed, or of another format.
        UserError: If the hub has no such bundle, or cannot be reached.
    """
    from gsfl_tune.training.workspace import resolve_device

    place, source = hub_place(path) if isinstance(path, str | Path) else None, None
    if place is not None:
        path, pinned = fetch(place)
        source = str(pinned)
    path = path_of(path, "load_bundle: path")
    instance(str, device, "load_bundle: device", "auto, cpu, cuda, or one GPU such as cuda:0")
    description = read_description(path)
    export = description.get("export", {})
    classes, groups = (
        files.read_json_file(path / files.CLASSES),
        files.read_json_file(path / files.GROUPS),
    )
    try:
        architecture = Architecture.from_json(description["architecture"])
        preprocessing = Preprocessing(**description["preprocessing"])
        _check_classes(classes, groups, architecture.class_count)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: the files do not fit together ({error})") from error
    return Bundle(
        path=path,
        runtime=_runtime(path, description, architecture, preprocessing, resolve_device(device)),
        classes=classes,
        groups=groups,
        preprocessing=preprocessing,
        config=description["experiment"],
        metrics=files.read_json_file(path / files.METRICS),
        export=export,
        calibration=description.get("calibration", {}),
        source=source,
    )


def _runtime(
    path: Path,
    description: Mapping[str, Any],
    architecture: Architecture,
    preprocessing: Preprocessing,
    device: torch.device,
) -> Runtime:
    export = description.get("export", {})
    names = files.model_files(export.get("format", "safetensors"))
    file = path / names[0]
    inside = bool(export.get("preprocess"))
    if names[0] == files.MODEL:
        network = read_network(path, description, architecture)
        return TorchRuntime(network.to(device), preprocessing)
    for name in names:
        files.read_checked(path / name, description["sha256"][name])
    if export["format"] == "onnx":
        gpu = device.type == "cuda"
        return OnnxRuntime(file, preprocessing, inside=inside, gpu=gpu)
    if export["format"] == "openvino":
        return OpenvinoRuntime(file, preprocessing, inside=inside)
    quantised = export["precision"] == "int8"
    return ExportedRuntime(
        file,
        preprocessing,
        inside=inside,
        quantised=quantised,
        # int8 operations exist only for the CPU.
        device=torch.device("cpu") if quantised else device,
    )


def _check_classes(classes: Sequence[str], groups: Mapping[str, int], class_count: int) -> None:
    if len(classes) != class_count or len(set(classes)) != class_count:
        raise ValueError(f"{len(set(classes))} class names for {class_count} outputs")
    if groups and set(groups) != set(classes):
        raise ValueError("groups must name every class once")


def own_version() -> str:
    """Returns the version of this package, for the files that it writes."""
    try:
        return version("gsfl-tune")
    except PackageNotFoundError:
        return "unknown"
