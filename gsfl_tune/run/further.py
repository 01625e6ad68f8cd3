"""The metrics of the test images that have no column in the first table of results."""

from __future__ import annotations

from collections.abc import Mapping

from gsfl_tune.experiment.metrics import FURTHER_TITLES, METRIC_TITLES, VALIDATION, metric_of
from gsfl_tune.plugins import PluginError
from gsfl_tune.run.results import Outcome, Probe, Results, Score

Row = tuple[str, list[str]]


def further_rows(results: Results) -> tuple[list[str], list[Row]]:
    """Returns a table: one column per tested model, one row per further metric.

    Coverage and accuracy at the threshold of ``--threshold auto`` are those of the calibrated
    model: the threshold is chosen on validation images.

    Args:
        results: The results of a run; those of older versions have fewer metrics or none.

    Returns:
        The names of the models, and the title and cells of every row.
    """
    models: list[tuple[str, Outcome | Probe]] = [("winner", results.winner)]
    models += [("control", results.control)] if results.control else []
    models += [("linear probe", results.probe)] if results.probe else []
    scores = [_scores(model) for _, model in models]
    known = list(dict.fromkeys(name for each in scores for name in each))
    names = [name for name in FURTHER_TITLES if name in known]
    names += [name for name in known if name not in FURTHER_TITLES]
    rows = [
        (FURTHER_TITLES.get(name, name), [_cell(name, each.get(name)) for each in scores])
        for name in names
    ]
    return [name for name, _ in models], rows


def _scores(model: Outcome | Probe) -> dict[str, Score]:
    found: Mapping[str, Score] = model.test
    if model.calibration is not None:
        after = model.calibration.after
        found = {**found, **{name: s for name, s in after.items() if name.startswith("auto_")}}
    return {name: score for name, score in found.items() if name not in METRIC_TITLES}


def _cell(name: str, score: Score | None) -> str:
    if score is None:
        return "–"
    try:
        return metric_of(f"{VALIDATION}/{name}").text(score.mean)
    except PluginError:  # the package that added it is not installed here
        return f"{score.mean:.4g}"
