"""What a study keeps of a trial beside the objective at its rungs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gsfl_tune.search.study.goals import MEASURED_LATENCY, PRETRAINING
from gsfl_tune.search.study.reading import StudyReading
from gsfl_tune.search.workers.replicates import REPLICATES


class Noting(StudyReading):
    """Stores further numbers of trials in their user attributes."""

    def note_replicate(self, number: int, k: int, row: Mapping[str, float]) -> None:
        """Stores the numbers at the end of a training of a trial, in front of the rung itself.

        Args:
            number: Trial number.
            k: Rung at which the training ends.
            row: The numbers by key.
        """
        frozen = self.trial(number)
        known = dict(frozen.user_attrs.get(REPLICATES, {}))
        if not frozen.state.is_finished() and k not in self.rungs(frozen):
            self.note(number, REPLICATES, known | {str(k): dict(row)})

    def note_pretraining(self, number: int, epoch: int, accuracy: float) -> None:
        """Stores what a trial's pretraining was worth after an epoch, in front of the rung itself.

        Args:
            number: Trial number.
            epoch: Epoch of the pretraining.
            accuracy: Of the nearest neighbours.
        """
        frozen = self.trial(number)
        known = dict(frozen.user_attrs.get(PRETRAINING, {}))
        if not frozen.state.is_finished() and str(epoch) not in known:
            self.note(number, PRETRAINING, known | {str(epoch): float(accuracy)})

    def note_latency(self, number: int, latency: Mapping[str, Any]) -> None:
        """Stores a measured latency: trials that are stopped have one too where it is early.

        Args:
            number: Trial number.
            latency: Result of `measure_latency`.
        """
        frozen = self.trial(number)
        if not frozen.state.is_finished() and frozen.user_attrs.get(MEASURED_LATENCY) != latency:
            self.note(number, MEASURED_LATENCY, dict(latency))

    def note(self, number: int, key: str, value: Any) -> None:
        """Stores additional information on a trial."""
        raise NotImplementedError
