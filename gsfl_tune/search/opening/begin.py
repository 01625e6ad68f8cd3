"""How a driver finds its run: new, to be continued, or begun by one that came to nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import BackboneError, WeightsError, create_backbone
from gsfl_tune.run import EpochLog, RunDirectory, StudyName
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search.costs.time_plan import TimePlan
from gsfl_tune.search.opening.change_space import change_space, changed_lines
from gsfl_tune.search.opening.planning import planned
from gsfl_tune.search.samplers.factory import create_sampler
from gsfl_tune.search.study.journal import open_journal, read_studies
from gsfl_tune.search.study.reconcile import refuse_changes
from gsfl_tune.training import Workspace, resolve_device
from gsfl_tune.training.cost import cost_problems, pretrained


@dataclass(frozen=True)
class Beginning:
    """What a driver goes on with.

    Attributes:
        experiment: The experiment, as an earlier driver planned it.
        plan: That plan; None where there is none.
        anew: Whether what is there came to nothing; see `clear`.
        before: The experiment that the run was begun with, if its space is to be changed.
    """

    experiment: Experiment
    plan: TimePlan | None
    anew: bool = False
    before: Experiment | None = None

    def prepare(
        self, run: RunDirectory, experiment: Experiment, notice: Callable[[str], None]
    ) -> None:
        """Makes what is there that of the experiment which is about to be searched.

        Args:
            run: The run directory; its lock is held.
            experiment: As it will be searched.
            notice: Told what a user should read.

        Raises:
            UserError: When the run's own experiment is not what its studies were begun with.
        """
        if self.anew:
            clear(run, notice)
        elif self.before is not None:
            change_space(run, self.before, experiment, notice)


def begin_or_go_on(
    experiment: Experiment,
    run: RunDirectory,
    data: str,
    *,
    resume: bool | None,
    changing: bool = False,
) -> Beginning:
    """Refuses to continue a run as another; one that has no trials yet is begun anew instead.

    Writes nothing.

    Args:
        experiment: The experiment, bounds clamped to the data.
        run: The run directory; its lock is held.
        data: Digest of the images and their split.
        resume: Whether there is to be a run; None: either will do.
        changing: Whether the space may be another one, see `change_space`.

    Raises:
        UserError: With one line per difference.
    """
    if resume is False and untried(run):
        return Beginning(experiment, None, anew=True)
    try:
        found = Beginning(*planned(experiment, run))
        Manifest(run).refuse_other_data(data)
        if changing and changed_lines(run, found.experiment):
            return replace(found, before=_begun_with(run, experiment))
        refuse_changes(run, found.experiment)
    except UserError:
        # To read the whole journal takes a while: not where nothing is to be refused.
        if not untried(run):
            raise
        return Beginning(experiment, None, anew=True)
    return found


def _begun_with(run: RunDirectory, experiment: Experiment) -> Experiment:
    """The experiment that a run was begun with, where its images are now."""
    data = experiment.defaults().data
    places = {"data.path": data.path, "data.root": data.root}
    moved = [f"{key}={json.dumps(place)}" for key, place in places.items() if place is not None]
    return Experiment.load(run.experiment_file, moved)


def check_run(run: RunDirectory, *, resume: bool | None) -> None:
    """Refuses to begin a run over another, and to continue what is not there.

    Args:
        run: The run directory.
        resume: Whether there is to be a run; None: either will do.

    Raises:
        UserError: With what to do instead.
    """
    if resume is not False or not untried(run):
        Manifest(run).check(resume=resume)


def untried(run: RunDirectory) -> bool:
    """Whether a run was begun and none of its trials has come to an epoch or an end."""
    if not run.manifest_file.exists() or run.results_file.exists():
        return False
    try:
        Manifest(run).check(resume=True)
        studies = read_studies(run.journal)
    except (UserError, ValueError, KeyError, OSError):
        # What cannot be read is not taken for nothing.
        return False
    return not any(_tried(run, name, trial) for name, trials in studies.items() for trial in trials)


def clear(run: RunDirectory, notice: Callable[[str], None]) -> None:
    """Takes away what a driver has written that came to no trial.

    The journal may have been published already, and is only ever added to: its studies are
    deleted as Optuna deletes them.
    """
    notice(f"{run.path}: a run was begun there and came to no trial; it is begun anew")
    if run.journal.exists():
        storage, backend = open_journal(run.journal)
        for study in storage.get_all_studies():
            optuna.delete_study(study_name=study.study_name, storage=storage)
        backend.close()
    names: tuple[StudyName, ...] = ("search", "control")
    for name in names:
        shutil.rmtree(run.trials(name), ignore_errors=True)
    for file in (run.plan_file, run.trials_parquet, run.workers_file, run.utilisation_file):
        file.unlink(missing_ok=True)
    run.manifest_file.unlink(missing_ok=True)


def refuse_what_fails_later(
    experiment: Experiment,
    workspace: Workspace,
    notice: Callable[[str], None],
    address: str | None,
) -> None:
    """Has everything fail now that would else fail once the run directory is written to.

    Args:
        experiment: The experiment, bounds clamped to the data.
        workspace: Its data.
        notice: Told what takes a while.
        address: Of a Ray cluster; default: ``RAY_ADDRESS``. Without one trials run on this machine:
            then it needs a GPU where they do, and the weights of all backbones; else only those of
            the defaults, whose features this process needs.

    Raises:
        UserError: For models that do not fit, weights or a GPU that cannot be had, or a sampler
            that cannot walk the space.
    """
    if problems := cost_problems(experiment):
        raise ExperimentError(problems)
    search = experiment.defaults().search
    create_sampler(
        search.sampler, experiment.space, search.seed, 0, several=bool(search.objectives)
    )
    own = experiment.defaults()
    workspace.backbone(own)
    if address or os.environ.get("RAY_ADDRESS"):
        return
    for device in experiment.values("training.device"):
        resolve_device(device)
    for backbone, weights in pretrained(experiment):
        if weights == "none" or (backbone, weights) == (own.model.backbone, own.model.weights):
            continue
        notice(f"looking for the weights of {backbone} ({weights})")
        try:
            create_backbone(backbone, weights)
        except WeightsError as error:
            raise UserError(f"model.weights: {error}") from error
        except BackboneError as error:
            raise UserError(f"model.backbone: {error}") from error


def _tried(run: RunDirectory, name: StudyName, trial: FrozenTrial) -> bool:
    if trial.state == TrialState.WAITING:
        return False
    if trial.state.is_finished() or trial.intermediate_values:
        return True
    path: Path = run.trial(name, trial.number) / EPOCHS_FILE
    return bool(EpochLog(path).read())
