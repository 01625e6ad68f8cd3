"""Recovery of a run from the state in which an earlier driver left it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.plugins import left_out
from gsfl_tune.run import RunDirectory
from gsfl_tune.search.study.compatibility import changeable, check_signature
from gsfl_tune.search.study.journal import study_attributes
from gsfl_tune.search.study.study import Study


def study_signature(experiment: Experiment) -> dict[str, str]:
    """Returns what must not change while a study continues: dotted path to a description.

    Trials of the journal are comparable only while parameters and constants stay the same.
    Samplers rely on that too.
    """
    constants = flat(experiment.defaults().model_dump(mode="json"))
    # A newly installed package changes nothing while its terms are unused.
    constants = {path: value for path, value in constants.items() if not left_out(path, value)}
    if constants["search.objectives"] is None:
        # Runs from before the key existed do not have it.
        del constants["search.objectives"]
    found = {path: str(value) for path, value in constants.items()}
    for parameter in experiment.space.parameters:
        text = parameter.distribution.describe()
        if parameter.when:
            text += f" when {parameter.when}"
        found[parameter.path] = (
            text
            if parameter.name == parameter.path or parameter.name.endswith("@0")
            else f"{found[parameter.path]} | {text}"
        )
    return {path: text for path, text in found.items() if not changeable(path)}


def search_attributes(run: RunDirectory) -> dict[str, Any]:
    """Reads the attributes of a run's search; empty without one. It reads the whole journal."""
    return study_attributes(run.journal, "search") if run.journal.exists() else {}


def refuse_changes(
    run: RunDirectory, experiment: Experiment, attributes: Mapping[str, Any] | None = None
) -> None:
    """Refuses an experiment that did not begin this run; writes nothing.

    Args:
        run: The run.
        experiment: The experiment.
        attributes: Those of the run's search; default: they are read.

    Raises:
        UserError: With one line per difference.
    """
    found = search_attributes(run) if attributes is None else attributes
    known = found.get("fingerprint")
    if known is not None:
        check_signature("search", known, study_signature(experiment))


@dataclass(frozen=True)
class Reconciled:
    """Holds what an earlier driver left.

    Attributes:
        again: Running trials, to be handed out again under their numbers.
        settled: Trials whose end was decided but not yet recorded; it is recorded now.
    """

    again: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)


def reconcile(study: Study, last_rung: int) -> Reconciled:
    """Records decided trials as ended and lists the running ones; paused ones stay as they are.

    Args:
        study: The study, newly opened.
        last_rung: Rung at which a trial is complete.
    """
    result = Reconciled()
    for number in study.running():
        trial = study.trial(number)
        values = study.rungs(trial)
        if "reason" in trial.user_attrs:
            study.fail(number, trial.user_attrs["reason"])
        elif "ended" in trial.user_attrs:
            study.cut(number, trial.user_attrs["ended"])
        elif number in study.paused():
            continue
        elif last_rung in values and not study.goals.others:
            study.complete(number, values[last_rung])
        else:
            result.again.append(number)
            continue
        result.settled.append(number)
    return result


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Flattens a nested mapping to dotted paths."""
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= flat(item, f"{path}.{key}" if path else key)
    return found
