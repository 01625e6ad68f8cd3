"""TensorBoard events of a trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gsfl_tune.experiment.distributions import Categorical, is_number
from gsfl_tune.experiment.space import Space

HparamKind = Literal["flag", "number", "word"]

_PLUGIN = "hparams"
# Larger pictures show no more detail and make large files.
_LEAST_SIDE, _MOST_SIDE = 256, 768


class EventWriter:
    """Writes scalars of every epoch, the searched parameters, and a final confusion matrix.

    The list of parameters and metrics is written once for the whole run, see
    `gsfl_tune.search.observers.tracking.tensorboard`. TensorBoard uses the first such list that it
    finds, and a trial's list would lack the parameters that were not active in it.

    Args:
        directory: Directory of the trial; the event file goes there.
        params: Active parameters in the form that `hparams` gives.
        metric: The objective.
        epoch: Epochs that were trained before; later ones of an earlier process are hidden.
    """

    def __init__(
        self, directory: Path, params: Mapping[str, Any], metric: str, epoch: int = 0
    ) -> None:
        self._directory = directory
        self._params = dict(params)
        self._metric = metric
        self._start = epoch
        self._epoch = epoch
        self._writer: Any = None

    def epoch(self, record: Mapping[str, Any], wall_time: float | None = None) -> None:
        """Adds the numbers of an epoch's record; `wall_time` is when it ended, default now."""
        if self._writer is None:
            # The import takes half a second, so it waits until there is something to write.
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(
                logdir=str(self._directory),
                purge_step=self._start + 1 if self._start else None,
                flush_secs=30,
                write_to_disk=True,
                # tensorboardX names files by the second: a process that continues a trial in the
                # same second in which another began would overwrite its file.
                filename_suffix=f".{time.time_ns()}",
            )
            self._writer.file_writer.add_summary(_session_start(self._params))
        self._epoch = record["epoch"]
        for key, value in record.items():
            if isinstance(value, int | float) and key != "epoch":
                self._writer.add_scalar(key, value, self._epoch, walltime=wall_time)

    def confusion(
        self, predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray | None
    ) -> None:
        """Adds the confusion matrix of the last epoch as an image.

        Args:
            predicted: (N,) classes.
            labels: (N,) true classes.
            groups: (C,) group of every class, or None: classes in their own order.
        """
        if self._writer is not None:
            picture = confusion_picture(predicted, labels, groups)
            self._writer.add_image("validation/confusion", picture, self._epoch, dataformats="HWC")

    def again(self, event: Any) -> None:
        """Adds an event of another file."""
        if self._writer is not None:
            self._writer.file_writer.add_summary(event.summary, event.step, event.wall_time)

    def close(self, value: float | None = None, *, failed: bool = False) -> None:
        """Closes the file; with the trial's last value the trial has ended."""
        if self._writer is None:
            return
        if value is not None:
            self._writer.file_writer.add_summary(_session_end(failed=failed))
            self._writer.add_scalar(f"final/{self._metric}", value, self._epoch)
        self._writer.close()
        self._writer = None


def confusion_picture(
    predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Returns (side, side, 3) uint8: rows are true classes, dark cells are frequent confusions.

    Rows are shares of the class. With groups, classes are ordered by group, so that errors inside
    a group lie in squares along the diagonal.
    """
    count = int(max(predicted.max(), labels.max())) + 1
    count = max(count, len(groups) if groups is not None else 0)
    matrix = np.bincount(labels * count + predicted, minlength=count * count)
    matrix = matrix.reshape(count, count)
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        matrix = matrix[np.ix_(order, order)]
    return matrix_picture(matrix)


def matrix_picture(matrix: np.ndarray) -> np.ndarray:
    """Returns (side, side, 3) uint8 of a (C, C) matrix of counts, each row as shares of its sum."""
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    count = len(shares)
    if count > _MOST_SIDE:
        # Shows the largest share of a block: a mean would hide single confusions.
        size = -(-count // _MOST_SIDE)
        padded = np.zeros((-(-count // size) * size,) * 2)
        padded[:count, :count] = shares
        blocks = padded.reshape(len(padded) // size, size, -1, size)
        shares = blocks.max(axis=(1, 3))
    scale = max(1, _LEAST_SIDE // len(shares))
    shares = np.kron(np.sqrt(shares), np.ones((scale, scale)))[..., None]
    white, dark = np.array([255.0, 255.0, 255.0]), np.array([8.0, 48.0, 107.0])
    return np.rint(white + shares * (dark - white)).astype(np.uint8)


def hparam_kind(choices: Sequence[Any]) -> HparamKind:
    """Returns TensorBoard's type for the values of a choice; mixed ones are text.

    The table of parameters and every trial must agree, or rows cannot be filtered.
    """
    if all(isinstance(choice, bool) for choice in choices):
        return "flag"
    return "number" if all(is_number(choice) for choice in choices) else "word"


def hparams(space: Space, params: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Returns a trial's active parameters in the form that TensorBoard shows.

    Args:
        space: The search space.
        params: Values by parameter name, inactive ones too.
    """
    words = words_of(space)
    active = space.active_params(params)
    return {name: str(value) if name in words else value for name, value in active.items()}


def words_of(space: Space) -> set[str]:
    """Returns the names of choices whose values are shown as text in every trial."""
    draws = {parameter.name: parameter.distribution for parameter in space.parameters}
    return {
        name
        for name, draw in draws.items()
        if isinstance(draw, Categorical) and hparam_kind(draw.choices) == "word"
    }


def _session_start(params: Mapping[str, Any]) -> Any:
    from tensorboardX.proto.plugin_hparams_pb2 import SessionStartInfo

    info = SessionStartInfo()
    for key, value in params.items():
        if isinstance(value, bool):
            info.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[key].number_value = float(value)
        else:
            info.hparams[key].string_value = str(value)
    return hparams_summary("session_start_info", info)


def _session_end(*, failed: bool) -> Any:
    from tensorboardX.proto.api_pb2 import Status
    from tensorboardX.proto.plugin_hparams_pb2 import SessionEndInfo

    status = Status.Value("STATUS_FAILURE" if failed else "STATUS_SUCCESS")
    return hparams_summary("session_end_info", SessionEndInfo(status=status))


def hparams_summary(kind: str, content: Any) -> Any:
    """Makes a summary of TensorBoard's hparams plugin.

    Args:
        kind: ``experiment``, ``session_start_info`` or ``session_end_info``.
        content: The protocol buffer of that kind.
    """
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    data = HParamsPluginData(version=0, **{kind: content})
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(
            plugin_name=_PLUGIN, content=data.SerializeToString()
        )
    )
    return Summary(value=[Summary.Value(tag=f"_hparams_/{kind}", metadata=metadata)])
