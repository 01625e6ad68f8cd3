"""Runtime for programs of ``torch.export``."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from gsfl_tune.bundles.files import BundleError
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.experiment.errors import first_line
from gsfl_tune.export.exported_file import METADATA
from gsfl_tune.export.extras import require
from gsfl_tune.export.runtimes._base import Runtime


class ExportedRuntime(Runtime):
    """Runs a ``.pt2`` file.

    Args:
        path: The file.
        preprocessing: The preprocessing of a square.
        inside: Whether the file does that itself.
        quantised: Whether it has int8 operations, which torchao registers.
        device: Device of the computation.

    Raises:
        UserError: If torchao is needed and not installed.
        BundleError: If torch cannot read the file, or it holds more than a program and its tensors.
    """

    def __init__(
        self,
        path: Path,
        preprocessing: Preprocessing,
        *,
        inside: bool,
        quantised: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(preprocessing, inside=inside)
        if quantised:
            require(str(path), "torchao")
            import torchao.quantization.pt2e  # noqa: F401  (registers the operations)
        refuse_unexpected(path)
        device = device or torch.device("cpu")
        try:
            program = torch.export.load(path)
            if device.type != "cpu":
                # Moves more than the weights: a program also asserts and names devices inside.
                program = move_to_device_pass(program, str(device))
            module: Any = program.module()
        except Exception as error:  # a damaged archive raises many kinds
            raise BundleError(f"{path}: torch cannot read it ({first_line(error)})") from error
        self._module: nn.Module = module
        self._device = device

    @property
    def device(self) -> torch.device:
        """Returns the device of the program's weights."""
        return self._device

    def run(self, images: Tensor) -> Tensor:
        """Returns the program's only output."""
        outputs: Tensor = self._module(images)
        return outputs


# What `torch.export.save` writes for one program. torch acts on further names: what lies below
# `data/aotinductor/` it compiles or loads.
_EXPECTED = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt"
    r"|models/model\.json"
    rf"|extra/{re.escape(METADATA)}"
    r"|archive_format|archive_version|version|byteorder"
    r"|\.data/(version|serialization_id)|\.format_version|\.storage_alignment",
    re.ASCII,
)


def refuse_unexpected(path: Path) -> None:
    """Checks a ``.pt2`` archive before torch opens it, because torch acts on what is in it.

    Raises:
        BundleError: If it holds anything but one program with plain tensors, holds something
            twice, or is not such an archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # Readers differ in which of two they take.
            if len(set(names)) < len(names) or len({name.split("/")[0] for name in names}) > 1:
                raise BundleError(f"{path}: holds names twice, allowed is one program")
            for name in names:
                place = name.partition("/")[2]
                if not _EXPECTED.fullmatch(place):
                    raise BundleError(
                        f"{path}: found {name} in it, allowed are a program and its tensors, as "
                        "`gsfl-tune export` writes them"
                    )
                if place.endswith("_config.json"):
                    entries = json.loads(archive.read(name))["config"].values()
                    if not all(map(_plain, entries)):
                        raise BundleError(f"{path}: {place} names pickles, which are not loaded")
                elif place.startswith("data/sample_inputs/"):
                    data = archive.read(name)
                    if data:
                        torch.load(io.BytesIO(data), weights_only=True)
    except BundleError:
        raise
    except Exception as error:  # zip, JSON and torch have their own classes
        raise BundleError(
            f"{path}: not an archive of torch.export ({first_line(error)})"
        ) from error


def _plain(entry: dict[str, Any]) -> bool:
    # Custom and opaque objects are pickles, even if the flag says otherwise.
    tensors = ("weight_", "tensor_")
    return not entry.get("use_pickle") and str(entry["path_name"]).startswith(tensors)
