"""The start of a driver: its run is new, to be resumed, or to be restarted for lack of trials."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.experiment import Experiment, ExperimentError, Problem
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.shard_checks import processes
from gsfl_tune.models import (
    BackboneError,
    WeightsError,
    create_backbone,
    has_batch_norms,
    pooling_class,
    weights_words,
)
from gsfl_tune.run import EpochLog, RunDirectory, StudyName
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search.costs.time_plan import TimePlan
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.opening.change_space import change_space, changed_lines
from gsfl_tune.search.opening.interrupted_change import begun_with, in_file, unnoticed_change
from gsfl_tune.search.opening.kept_plan import as_asked, planned
from gsfl_tune.search.opening.kept_prices import recall_prices
from gsfl_tune.search.samplers.factory import create_sampler
from gsfl_tune.search.study.journal import open_journal, read_studies
from gsfl_tune.search.study.reconcile import refuse_changes, search_attributes
from gsfl_tune.search.study.warm_start import earlier_trials
from gsfl_tune.training import Workspace, resolve_device
from gsfl_tune.training.fit_precision import refuse_unfit_precision
from gsfl_tune.training.pretrain import without_pretraining
from gsfl_tune.training.pretrain.refused import processes_problem
from gsfl_tune.training.pricing.cost import pretrained, teachers
from gsfl_tune.training.pricing.problems import cost_problems


@dataclass(frozen=True)
class Beginning:
    """Holds what a driver continues with.

    Attributes:
        experiment: The experiment, as an earlier driver planned it.
        plan: The plan of that driver, or None.
        anew: Whether the existing run has no trials and is begun again; see `clear`.
        before: The experiment of the run's trials, if its space is to be changed.
        changed: When a driver changed the space that was killed before it could go on; else None.
        counted: Whether the user limits the number of trials, besides their time.
    """

    experiment: Experiment
    plan: TimePlan | None
    anew: bool = False
    before: Experiment | None = None
    changed: float | None = None
    counted: bool = True

    @property
    def same_space(self) -> bool:
        """Returns whether the trials of the run are what its last driver worked on."""
        return self.before is None and self.changed is None

    def recall_prices(self, run: RunDirectory, costs: TrialCosts) -> None:
        """Prices trainings as the driver did that a resume follows, if any; before `prepare`.

        Args:
            run: The run directory.
            costs: Receives what the epochs of trials took.
        """
        if self.anew:
            return
        # Until `prepare` the trials of the journal are those of the space before.
        recall_prices(self.experiment if self.before is None else self.before, run, costs)

    def teachers(self, run: RunDirectory) -> list[Path]:
        """Lists the teachers that trials of the run may have learned from."""
        found = teachers(self.before or self.experiment)
        if not found or self.anew or not run.manifest_file.exists() or untried(run):
            return []
        return found

    def prepare(
        self, run: RunDirectory, experiment: Experiment, notice: Callable[[str], None]
    ) -> None:
        """Prepares an existing run for the experiment that is about to be searched.

        Args:
            run: The run directory; its lock is held.
            experiment: The experiment to search.
            notice: Receives messages for the user.

        Raises:
            UserError: When the run's own experiment differs from what its studies began with.
        """
        if self.anew:
            clear(run, notice)
        elif self.before is not None:
            change_space(run, self.before, experiment, notice)
            Manifest(run).space_changed()
        elif self.changed is not None:
            Manifest(run).space_changed(self.changed)


def begin_or_go_on(
    experiment: Experiment,
    run: RunDirectory,
    data: str,
    *,
    resume: bool | None,
    changing: bool = False,
) -> Beginning:
    """Refuses to continue a run with another experiment; a run without trials is begun again.

    Writes nothing.

    Args:
        experiment: The experiment, bounds clamped to the data.
        run: The run directory; its lock is held.
        data: Digest of the images and their split.
        resume: Whether a run must exist; None: it may exist or not.
        changing: Whether the space may differ, see `change_space`.

    Raises:
        UserError: With one line per difference.
    """
    anew = Beginning(experiment, None, anew=True, counted=_counted(experiment))
    if resume is False and untried(run):
        return anew
    try:
        asked = as_asked(experiment, run)
        attributes = search_attributes(run)
        found = Beginning(
            *planned(asked, run),
            changed=unnoticed_change(run, attributes),
            counted=_counted(asked),
        )
        Manifest(run).refuse_other_data(data)
        # Without a trial in the new space, the run's own file takes the change back.
        changing = changing or (found.changed is not None and in_file(run, found.experiment))
        if changing and changed_lines(run, found.experiment, attributes):
            return replace(found, before=begun_with(run, attributes))
        refuse_changes(run, found.experiment, attributes)
    except UserError:
        # What trials have done takes a second look at journal and logs, only before a refusal.
        if not untried(run):
            raise
        return anew
    return found


def _counted(experiment: Experiment) -> bool:
    return "search.trials" not in experiment.automatic


def check_run(run: RunDirectory, *, resume: bool | None) -> None:
    """Refuses to begin a run over an existing one, and to resume a run that does not exist.

    Args:
        run: The run directory.
        resume: Whether a run must exist; None: it may exist or not.

    Raises:
        UserError: With what to do instead.
    """
    if resume is not False or not untried(run):
        Manifest(run).check(resume=resume)


def untried(run: RunDirectory) -> bool:
    """Returns whether a run has begun but no trial has reached an epoch or an end."""
    if not run.manifest_file.exists() or run.results_file.exists():
        return False
    try:
        Manifest(run).check(resume=True)
        studies = read_studies(run.journal)
    except (UserError, ValueError, KeyError, OSError):
        # An unreadable journal may hold trials.
        return False
    return not any(_tried(run, name, trial) for name, trials in studies.items() for trial in trials)


def clear(run: RunDirectory, notice: Callable[[str], None]) -> None:
    """Removes what a driver without any trials has written.

    The journal may already be published and is only ever appended to, so its studies are deleted
    with Optuna's own records.
    """
    notice(f"{run.path}: the run there has no trained epoch; it is begun anew")
    if run.journal.exists():
        storage, backend = open_journal(run.journal)
        for study in storage.get_all_studies():
            optuna.delete_study(study_name=study.study_name, storage=storage)
        backend.close()
    names: tuple[StudyName, ...] = ("search", "control")
    for name in names:
        shutil.rmtree(run.trials(name), ignore_errors=True)
    # Trackers take the new trials for other ones then: parameters there cannot be changed.
    shutil.rmtree(run.tensorboard, ignore_errors=True)
    for file in (
        *(run.plan_file, run.trials_parquet, run.workers_file, run.utilisation_file),
        run.tracking_file,
    ):
        file.unlink(missing_ok=True)
    run.manifest_file.unlink(missing_ok=True)


def refuse_what_fails_later(
    experiment: Experiment,
    workspace: Workspace,
    notice: Callable[[str], None],
    address: str | None,
    *,
    known_teachers: Collection[Path] = (),
) -> None:
    """Raises now every error that would otherwise occur after the run directory is written.

    Args:
        experiment: The experiment, bounds clamped to the data.
        workspace: Its data.
        notice: Receives a message before slow steps.
        address: Address of a Ray cluster; default: ``RAY_ADDRESS``. Without a cluster trials run
            on this machine, which then needs their GPU and the weights of all backbones. With a
            cluster only the default backbone's weights are needed, for this process's features.
        known_teachers: Teachers that trials have learned from, see `Beginning.teachers`: they are
            not refused any more.

    Raises:
        UserError: For models that do not fit, weights or a GPU that are missing, a sampler that
            cannot handle the space, or an earlier run without a finished trial.
    """
    if problems := cost_problems(experiment):
        raise ExperimentError(problems)
    if not (address or os.environ.get("RAY_ADDRESS")):
        refuse_unfit_precision(experiment)
    search = experiment.defaults().search
    further = (search.objectives or [])[1:]
    create_sampler(search.sampler, experiment.space, search.seed, 0, further=further)
    earlier_trials(experiment, search.warm_start)
    own = experiment.defaults()
    if (largest := max(experiment.values("loss.distill.weight"))) > 0:
        for path, fit in product(teachers(experiment), experiment.values("data.fit")):
            case = {"training.teacher": str(path), "loss.distill.weight": largest, "data.fit": fit}
            begun = path in known_teachers
            for line in workspace.teacher_notices(experiment.fixed(case).defaults(), begun=begun):
                notice(line)
    _refuse_pretraining(experiment, workspace)
    # A pretraining is the work of a trial.
    workspace.backbone(without_pretraining(own))
    if address or os.environ.get("RAY_ADDRESS"):
        return
    for device in experiment.values("training.device"):
        resolve_device(device)
    loaded = (
        own.model.extractor,
        own.model.extractor_weights,
        pooling_class(own.model.pooling).reads,
    )
    for backbone, weights, reads in pretrained(experiment):
        if weights == "none" or (backbone, weights, reads) == loaded:
            continue
        notice(f"looking for the weights of {backbone} ({weights_words(weights)})")
        try:
            create_backbone(backbone, weights, reads=reads)
        except WeightsError as error:
            raise UserError(f"model.weights: {error}") from error
        except BackboneError as error:
            raise UserError(f"model.backbone: {error}") from error


def _refuse_pretraining(experiment: Experiment, workspace: Workspace) -> None:
    """Refuses batches of a pretraining that its images or the processes of a trial do not allow."""
    if True not in experiment.values("training.pretrain"):
        return
    count, path = len(images_without_labels(workspace.dataset)), "pretrain.batch_size"
    if (largest := max(experiment.values(path))) > count:
        message = f"found {largest} for {count:,} images, allowed at most their number"
        raise ExperimentError([Problem(*experiment.locate(path, largest), path, message)])
    config = experiment.defaults()
    found: dict[str, Problem] = {}
    whole = config.search.resources
    names = ("pretrain.method", "pretrain.batch_size", "pretrain.norm_groups")
    for backbone, *chosen in product(*map(experiment.values, ("model.backbone", *names))):
        resources = whole.of(backbone) or whole
        # Where weights are divided, a process learns without labels alone.
        workers = 1 if resources.shard else processes(resources.model_dump())
        update = {name.partition(".")[2]: value for name, value in zip(names, chosen, strict=True)}
        own = config.pretrain.model_copy(update=update)
        if workers > 1:
            groups = own.groups if has_batch_norms(backbone) else 1
            if problem := processes_problem(own, workers, groups):
                path, message, value = problem
                place = experiment.locate(path, value)
                found.setdefault(path, Problem(*place, path, message))
    if found:
        raise ExperimentError(list(found.values()))


def _tried(run: RunDirectory, name: StudyName, trial: FrozenTrial) -> bool:
    if trial.state == TrialState.WAITING:
        return False
    if trial.state.is_finished() or trial.intermediate_values:
        return True
    path: Path = run.trial(name, trial.number) / EPOCHS_FILE
    return bool(EpochLog(path).read())
