"""The trainings of a trial, its replicates: one for each fold of the images and each seed.

The value of a trial is their mean, its error the standard error of the mean. Sources: Kohavi, "A
Study of Cross-Validation and Bootstrap for Accuracy Estimation and Model Selection", IJCAI 1995;
stopping between folds: Bergman et al., "Don't Waste Your Time: Early Stopping Cross-Validation",
AutoML 2024, arXiv 2405.03389.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from gsfl_tune.data.folds import Fold
    from gsfl_tune.experiment.search_config import SearchConfig

# User attribute of a trial: by rung, the numbers at the end of the training that ends there, the
# objective first.
REPLICATES = "replicates"
# Between the seeds of a trial. Retrains at the end take the seeds after the first one, and must
# not repeat a training that their configuration was chosen by.
_SEED_STEP = 1000


class Replicates(BaseModel):
    """Describes the trainings that a trial can have.

    Attributes:
        folds: Number of folds; None for the validation part of the split.
        repeats: Number of seeds; each has all folds, one after the other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folds: int | None = None
    repeats: int = 1

    @classmethod
    def of(cls, search: SearchConfig) -> Replicates:
        """Reads them from the section `search`."""
        return cls(folds=search.folds, repeats=search.repeats)

    @property
    def count(self) -> int:
        """Returns the most trainings of a trial."""
        return (self.folds or 1) * self.repeats

    def fold(self, number: int) -> Fold | None:
        """Returns the fold that training `number` (from 0) is validated on."""
        # Here, as it loads torch: the process that proposes trials reads this module too.
        from gsfl_tune.data.folds import Fold

        return None if self.folds is None else Fold(number % self.folds, self.folds)

    def seed(self, number: int, first: int) -> int:
        """Returns the seed of training `number` (from 0).

        Args:
            number: Number of the training.
            first: Seed of the configuration, which the first training has.
        """
        return first + _SEED_STEP * (number // (self.folds or 1))

    def last_rung(self, first: int) -> int:
        """Returns the rung at which a trial is complete: each further training adds one.

        Args:
            first: Rung at which the first training ends.
        """
        return first + self.count - 1


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of every number that all trainings have.

    Args:
        rows: Numbers of each training by key.
    """
    keys = [key for key in rows[0] if all(key in row for row in rows)]
    return {key: math.fsum(row[key] for row in rows) / len(rows) for key in keys}


def standard_error(values: Sequence[float]) -> float | None:
    """Returns the standard error of a mean, s / sqrt(n); None for a single value.

    Trainings of different folds share images, so the true error is somewhat larger (Bengio and
    Grandvalet, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation", JMLR 2004).
    """
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)


def rows_of(trial: Any) -> dict[int, dict[str, float]]:
    """Returns by rung the numbers at the end of each finished training of a trial.

    Empty where trials have one training.

    Args:
        trial: A trial of a study.
    """
    known = trial.user_attrs.get(REPLICATES, {})
    # With several objectives Optuna accepts no intermediate values.
    several = trial.user_attrs.get("rungs", {})
    reported = {*trial.intermediate_values, *map(int, several)}
    # A driver that was killed may have noted a training before its rung.
    return {k: dict(known[str(k)]) for k in sorted(map(int, known)) if k in reported}


def errors_of(trial: Any) -> dict[str, float | None]:
    """Returns the standard error of every number that is a mean over trainings, by key.

    Args:
        trial: A trial of a study.

    Returns:
        The objective first; empty where no training was noted. None with a single training.
    """
    rows = list(rows_of(trial).values())
    keys = means(rows) if rows else {}
    return {key: standard_error([row[key] for row in rows]) for key in keys}


def error_of(trial: Any) -> tuple[float | None, int] | None:
    """Returns the standard error of a trial's value and the number of its finished trainings.

    Args:
        trial: A trial of a study.

    Returns:
        None where no training was noted: trials have one, or it has not ended.
    """
    values = [next(iter(row.values())) for row in rows_of(trial).values()]
    return (standard_error(values), len(values)) if values else None


def error_text(trial: Any) -> str:
    """Returns what follows a trial's value for people, such as `` ± 0.0123 (4 replicates)``."""
    found = error_of(trial)
    if found is None:
        return ""
    error, count = found
    spread = f" ± {error:.4f}" if error and error >= 0.00005 else ""
    return f"{spread} ({count} replicate{'s' if count > 1 else ''})"
