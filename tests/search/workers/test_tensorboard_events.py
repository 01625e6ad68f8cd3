"""Event files of a trial that goes from process to process."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gsfl_tune.search.workers.tensorboard_events import EventWriter


def test_a_trial_taken_up_within_a_second_keeps_its_epochs(tmp_path: Path) -> None:
    # tensorboardX 2.6.5 names a file by host and second alone, and truncates what has that name.
    for epoch in range(20):
        writer = EventWriter(tmp_path, {"rate": 0.1}, "validation/nll", epoch)
        writer.epoch({"epoch": epoch + 1, "validation/nll": 1 / (epoch + 1)})
        writer.close()
    read = EventAccumulator(str(tmp_path)).Reload()
    points = read.Scalars("validation/nll")
    assert [point.step for point in points] == list(range(1, 21))
