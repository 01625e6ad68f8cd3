"""Numbers that are left to the search."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.json_schema import json_schema

TEXT = """\
name: birds
data: {source: typefaces}
training:
  head: {epochs: auto}
  finetune: {epochs: auto, blocks: 2}
"""


def test_auto_is_a_number_until_it_is_planned():
    experiment = Experiment.parse(TEXT)
    assert experiment.automatic == {"training.head.epochs", "training.finetune.epochs"}
    training = experiment.defaults().training
    assert (training.head.epochs, training.finetune.epochs) == (10, 8)
    assert experiment.values("training.finetune.epochs") == [8]


def test_with_a_time_budget_what_the_file_leaves_out_is_planned():
    experiment = Experiment.parse("name: a\ndata: {source: typefaces}\nsearch: {time_budget: 1h}")
    assert experiment.automatic == {
        "training.head.epochs",
        "training.finetune.epochs",
        "search.trials",
        "search.finalists",
        "search.final_seeds",
    }
    # Without a plan it is what it would be without a budget.
    assert experiment.defaults().training.finetune.epochs == 0


def test_what_the_file_gives_is_not_planned():
    experiment = Experiment.parse(
        "name: a\ndata: {source: typefaces}\n"
        "training: {head: {epochs: 3}, finetune: {epochs: {choice: [0, 4]}}}\n"
        "search: {time_budget: 1h, trials: 9, final_seeds: 2}"
    )
    assert experiment.automatic == {"search.finalists"}


def test_what_a_named_mapping_gives_is_not_planned():
    experiment = Experiment.parse(
        "name: a\ndata: {source: typefaces}\n"
        "training: {variant: {choice: {short: {head: {epochs: 3}}, long: {head: {epochs: 30}}}}}\n"
        "search: {time_budget: 1h}"
    )
    assert "training.head.epochs" not in experiment.automatic
    assert "training.finetune.epochs" in experiment.automatic


def test_a_plan_fixes_it_and_other_changes_keep_it():
    experiment = Experiment.parse(TEXT, overrides=["search.time_budget=1h"])
    kept = experiment.clamp("model.groups.count", 4).fixed({"model.dropout": 0.1})
    assert kept.automatic == experiment.automatic
    planned = kept.fixed({"training.finetune.epochs": 5, "search.trials": 70})
    assert planned.automatic == experiment.automatic - {"training.finetune.epochs", "search.trials"}
    assert planned.defaults().training.finetune.epochs == 5


def test_auto_elsewhere_is_an_error_and_the_message_says_where_it_may_be():
    with pytest.raises(ExperimentError, match=r"found 'auto', allowed an integer"):
        Experiment.parse(TEXT.replace("blocks: 2", "batch_size: auto"))
    with pytest.raises(ExperimentError, match=r"epochs: found 'all', allowed .* or auto"):
        Experiment.parse(TEXT.replace("head: {epochs: auto}", "head: {epochs: all}"))
    with pytest.raises(ExperimentError, match=r"auto"):
        Experiment.parse(TEXT.replace("head: {epochs: auto}", "head: {epochs: {choice: [auto]}}"))


def test_editors_accept_it():
    jsonschema.validate(yaml.safe_load(TEXT), json_schema())


def test_a_stage_that_the_time_decides_may_have_what_only_that_stage_uses():
    text = "name: a\ndata: {source: typefaces, eval_image_size: 256}\n"
    text += "search: {time_budget: 1h, resources: {gpus_per_trial: 2}}\n"
    assert "training.finetune.epochs" in Experiment.parse(text).automatic
    with pytest.raises(ExperimentError, match="without a finetune stage") as refused:
        Experiment.parse(text.replace("time_budget: 1h, ", ""))
    assert len(refused.value.problems) == 2


def test_a_head_without_a_finetune_stage_gets_more_epochs():
    def epochs(text):
        return Experiment.parse(text).defaults().training.head.epochs

    given = "name: a\ndata: {source: typefaces}\n"
    head = given + "training: {head: {epochs: auto}, finetune: {epochs: %s}}"
    assert [epochs(head % each) for each in (0, 8, "auto")] == [30, 10, 10]
    # Left out it is none, unless the time or a named mapping decides.
    alone = given + "training: {head: {epochs: auto}}\n"
    assert epochs(alone) == 30
    assert epochs(alone + "search: {time_budget: 1h}") == 10
    named = "variant: {choice: {a: {finetune: {epochs: 0}}, b: {finetune: {epochs: 4}}}}"
    assert epochs(alone.replace("}}", "}, " + named + "}")) == 10
    budget = "search: {time_budget: 10m}\ntraining: {finetune: {epochs: 0}}"
    assert Experiment.parse(given + budget).provisional().defaults().training.head.epochs == 30


@pytest.mark.parametrize(
    "finetune", ["", "finetune: {epochs: 0}", "finetune: {epochs: {choice: [0]}}"]
)
def test_without_a_budget_checks_price_the_epochs_that_are_trained(finetune):
    given = "name: a\ndata: {source: typefaces}\n"
    text = given + "training: {head: {epochs: auto}, " + finetune + "}"
    experiment = Experiment.parse(text)
    assert experiment.provisional().defaults() == experiment.defaults()
    # Also where a call from Python takes the finetune stage away.
    both = Experiment.parse(TEXT).fixed({"training.finetune.epochs": 0})
    assert both.provisional().defaults() == both.defaults()
