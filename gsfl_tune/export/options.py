"""Options of an export, and checks for invalid combinations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.extras import require

Format = Literal["safetensors", "onnx", "torch-export", "openvino"]
Precision = Literal["fp32", "fp16", "int8"]

FORMATS: tuple[Format, ...] = get_args(Format)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Options:
    """Holds the options of an export.

    Attributes:
        format: Kind of file.
        precision: Precision of the weights, and of the arithmetic if the format defines it.
        prune: Share of the backbone's channels to remove; 0 removes none.
        preprocess: Whether the file takes squares of bytes and gives probabilities.
        max_loss: Points of validation accuracy that int8 may cost before it is trained further.
        epochs: Epochs of training after pruning, and of training with int8 rounding; 0 for none.
        calibration: Number of training images for the ranges of int8.
        threads: CPU threads of the measurements; default: the number of cores.
        seconds: Seconds of a latency measurement, but always at least 20 runs.
        ensemble: Whether all retrained seeds are exported, as the mean of their probabilities.
        flip: Whether every image is also seen mirrored.
        flip_anyway: Whether to mirror even if the run was not trained on mirrored images.
        crops: Whether the four corners of every image are seen too.
        data: Where the run's images are now; default: where they were.
    """

    format: Format = "safetensors"
    precision: Precision = "fp32"
    prune: float = 0.0
    preprocess: bool = False
    max_loss: float = 0.5
    epochs: int = 3
    calibration: int = 256
    threads: int | None = None
    seconds: float = 4.0
    ensemble: bool = False
    flip: bool = False
    flip_anyway: bool = False
    crops: bool = False
    data: str | None = None

    @property
    def is_copy(self) -> bool:
        """Returns whether the bundle of the run is exported as it is."""
        plain = not (self.prune or self.several)
        return self.format == "safetensors" and self.precision == "fp32" and plain

    @property
    def several(self) -> bool:
        """Returns whether the answer is a mean over seeds or views."""
        return self.ensemble or self.mirrored or self.crops

    @property
    def mirrored(self) -> bool:
        """Returns whether every image is also seen mirrored."""
        return self.flip or self.flip_anyway

    def check(self, *, with_shared: bool = False, neighbours: int | None = None) -> None:
        """Refuses invalid values and combinations.

        Args:
            with_shared: Whether the shared branch is exported too.
            neighbours: Training images of each class in the bundle; None for none.

        Raises:
            UserError: With one line per problem.
        """
        problems = []
        if self.format not in FORMATS:
            problems.append(f"--format: found {self.format}, allowed {', '.join(FORMATS)}")
        if self.precision not in PRECISIONS:
            problems.append(f"--precision: found {self.precision}, allowed {', '.join(PRECISIONS)}")
        if self.format == "safetensors" and self.precision == "int8":
            problems.append(
                "--precision: found int8 with --format safetensors, allowed fp32, fp16 (int8 "
                "needs a format that holds operations: onnx, torch-export)"
            )
        if self.format == "openvino" and self.precision == "int8":
            problems.append(
                "--precision: found int8 with --format openvino, allowed fp32, fp16 (int8: onnx, "
                "torch-export)"
            )
        if self.format == "safetensors" and self.preprocess:
            problems.append(
                "--preprocess: found with --format safetensors, allowed with onnx, torch-export, "
                "openvino (weights alone cannot hold it)"
            )
        if self.prune and not 0.05 <= self.prune <= 0.9:
            problems.append(f"--prune: found {self.prune:g}, allowed 0.05 to 0.9")
        if self.several:
            name = "--ensemble" if self.ensemble else "--flip" if self.mirrored else "--crops"
            if self.prune:
                problems.append(f"--prune: found with {name}, allowed for a single network")
            if self.precision == "int8":
                problems.append(f"--precision: found int8 with {name}, allowed fp32, fp16")
        if self.max_loss < 0:
            problems.append(f"--max-loss: found {self.max_loss:g}, allowed at least 0")
        if self.epochs < 0:
            problems.append(f"--epochs: found {self.epochs}, allowed at least 0")
        if self.calibration < 1:
            problems.append(f"--calibration: found {self.calibration}, allowed at least 1")
        if self.threads is not None and self.threads < 1:
            problems.append(f"--threads: found {self.threads}, allowed at least 1")
        if self.seconds < 0:
            problems.append(f"--seconds: found {self.seconds:g}, allowed at least 0")
        if with_shared and not self.is_copy:
            problems.append(
                "--with-shared: found with another format or precision, --prune, --ensemble, "
                "--flip or --crops, allowed with --format safetensors --precision fp32 (it belongs "
                "to the weights as trained)"
            )
        if neighbours is not None and not self.is_copy:
            problems.append(
                "--with-neighbours: found with another format or precision, --prune, --ensemble, "
                "--flip or --crops, allowed with --format safetensors --precision fp32 (features "
                "need the network as trained)"
            )
        if neighbours is not None and neighbours < 1:
            problems.append(f"--neighbours-per-class: found {neighbours}, allowed at least 1")
        problems += self._without_effect()
        if problems:
            raise UserError("\n".join(problems))

    def _without_effect(self) -> list[str]:
        """Lists options of a training or rounding that would not take place."""
        plain, rounded = Options(), self.precision == "int8"
        rows = (
            ("--max-loss", self.max_loss, plain.max_loss, rounded, "--precision int8"),
            ("--calibration", self.calibration, plain.calibration, rounded, "--precision int8"),
            (
                "--epochs",
                self.epochs,
                plain.epochs,
                rounded or self.prune > 0,
                "--precision int8 or --prune",
            ),
        )
        return [
            f"{name}: found {value:g} without {needed}, which alone uses it"
            for name, value, usual, used, needed in rows
            # 0 asks for nothing; less is refused above.
            if not used and value != usual and value > 0
        ]

    def require(self) -> None:
        """Checks that the needed packages are installed, before any work is done.

        Raises:
            UserError: With the command that installs what is missing.
        """
        if self.format == "onnx":
            require("--format onnx", "onnx", "onnxscript", "onnxruntime")
        elif self.format == "openvino":
            require("--format openvino", "openvino")
        elif self.format == "torch-export" and self.precision == "int8":
            require("--format torch-export --precision int8", "torchao")
        if self.prune:
            require("--prune", "torch_pruning")
