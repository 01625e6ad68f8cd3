from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.study.first_trials import enqueue_first_trials, published_setting
from tests.search.experiments import experiment


def test_the_published_setting_in_these_units() -> None:
    setting = published_setting(8192)
    assert setting["loss.reconstruction"] == pytest.approx(1.2e-6, rel=0.02)
    assert setting["loss.class_center"] == pytest.approx(1.0e-3, rel=0.03)
    assert setting["loss.shared_center"] == setting["loss.class_center"]
    rest = ("latent_dim", "groups.count", "dropout", "feature_scale")
    assert [setting[f"model.{name}"] for name in rest] == [4096, 5, 0.5, 1.0]
    assert setting["loss.center_rate"] == 0.01


def test_first_come_the_users_own_then_defaults_then_the_published(run: RunDirectory) -> None:
    tried = experiment("search.enqueue=[{model.dropout: 0.9, model.latent_dim: 16}]")
    study = open_study(tried, run)
    notices = enqueue_first_trials(study, tried, 512)
    # Clipped into the space, with a notice.
    assert any("enqueue[0]" in line and "0.9" in line and "0.6" in line for line in notices)
    assert any("published" in line and "4096" in line and "32" in line for line in notices)
    enqueue_first_trials(study, tried, 512)
    asked = [study.ask() for _ in range(4)]
    assert [one.protected for one in asked if one] == [True, True, True, False]
    user, defaults, published = [one.params for one in asked[:3] if one]
    assert user["model.dropout"] == 0.6
    assert user["model.latent_dim"] == 16
    assert defaults == tried.default_params()
    assert published["model.latent_dim"] == 32
    assert published["model.groups.count"] == 4
    assert published["training.head.learning_rate"] == defaults["training.head.learning_rate"]


def test_a_resume_adds_what_the_user_added_and_repeats_nothing(run: RunDirectory) -> None:
    wanted = ["{model.latent_dim: 16}", "{model.latent_dim: 24}", "{model.latent_dim: 32}"]
    before = experiment(f"search.enqueue=[{wanted[0]}, {wanted[1]}]")
    study = open_study(before, run)
    enqueue_first_trials(study, before, 512)
    study.ask()
    # The second is moved to the front, the first dropped, and there is a new one.
    after = experiment(f"search.enqueue=[{wanted[1]}, {wanted[2]}]")
    study = open_study(after, run)
    enqueue_first_trials(study, after, 512)
    study.ask()
    enqueue_first_trials(study, after, 512)
    assert study.counts()["WAITING"] == 2
    asked = [study.ask() for _ in range(2)]
    assert all(one and one.protected for one in asked)
    # One of the user's is the defaults; the published setting was the last before.
    origins = [trial.user_attrs["origin"] for trial in study.trials()]
    assert origins == ["enqueue[0]", "enqueue[1]", "published", "enqueue[1]"]
    assert [study.trials()[i].params["model.latent_dim"] for i in (0, 1, 3)] == [16, 24, 32]


def test_equal_configurations_are_tried_once(run: RunDirectory) -> None:
    fixed = experiment().fixed(
        {"model.head": "plain", "model.latent_dim": 16, "model.dropout": 0.5}
    )
    study = open_study(fixed, run)
    # Nothing published is searched here: its setting is the defaults.
    assert enqueue_first_trials(study, fixed, 512) == []
    assert study.counts()["WAITING"] == 1


def test_configurations_that_differ_in_what_has_no_effect_are_tried_once(run: RunDirectory) -> None:
    # A linear head has neither groups nor an encoder, and the file has no condition for that.
    tried = experiment(
        "model.head={choice: [linear, gsfl]}",
        "model.groups.count={int: [2, 4]}",
        "search.enqueue=[{model.groups.count: 2}, {model.head: gsfl, model.groups.count: 2}]",
    )
    study = open_study(tried, run)
    enqueue_first_trials(study, tried, 512)
    enqueue_first_trials(study, tried, 512)
    assert study.counts()["WAITING"] == 2  # neither the defaults nor the published setting
    asked = [study.ask() for _ in range(2)]
    assert [one.params["model.head"] for one in asked if one] == ["linear", "gsfl"]


def test_an_unknown_key_to_enqueue_is_the_users_error() -> None:
    with pytest.raises(UserError, match="latent_dims"):
        experiment("search.enqueue=[{model.latent_dims: 16}]")


def _wide() -> Experiment:
    return experiment("model.latent_dim={int: [64, 4096], log: true, default: 128}",
                      "search.trials=40")  # fmt: skip


def _price(config: Config) -> float:
    return config.model.latent_dim**2 / 128**2


def test_a_published_setting_that_is_too_dear_is_tried_smaller_with_its_ratios(
    run: RunDirectory,
) -> None:
    tried = _wide()
    study = open_study(tried, run)
    # A tenth of 40 trials is 4: twice the latent size of the defaults.
    notices = enqueue_first_trials(study, tried, 512, price=_price)
    [notice] = [line for line in notices if "would take" in line]
    assert "its ratios are tried at latent_dim 256" in notice
    published = next(t for t in study.trials() if t.user_attrs["origin"] == "published")
    assert published.system_attrs["fixed_params"]["model.latent_dim"] == 256
    # What it costs may look otherwise when the run is resumed: it is tried once.
    enqueue_first_trials(study, tried, 512, price=lambda config: 1.0)
    assert sum(t.user_attrs["origin"] == "published" for t in study.trials()) == 1


def test_a_published_setting_that_no_size_makes_cheap_is_left_out(run: RunDirectory) -> None:
    tried = _wide()
    study = open_study(tried, run)
    notices = enqueue_first_trials(study, tried, 512, price=lambda config: 50.0, budget=100.0)
    assert any("50%" in line and "left out" in line for line in notices)
    assert [t.user_attrs["origin"] for t in study.trials()] == ["defaults"]


def test_ratios_of_the_published_terms_do_not_depend_on_the_size() -> None:
    large, small = published_setting(1280), published_setting(1280, 256)
    for term in ("loss.class_center", "loss.shared_center"):
        assert small[term] * 256 == pytest.approx(large[term] * 4096)
