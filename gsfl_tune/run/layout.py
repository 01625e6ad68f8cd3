"""Where things lie in a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

StudyName = Literal["search", "control"]

JOURNAL_FILE = "study.journal"
LOCK_FILE = ".lock"
INTERRUPT_FILE = ".interrupt"

# In the directory of a training: of a trial or of a retrain.
EPOCHS_FILE = "epochs.jsonl"
CHECKPOINT_FILE = "checkpoint.pt"
# Of a retrain alone.
RESULT_FILE = "result.json"
TEST_FILE = "test.npz"
VALIDATION_FILE = "validation.npz"


class RunDirectory:
    """The directory that a search leaves: input, study, trials, best."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @property
    def experiment_file(self) -> Path:
        """The resolved experiment: overrides applied, distributions kept."""
        return self.path / "experiment.yaml"

    @property
    def starter_file(self) -> Path:
        """The experiment that ``gsfl-tune search PATH`` wrote for images, with its comments."""
        return self.path / "starter.yaml"

    @property
    def manifest_file(self) -> Path:
        """Format version, versions of the libraries, budget, digest of the data, seconds."""
        return self.path / "run.json"

    @property
    def plan_file(self) -> Path:
        """How a time budget is spent, where there is one."""
        return self.path / "plan.json"

    @property
    def data_file(self) -> Path:
        """Classes, counts, broken and duplicate images."""
        return self.path / "data.json"

    @property
    def journal(self) -> Path:
        """The Optuna journal of the studies."""
        return self.path / JOURNAL_FILE

    @property
    def trials_parquet(self) -> Path:
        """One row a trial, derived from the journal and the trials' files."""
        return self.path / "trials.parquet"

    @property
    def results_file(self) -> Path:
        """Winner, control and their difference, written once."""
        return self.path / "results.json"

    @property
    def evidence_file(self) -> Path:
        """What the winner shows on test images, see ``docs/evidence.md``."""
        return self.path / "evidence.json"

    @property
    def evidence(self) -> Path:
        """Pictures that `evidence_file` names."""
        return self.path / "evidence"

    @property
    def utilisation_file(self) -> Path:
        """How busy slots and GPUs were, see `gsfl_tune.run.utilisation`."""
        return self.path / "utilisation.json"

    @property
    def workers_file(self) -> Path:
        """What every worker did when, see `gsfl_tune.run.workers`."""
        return self.path / "workers.jsonl"

    @property
    def best(self) -> Path:
        """The bundle."""
        return self.path / "best"

    @property
    def best_simple(self) -> Path:
        """The bundle of the probe or the control, where one is better on validation."""
        return self.path / "best-simple"

    @property
    def best_training(self) -> Path:
        """What only the evidence needs of the winner: shared encoder, decoder, centres."""
        return self.path / "best-training"

    @property
    def finals(self) -> Path:
        """One directory a retrain of the protocol at the end."""
        return self.path / "finals"

    @property
    def lock_file(self) -> Path:
        """Held by the driver for as long as it runs."""
        return self.path / LOCK_FILE

    @property
    def interrupt_file(self) -> Path:
        """Present while running trials are asked to save and stop."""
        return self.path / INTERRUPT_FILE

    def trials(self, study: StudyName = "search") -> Path:
        """Parent of the trial directories of a study."""
        return self.path / "trials" if study == "search" else self.path / study / "trials"

    def trial(self, study: StudyName, number: int) -> Path:
        """Directory of one trial."""
        return self.trials(study) / str(number)
