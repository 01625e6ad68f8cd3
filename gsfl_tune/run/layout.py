"""Paths in a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

StudyName = Literal["search", "control"]

JOURNAL_FILE = "study.journal"
# In the directory of a run, a training or a pretraining, if it has weights of the hub.
PINS_FILE = "hub-weights.json"
LOCK_FILE = ".lock"
INTERRUPT_FILE = ".interrupt"

# In the directory of a trial or a retrain.
EPOCHS_FILE = "epochs.jsonl"
CHECKPOINT_FILE = "checkpoint.pt"
# In the directory of a retrain only.
RESULT_FILE = "result.json"
TEST_FILE = "test.npz"
VALIDATION_FILE = "validation.npz"

_REPLICATE = "replicate-"


def replicate_directory(trial: Path, number: int) -> Path:
    """Returns the directory of a training of a trial; the first one has that of the trial.

    Args:
        trial: Directory of the trial.
        number: Number of the training, from 0.
    """
    return trial if number == 0 else trial / f"{_REPLICATE}{number + 1}"


def replicate_directories(trial: Path) -> list[Path]:
    """Returns the directories of the trainings of a trial, the first one's first."""
    further = {
        int(name): each
        for each in trial.glob(f"{_REPLICATE}*")
        if (name := each.name.removeprefix(_REPLICATE)).isdecimal()
    }
    return [trial, *(further[number] for number in sorted(further))]


class RunDirectory:
    """Names the paths of the directory of a search: input, study, trials, bundle."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @property
    def experiment_file(self) -> Path:
        """Returns the resolved experiment: overrides are applied, distributions kept."""
        return self.path / "experiment.yaml"

    @property
    def starter_file(self) -> Path:
        """Returns the commented experiment that ``gsfl-tune search PATH`` wrote for images."""
        return self.path / "starter.yaml"

    @property
    def manifest_file(self) -> Path:
        """Returns the manifest: format, library versions, budget, data digest, seconds."""
        return self.path / "run.json"

    @property
    def plan_file(self) -> Path:
        """Returns the plan of a time budget, if there is one."""
        return self.path / "plan.json"

    @property
    def data_file(self) -> Path:
        """Returns the data report: classes, counts, broken and duplicate images."""
        return self.path / "data.json"

    @property
    def journal(self) -> Path:
        """Returns the Optuna journal of the studies."""
        return self.path / JOURNAL_FILE

    @property
    def journal_draft(self) -> Path:
        """Returns the journal that takes the place of the present one once it is whole."""
        return self.path / f"{JOURNAL_FILE}.new"

    @property
    def trials_parquet(self) -> Path:
        """Returns the table of trials, made from the journal and the trials' files."""
        return self.path / "trials.parquet"

    @property
    def results_file(self) -> Path:
        """Returns the results: winner, control and their difference, written once."""
        return self.path / "results.json"

    @property
    def evidence_file(self) -> Path:
        """Returns the evidence about the winner on test images, see ``docs/evidence.md``."""
        return self.path / "evidence.json"

    @property
    def evidence(self) -> Path:
        """Returns the folder of the pictures that `evidence_file` names."""
        return self.path / "evidence"

    @property
    def utilisation_file(self) -> Path:
        """Returns the file of the use of slots and GPUs, see `gsfl_tune.run.utilisation`."""
        return self.path / "utilisation.json"

    @property
    def workers_file(self) -> Path:
        """Returns the log of what each worker did when, see `gsfl_tune.run.workers`."""
        return self.path / "workers.jsonl"

    @property
    def tracking_file(self) -> Path:
        """Returns the data on the run's trackers: its id there, and what they have received."""
        return self.path / "tracking.json"

    @property
    def tensorboard(self) -> Path:
        """Returns the folder of TensorBoard's files besides those of trials."""
        return self.path / "tensorboard"

    @property
    def best(self) -> Path:
        """Returns the bundle of the winner."""
        return self.path / "best"

    @property
    def best_simple(self) -> Path:
        """Returns the bundle of the probe or the control, written if it is better on validation."""
        return self.path / "best-simple"

    @property
    def best_training(self) -> Path:
        """Returns the winner's parts for the evidence only: shared encoder, decoder, centres."""
        return self.path / "best-training"

    @property
    def finals(self) -> Path:
        """Returns the parent of the directories of finalists' and final retrains."""
        return self.path / "finals"

    @property
    def lock_file(self) -> Path:
        """Returns the lock, held by the driver as long as it runs."""
        return self.path / LOCK_FILE

    @property
    def estimate_file(self) -> Path:
        """Returns the driver's estimate, see `gsfl_tune.run.running_estimate`."""
        return self.path / ".estimate.json"

    @property
    def interrupt_file(self) -> Path:
        """Returns the interrupt file; while it exists, running trials save and stop."""
        return self.path / INTERRUPT_FILE

    def trials(self, study: StudyName = "search") -> Path:
        """Returns the parent of the trial directories of a study."""
        return self.path / "trials" if study == "search" else self.path / study / "trials"

    def trial(self, study: StudyName, number: int) -> Path:
        """Returns the directory of a trial."""
        return self.trials(study) / str(number)
