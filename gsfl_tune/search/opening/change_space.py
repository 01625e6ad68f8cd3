"""A change of a run's space: finds the trials that are also trials of the new space.

Optuna stores distributions with the trials of a study and refuses others of the same name.
Therefore the studies are written again into the same journal, with the same trial numbers. The old
studies are deleted with Optuna's own records, which are appended to the file and remove nothing.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.distributions import is_number, same
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.fields import MISSING, leaves, show
from gsfl_tune.plugins import left_out
from gsfl_tune.run import RunDirectory, StudyName
from gsfl_tune.search.opening.interrupted_change import SPACE
from gsfl_tune.search.opening.renumber_rungs import epochs_of_rungs, renumber, renumbered
from gsfl_tune.search.samplers.factory import draws_everything, fixed_params, whole_space
from gsfl_tune.search.samplers.history import OUTSIDE, TIME_OVER
from gsfl_tune.search.samplers.spaces import plain_space
from gsfl_tune.search.study.compatibility import changeable, differences
from gsfl_tune.search.study.goals import RECORDED
from gsfl_tune.search.study.journal import open_journal, read_studies
from gsfl_tune.search.study.reconcile import flat, search_attributes, study_signature

_VALUED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Fit:
    """Describes a trial in another space.

    Attributes:
        params: Its parameters there; outside of the space, those that exist.
        outside: Why it is outside of the other space, one reason per leaf; empty if it is inside.
        comparable: Whether its value is informative for the other space. It is not if a leaf
            differs that was the same in all trials.
    """

    params: dict[str, Any]
    outside: list[str] = field(default_factory=list)
    comparable: bool = True


def changed_lines(
    run: RunDirectory, experiment: Experiment, attributes: Mapping[str, Any] | None = None
) -> list[str]:
    """Lists what `change_space` would change, one line per leaf; empty if nothing changes.

    Args:
        run: The run.
        experiment: The new experiment, bounds clamped to the data.
        attributes: Those of the run's search; default: they are read.

    Raises:
        UserError: For a change of the search itself, which makes values incomparable.
    """
    known = (search_attributes(run) if attributes is None else attributes).get("fingerprint")
    if known is None:
        return []
    found = study_signature(experiment)
    lines = differences(known, found)
    paths = [line.strip().partition(":")[0] for line in lines]
    fixed = [line for line, path in zip(lines, paths, strict=True) if path.startswith("search.")]
    if fixed:
        raise UserError(
            "\n".join(
                [
                    "--change-space: found changes of the search itself; allowed are changes of "
                    "what a trial can be (data, model, loss, pretrain, training)",
                    *fixed,
                    "leave these as they were, or begin a new run",
                ]
            )
        )
    return lines


def change_space(
    run: RunDirectory, before: Experiment, after: Experiment, notice: Callable[[str], None]
) -> None:
    """Writes the studies of a run again as studies of another space.

    Trials that are configurations of the new space keep number, state and values, and their rungs
    at the same epochs, see `renumber`. The others end as FAIL with the reason; no scheduler or
    finalist counts them. Their old content is kept in their user attribute `OUTSIDE`: TPE learns
    from it, and a later change that includes them again restores it.

    The journal is replaced in one step: after a kill it is either the old or the new one.

    Args:
        run: The run; its lock is held.
        before: The experiment that began the run.
        after: The new experiment, bounds clamped to the data.
        notice: Receives what changed, and what became of the trials.

    Raises:
        UserError: When `before` is not what the studies were begun with.
    """
    attributes = search_attributes(run)
    lines = changed_lines(run, after, attributes)
    if differences(attributes["fingerprint"], study_signature(before)):
        raise UserError(
            f"{run.experiment_file}: this is not the experiment that the run was begun with; "
            "--change-space needs it to know what its trials were"
        )
    draft = run.journal_draft
    shutil.copyfile(run.journal, draft)
    said = [f"{run.path}: the space is changed", *lines]
    for name, trials in read_studies(run.journal).items():
        old, new = before, after
        if name == "control":
            old, new = plain_space(before), plain_space(after)
        fits = [fit(trial, old, new) for trial in trials]
        moved = [_moved(*each, old, new) for each in zip(trials, fits, strict=True)]
        _rewrite(draft, name, new, lines, moved)
        said.append(_summary(name, moved, fits, new))
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(draft, run.journal)
    notice("\n".join(said))


@dataclass(frozen=True)
class _Was:
    """Holds a trial as it was before it was ever outside."""

    leaves: dict[str, Any]
    params: dict[str, Any]
    state: TrialState
    values: list[float] | None
    rungs: dict[int, float]
    epochs: list[int]

    @classmethod
    def of(cls, trial: FrozenTrial, experiment: Experiment) -> _Was:
        """Reads what was kept of it, else takes the trial from its own experiment."""
        kept = trial.user_attrs.get(OUTSIDE)
        if kept is not None:
            found, state = kept["leaves"], TrialState[kept["state"]]
            rungs = {int(k): value for k, value in kept["rungs"].items()}
            # An earlier version did not keep them.
            epochs = kept.get("epochs") or epochs_of_rungs(experiment, found)
            return cls(found, kept["params"], state, kept["values"], rungs, epochs)
        waits = fixed_params(trial) if trial.state == TrialState.WAITING else None
        drawn = dict(trial.params if waits is None else waits)
        found = _leaves_of(experiment, drawn)
        rungs, epochs = dict(trial.intermediate_values), epochs_of_rungs(experiment, found)
        return cls(found, drawn, trial.state, trial.values, rungs, epochs)

    def to_json(
        self, found: Fit, drawn: Mapping[str, BaseDistribution], after: Experiment
    ) -> dict[str, Any]:
        """Returns the user attribute, with the trial's form, distributions and rungs in `after`."""
        comparable = found.comparable and self.state in _VALUED and bool(found.params)
        texts = {name: distribution_to_json(each) for name, each in drawn.items()}
        rungs = renumbered(self.rungs, self.epochs, epochs_of_rungs(after, self.leaves))
        history = {"params": found.params, "distributions": texts, "rungs": rungs}
        return {
            "leaves": self.leaves,
            "params": self.params,
            "state": self.state.name,
            "values": self.values,
            "rungs": {str(k): value for k, value in self.rungs.items()},
            "epochs": self.epochs,
            "history": history if comparable else None,
        }


def fit(trial: FrozenTrial, before: Experiment, after: Experiment) -> Fit:
    """Describes a trial of one space in another space.

    It is the same trial there if the other space has the same complete configuration. The choice
    of leaves that are parameters, and their distributions, do not matter.

    Args:
        trial: The trial.
        before: The experiment of the trial.
        after: The other experiment.
    """
    try:
        was = _Was.of(trial, before)
    except (UserError, ValueError) as error:
        return Fit({}, [" ".join(str(error).split())], comparable=False)
    taker = _Taker(was)
    params = after.space.suggest(taker)
    reasons = dict(taker.outside)
    if not reasons:
        try:
            now = _leaves_of(after, params)
        except (UserError, ValueError) as error:
            return Fit({}, [" ".join(str(error).split())], comparable=False)
        for path in sorted({*was.leaves, *now}):
            value, other = was.leaves.get(path, MISSING), now.get(path, MISSING)
            if not _same(value, other):
                reasons[path] = f"{path} is {_shown(value)}, allowed is {_shown(other)}"
    if reasons:
        kept = {name: value for name, value in params.items() if name not in taker.names}
        comparable = not any(_was_fixed(before, path) for path in reasons)
        return Fit(kept, list(reasons.values()), comparable)
    if draws_everything(after.defaults().search.sampler.name):
        whole = whole_space(after.space)
        for parameter in after.space.parameters:
            if parameter.name not in params:
                value = was.params.get(parameter.name, MISSING)
                fits = value is not MISSING and _contains(whole[parameter.name], value)
                params[parameter.name] = value if fits else parameter.distribution.default
    return Fit(params)


class _Taker:
    """Replaces an Optuna trial: returns the trial's old values, and records what does not fit.

    Attributes:
        outside: Reasons, by dotted path.
        names: Names of the parameters whose old value does not fit.
    """

    def __init__(self, was: _Was) -> None:
        self._was = was
        self.outside: dict[str, str] = {}
        self.names: set[str] = set()

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, CategoricalDistribution(choices), choices[0])

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return int(self._take(name, IntDistribution(low, high, log=log, step=step), low))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._take(name, FloatDistribution(low, high, log=log, step=step), low))

    def _take(self, name: str, wanted: BaseDistribution, instead: Any) -> Any:
        path = name.partition("@")[0]
        # The choice between named mappings is not a leaf: only its name identifies it.
        had = self._was.leaves if path in leaves() else self._was.params
        value = had.get(path if path in leaves() else name, MISSING)
        if value is not MISSING and _contains(wanted, value):
            return value
        self.outside[path] = f"{path} is {_shown(value)}, allowed is {_described(wanted)}"
        self.names.add(name)
        return instead


def _moved(trial: FrozenTrial, found: Fit, before: Experiment, after: Experiment) -> FrozenTrial:
    """Returns the trial in the form of the new study."""
    moved = copy.deepcopy(trial)
    whole = whole_space(after.space)
    # Internal data of samplers belongs to the old space. Constraints are about the trial alone.
    kept = {key: each for key, each in trial.system_attrs.items() if key.startswith(RECORDED)}
    moved.system_attrs = kept
    drawn = {name: whole[name] for name in found.params}
    if not found.outside:
        moved.params, moved.distributions = dict(found.params), drawn
        was = _Was.of(trial, before)
        if moved.user_attrs.pop(OUTSIDE, None) is not None:
            moved.user_attrs.pop("reason", None)
            if moved.user_attrs.pop("failed", None) is not None:
                moved.user_attrs["reason"] = trial.user_attrs["failed"]
            moved.state, moved.values = was.state, was.values
            moved.intermediate_values = was.rungs
        renumber(moved, was.epochs, epochs_of_rungs(after, was.leaves))
        if fixed_params(trial) is not None:
            moved.system_attrs["fixed_params"] = dict(found.params)
        if moved.state == TrialState.WAITING:
            moved.params, moved.distributions = {}, {}
            moved.datetime_start = moved.datetime_complete = None
        return moved
    if "reason" in moved.user_attrs and OUTSIDE not in moved.user_attrs:
        moved.user_attrs["failed"] = moved.user_attrs["reason"]
    moved.user_attrs["reason"] = f"outside the changed space: {'; '.join(found.outside)}"
    try:
        was = _Was.of(trial, before)
        moved.user_attrs[OUTSIDE] = was.to_json(found, drawn, after)
    except (UserError, ValueError):
        pass  # a refused combination has no result
    # It is not a trial of the new space, so its point must not count as tried.
    moved.params, moved.distributions = {}, {}
    moved.state, moved.values = TrialState.FAIL, None
    moved.intermediate_values = {}
    moved.datetime_start = moved.datetime_start or datetime.now()
    moved.datetime_complete = moved.datetime_complete or datetime.now()
    return moved


def _rewrite(
    journal: Path,
    name: StudyName,
    experiment: Experiment,
    lines: Sequence[str],
    trials: Sequence[FrozenTrial],
) -> None:
    """Replaces a study by one with other trials."""
    storage, backend = open_journal(journal)
    old = optuna.load_study(study_name=name, storage=storage)
    attributes, directions = dict(old.user_attrs), list(old.directions)
    change = {"time": time.time(), "trials": len(trials), "lines": list(lines)}
    attributes["fingerprint"] = study_signature(experiment)
    attributes.pop(TIME_OVER, None)  # that of the space before
    attributes["changes"] = [*attributes.get("changes", []), change]
    # In one step with the trials: what the run directory says of them comes later, if at all.
    attributes[SPACE] = experiment.to_yaml()
    optuna.delete_study(study_name=name, storage=storage)
    with backend.batch():
        new = storage.create_new_study(directions, study_name=name)
        for key, value in attributes.items():
            storage.set_study_user_attr(new, key, value)
        for trial in trials:
            storage.create_new_trial(new, template_trial=trial)
    backend.close()


def _summary(
    name: str, moved: Sequence[FrozenTrial], fits: Sequence[Fit], experiment: Experiment
) -> str:
    outside = [each for each in fits if each.outside]
    text = (
        f"{name}: {len(fits) - len(outside)} of {len(fits)} trials are trials of the new space "
        "and keep their states"
    )
    if not outside:
        return text
    text += f"; {len(outside)} are outside and no longer count"
    search = experiment.defaults().search
    if search.sampler.name == "tpe" and not search.objectives:
        learned = sum(bool((each.user_attrs.get(OUTSIDE) or {}).get("history")) for each in moved)
        text += f" (tpe learns from {learned} of them)"
    return text


def _leaves_of(experiment: Experiment, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a training by dotted path: every leaf outside `search`."""
    found = flat(experiment.configure(params).model_dump(mode="json"))
    return {
        path: value
        for path, value in found.items()
        if not path.startswith("search.")
        and not changeable(path)
        # A newly installed package changes nothing while its terms are unused.
        and not left_out(path, value)
    }


def _was_fixed(experiment: Experiment, path: str) -> bool:
    try:
        return len(experiment.values(path)) == 1
    except UserError:
        return False


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return any(_same(value, choice) for choice in distribution.choices)
    if not is_number(value):
        return False
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def _same(one: Any, other: Any) -> bool:
    if is_number(one) and is_number(other):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-15)
    return same(one, other)


def _shown(value: Any) -> str:
    return "nothing" if value is MISSING else show(value)


def _described(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(map(show, distribution.choices))
    return f"{show(distribution.low)} to {show(distribution.high)}"  # type: ignore[attr-defined]
