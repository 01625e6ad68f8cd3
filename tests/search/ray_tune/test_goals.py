"""A real search with several objectives and a constraint, resumed in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import choose_finalists
from gsfl_tune.search.study.goals import others_by_rung
from gsfl_tune.search.study.pareto import front
from tests.search.experiments import experiment, searched

GOALS = (
    "model.head=plain",
    "model.backbone={choice: [resnet10t, resnet18]}",
    "search.metric=validation/accuracy",
    "search.objectives=[validation/accuracy, size_mb, validation/nll]",
    "search.constraints=[size_mb < 30]",
    "search.scheduler.by_objectives=true",
    "search.scheduler.reduction=2",
    "training.head.epochs=2",
    "search.trials=7",
)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_tests")
def test_objectives_and_constraints_go_through_ray_and_a_resume(
    run: RunDirectory, two_slots, cache_dir: Path
) -> None:
    made = experiment(*GOALS)
    options = {"resources": two_slots, "cache_dir": cache_dir, "feature_dim": 512}
    searched(made, run, trials=3, **options)
    study = searched(made, run, **options).study
    assert study.created() == 7
    large = [t for t in study.trials() if t.params["model.backbone"] == "resnet18"]
    assert large
    for trial in study.trials():
        rungs = others_by_rung(trial)
        assert rungs.keys() == study.rungs(trial).keys() != set()
        assert {each["size_mb"] for each in rungs.values()} == {rungs[0]["size_mb"]}
        assert (trial.constraints["size_mb < 30"] > 0) == (trial in large)
        if trial.state.name == "COMPLETE":
            assert trial.values[1:] == list(rungs[max(rungs)].values())
        elif trial in large:
            # Stopped at once: it cannot win.
            assert list(rungs) == [0]
    able = front(study.trials(), study.goals.directions)
    assert able
    assert not {t.number for t in able} & {t.number for t in large}
    assert choose_finalists(study, 9) == sorted(able, key=lambda t: (-t.values[0], t.number))
