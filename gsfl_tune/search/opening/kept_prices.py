"""What trainings have cost under earlier drivers, from the epochs that trials have logged."""

from __future__ import annotations

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.epochs import epochs_of_trial, measured_of
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.samplers.history import OUTSIDE
from gsfl_tune.search.samplers.spaces import plain_space
from gsfl_tune.search.study.journal import read_studies

# Newest trials of a study that are read: 50 of each kind of work count (`Costs`), and a space has
# a few kinds.
_MOST = 200


def recall_prices(experiment: Experiment, run: RunDirectory, costs: TrialCosts) -> None:
    """Prices trainings as the driver did that a resume follows.

    The plan alone would price them as they were timed before the first trial. Trials whose files
    are on other machines are left out.

    Args:
        experiment: The experiment, as it was planned.
        run: The run directory.
        costs: Receives what the epochs of trials took.
    """
    for name, trials in read_studies(run.journal).items():
        space = plain_space(experiment) if name == "control" else experiment
        for trial in trials[-_MOST:]:
            if OUTSIDE in trial.user_attrs:
                continue
            try:
                config = space.configure(trial.params)
                logs = [measured_of(log) for log in epochs_of_trial(run.trial(name, trial.number))]
            except (UserError, ValueError, KeyError, OSError):
                continue  # a write that was cut short, or a log of another version
            for log in logs:
                costs.recall(config, log)
