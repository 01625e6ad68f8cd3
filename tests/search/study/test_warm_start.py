from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study, plain_space
from gsfl_tune.search.study.first_trials import enqueue_first_trials
from gsfl_tune.search.study.warm_start import count_of, earlier_trials
from tests.search.experiments import experiment

# nll of an earlier run: the best are 3, 1 and 5.
VALUES = {0: 2.0, 1: 0.5, 2: 1.9, 3: 0.1, 4: 1.5, 5: 0.6, 6: 1.7, 7: 1.8, 8: 3.0, 9: 2.5, 10: 2.6,
          11: 2.7}  # fmt: skip
SETTINGS: dict[int, dict[str, Any]] = {
    number: {"model.head": "plain", "model.latent_dim": 8, "model.dropout": 0.0,
             "training.head.learning_rate": 1e-4 * (number + 1)}
    for number in VALUES
} | {
    # Nearly the best one again, and a good one that is far from it.
    1: {"model.head": "gsfl", "model.latent_dim": 32, "model.dropout": 0.0,
        "model.groups.count": 4, "training.head.learning_rate": 0.08},
    3: {"model.head": "gsfl", "model.latent_dim": 32, "model.dropout": 0.0,
        "model.groups.count": 4, "training.head.learning_rate": 0.09},
    5: {"model.head": "plain", "model.latent_dim": 8, "model.dropout": 0.6,
        "training.head.learning_rate": 1e-3},
}  # fmt: skip


def earlier(path: Path, *overrides: str, numbers: Iterable[int] = VALUES) -> str:
    """A run of another search, whose trials ended with known values."""
    run, made = RunDirectory(path), experiment(*overrides)
    run.path.mkdir()
    run.experiment_file.write_text(made.to_yaml(), encoding="utf-8")
    study = open_study(made, run)
    for number in numbers:
        study.enqueue(made.space.clip(SETTINGS[number])[0], "test")
        asked = study.ask()
        assert asked is not None
        study.complete(asked.number, VALUES[number], 0)
    study.close()
    return str(path)


def _new(*runs: str, more: tuple[str, ...] = ()) -> Experiment:
    return experiment(f"search.warm_start=[{', '.join(runs)}]", "search.trials=30", *more)


def test_the_best_of_a_run_comes_first_then_a_good_one_that_differs(tmp_path: Path) -> None:
    found = earlier_trials(_new(earlier(tmp_path / "a")), [str(tmp_path / "a")])
    # A quarter of twelve trials is good: 3, 1 and 5. Trial 1 tells what 3 tells.
    assert [each.number for each in found] == [3, 5, 1]
    assert found[0].params["training.head.learning_rate"] == 0.09
    assert [count_of(trials) for trials in (1, 20, 1000)] == [1, 2, 4]
    # With a time budget `search.trials` is a limit that is not reached: the plan says how many.
    limited = _new(str(tmp_path / "a"), more=("search.trials=300",))
    found = earlier_trials(limited, [str(tmp_path / "a")], trials=20)
    assert [each.number for each in found] == [3, 5]


def test_what_was_drawn_and_not_active_is_no_experience(tmp_path: Path) -> None:
    run, made = RunDirectory(tmp_path / "a"), experiment("search.sampler.name=random")
    run.path.mkdir()
    run.experiment_file.write_text(made.to_yaml(), encoding="utf-8")
    study = open_study(made, run)
    # As samplers of a fixed space draw: a plain head has no groups, and the file says so.
    study.recreate({**SETTINGS[5], "model.groups.count": 4})
    study.complete(0, 0.5, 0)
    study.close()
    groups = "model.groups.count={int: [2, 40], default: 20}"
    found = earlier_trials(_new(str(run.path), more=(groups,)), [str(run.path)])
    assert found[0].params["model.head"] == "plain"
    assert found[0].params["model.groups.count"] == 20


def test_runs_take_turns_and_equal_configurations_come_once(tmp_path: Path) -> None:
    one, other = earlier(tmp_path / "a"), earlier(tmp_path / "b", "data.typefaces.train=7")
    found = earlier_trials(_new(one, other), [one, other])
    assert [(Path(each.run).name, each.number) for each in found[:2]] == [("a", 3), ("b", 5)]
    assert len({str(each.params) for each in found}) == len(found) == 3


def test_a_run_that_has_no_more_leaves_its_turns_to_the_others(tmp_path: Path) -> None:
    one, other = earlier(tmp_path / "a", numbers=[8]), earlier(tmp_path / "b")
    found = earlier_trials(_new(one, other), [one, other])
    assert [(Path(each.run).name, each.number) for each in found] == [("a", 0), ("b", 3), ("b", 5)]


def test_each_study_learns_from_its_own(tmp_path: Path) -> None:
    tuned, matched = earlier(tmp_path / "a", "search.control=tuned"), earlier(tmp_path / "b")
    made = experiment("search.control=tuned")
    study = open_study(plain_space(made), RunDirectory(tmp_path / "a"), "control")
    study.enqueue({"model.latent_dim": 16}, "test")
    asked = study.ask()
    assert asked is not None
    study.complete(asked.number, 0.01, 0)
    study.close()
    assert earlier_trials(_new(tuned), [tuned])[0].number == 3
    [own] = earlier_trials(plain_space(_new(tuned)), [tuned], "control")
    assert (own.number, own.params["model.latent_dim"]) == (0, 16)
    # A run whose control has no search of its own has only its search to tell of.
    assert earlier_trials(plain_space(_new(matched)), [matched], "control")[0].number == 3


def test_they_are_tried_after_the_users_own_and_never_stopped(
    tmp_path: Path, run: RunDirectory
) -> None:
    new = _new(earlier(tmp_path / "a"), more=("search.enqueue=[{model.latent_dim: 16}]",))
    study = open_study(new, run)
    enqueue_first_trials(study, new)
    enqueue_first_trials(study, new)
    asked = [study.ask() for _ in range(5)]
    assert [one.protected for one in asked if one] == [True] * 5
    origins = [trial.user_attrs["origin"] for trial in study.trials()]
    assert origins == [
        "enqueue[0]", "warm_start a#3", "warm_start a#5", "warm_start a#1", "defaults"
    ]  # fmt: skip


def test_what_the_new_space_lacks_is_told(tmp_path: Path, run: RunDirectory) -> None:
    narrow = ("training.head.learning_rate={float: [1.0e-4, 0.02], log: true}",)
    new = _new(earlier(tmp_path / "a"), more=narrow)
    study = open_study(new, run)
    notices = enqueue_first_trials(study, new)
    line = next(line for line in notices if line.startswith("warm_start a#3"))
    assert "0.09" in line
    assert "0.02 is used" in line


def test_a_resume_needs_no_earlier_run_and_takes_new_ones(
    tmp_path: Path, run: RunDirectory
) -> None:
    one = earlier(tmp_path / "a")
    study = open_study(_new(one), run)
    enqueue_first_trials(study, _new(one))
    Path(one, "study.journal").unlink()
    study = open_study(_new(one), run)
    enqueue_first_trials(study, _new(one))
    other = earlier(tmp_path / "b", "model.backbone=resnet10t", "search.seed=9")
    enqueue_first_trials(study, _new(one, other, more=("search.trials=50",)))
    origins = [trial.user_attrs["origin"] for trial in study.trials()]
    # Those of the other run that are there already are not repeated.
    assert origins == ["warm_start a#3", "warm_start a#5", "warm_start a#1", "defaults"]


@pytest.mark.parametrize(
    ("times", "budget", "share"),
    [
        (100, 30, "333%"),
        # The other takes a quarter of a short search, as the defaults do.
        (3, 4, "75%"),
    ],
)
def test_a_dear_one_is_left_out_with_its_price(
    tmp_path: Path, run: RunDirectory, times: float, budget: float, share: str
) -> None:
    new = _new(earlier(tmp_path / "a"))
    study = open_study(new, run)
    notices = enqueue_first_trials(
        study,
        new,
        price=lambda config: times if config.model.latent_dim == 32 else 1.0,
        budget=budget,
    )
    assert any(f"warm_start a#3: it would take {share} of the search" in line for line in notices)
    origins = [trial.user_attrs["origin"] for trial in study.trials()]
    assert origins == ["warm_start a#5", "defaults"]


def test_start_up_draws_lie_near_them_and_near_the_defaults(
    tmp_path: Path, run: RunDirectory
) -> None:
    def far_of(new: Experiment, where: RunDirectory) -> int:
        """Of 40 trials: those whose rate is nearer to 9e-2 than to the defaults' 3e-3."""
        study = open_study(new, where)
        enqueue_first_trials(study, new)
        asked = [each for each in (study.ask() for _ in range(40)) if each is not None]
        study.close()
        rates = [each.params["training.head.learning_rate"] for each in asked]
        return sum(rate > 0.02 for each, rate in zip(asked, rates, strict=True)
                   if not each.protected)  # fmt: skip

    rate = "{float: [1.0e-4, 0.1], log: true, default: 3.0e-3}"
    near = ("search.sampler.near_defaults=1", f"training.head.learning_rate={rate}")
    plain = far_of(_new(more=near), run)
    # Two of the three that come from the run have 8e-2 and 9e-2, on a range of 1e-4 to 1e-1.
    warm = far_of(_new(earlier(tmp_path / "a"), more=near), RunDirectory(tmp_path / "other"))
    assert warm >= plain + 5


@pytest.mark.parametrize("what", ["nothing", "no run", "no trial"])
def test_a_run_that_cannot_be_used_is_refused(tmp_path: Path, what: str) -> None:
    place = tmp_path / "earlier"
    if what == "nothing":
        with pytest.raises(UserError, match=r"search.warm_start.*earlier.*allowed run dir"):
            _new(str(place))
        return
    place.mkdir()
    if what == "no trial":
        RunDirectory(place).experiment_file.write_text(experiment().to_yaml(), encoding="utf-8")
    wanted = "allowed a run directory" if what == "no run" else "no trial that was trained"
    with pytest.raises(UserError, match=wanted):
        earlier_trials(_new(str(place)), [str(place)])
