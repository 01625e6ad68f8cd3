"""TensorBoard events of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class EventWriter:
    """Scalars of every epoch, and the searched parameters with the objective at the end.

    Args:
        directory: Directory of the trial; the event file goes there.
        params: Searched parameters.
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
        self._writer: Any = None

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Adds the numbers of an epoch's record."""
        if self._writer is None:
            # Takes half a second the first time: not before there is something to write.
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(
                logdir=str(self._directory),
                purge_step=self._start + 1 if self._start else None,
                flush_secs=30,
                write_to_disk=True,
            )
        for key, value in record.items():
            if isinstance(value, int | float) and key != "epoch":
                self._writer.add_scalar(key, value, record["epoch"])

    def close(self, value: float | None = None) -> None:
        """Ends the file; with the trial's last value, its parameters go into the hparams view."""
        if self._writer is None:
            return
        if value is not None:
            from tensorboardX.summary import hparams

            known = {
                key: item if isinstance(item, bool | int | float | str) else str(item)
                for key, item in self._params.items()
            }
            for summary in hparams(known, {f"final/{self._metric}": value}):
                self._writer.file_writer.add_summary(summary)
            self._writer.add_scalar(f"final/{self._metric}", value)
        self._writer.close()
        self._writer = None
