"""Values on steps are the decimals of the file, and conditions that nothing fulfils are named."""

from __future__ import annotations

import optuna
import pytest

from gsfl_tune.cli import main
from gsfl_tune.experiment import Experiment, Float

TEXT = """name: t
data: {source: typefaces}
model:
  dropout: {float: [0, 0.6], step: 0.1}
  feature_scale: {float: [1, 2]}
  latent_dim: {int: [64, 128], step: 64}
loss:
  class_center: {float: [0, 1], when: {model.dropout: %s}}
"""


@pytest.mark.parametrize("raw", [0.1 * 3, 0.3, 0.30000000000000004])
def test_a_step_is_the_decimal_that_the_file_says(raw: float) -> None:
    experiment = Experiment.parse(TEXT % "0.3")
    params = {"model.dropout": raw}
    assert "loss.class_center" in experiment.space.active(params)
    assert experiment.configure(params).model.dropout == 0.3
    assert Float(0, 0.6, step=0.1).clip(raw) == 0.3
    assert "loss.class_center" not in experiment.space.active({"model.dropout": 0.1 * 4})
    above = Experiment.parse(TEXT % "{gt: 0.3}")
    assert "loss.class_center" not in above.space.active(params)


def test_what_optuna_draws_fulfils_a_condition_on_a_step() -> None:
    experiment = Experiment.parse(TEXT % "0.3")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [experiment.space.suggest(study.ask()) for _ in range(60)]
    met = [params for params in drawn if "loss.class_center" in params]
    assert 0 < len(met) < len(drawn)
    assert {params["model.dropout"] for params in met} == {0.3}
    assert {params["model.dropout"] for params in drawn} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6}


@pytest.mark.parametrize(
    ("when", "wrong"),
    [
        (
            "{model.dropout: 0.35}",
            "found 0.35, which no value fulfils; model.dropout is float",
        ),
        ("{model.dropout: [0.3, 0.7]}", "found 0.7, which no value fulfils"),
        ("{model.dropout: {gt: 0.6}}", "found > 0.6, which no value fulfils"),
        ("{model.latent_dim: 100}", "model.latent_dim is int 64 to 128, step 64: it never takes"),
        ("{model.head: plain}", "model.head is gsfl: it never takes part"),
        ("{model.feature_scale: 1.5}", "which model.feature_scale (float 1 to 2) practically"),
        ("{model.dropout: 0.3}", None),
        ("{model.dropout: [0.3, 0.6]}", None),
        ("{model.feature_scale: {ge: 1.5}}", None),
        ("{model.latent_dim: 128}", None),
    ],
)
def test_a_condition_that_nothing_fulfils_is_named(when: str, wrong: str | None) -> None:
    text = TEXT.replace("{model.dropout: %s}", when)
    found = [str(each) for each in Experiment.parse(text, file="t.yaml").warnings]
    if wrong is None:
        assert found == []
        return
    (warning,) = found
    path = when.strip("{").partition(":")[0]
    assert warning.startswith(f"t.yaml:8: loss.class_center.when.{path}: found ")
    assert wrong in warning


def test_an_alternative_has_a_line_of_its_own() -> None:
    text = TEXT % "0.3" + (
        "training:\n  head:\n    learning_rate:\n"
        "    - {float: [0.1, 1], when: {training.head.optimizer: adamw}}\n"
        "    - {float: [0.1, 1], when: {training.head.optimizer: sgd}}\n"
    )
    (warning,) = Experiment.parse(text, file="t.yaml").warnings
    assert warning.line == 13
    assert warning.path == "training.head.learning_rate@1.when.training.head.optimizer"


def test_check_says_so(tmp_path, capsys) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(TEXT % "0.35" + "search: {trials: 4, control: matched}\n")
    arguments = ["check", str(file), "--set", "model.weights=none"]
    assert main(arguments) == 0
    assert f"Warning: {file}:8: loss.class_center.when" in capsys.readouterr().out
    file.write_text(TEXT % "0.3")
    assert main(arguments) == 0
    assert "Warning" not in capsys.readouterr().out
