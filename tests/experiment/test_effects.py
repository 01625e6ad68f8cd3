"""Searched parameters that no trial needs are named, and only those."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.experiment.needs import NEEDS, is_idle
from gsfl_tune.experiment.reference import CONDITIONS
from gsfl_tune.plugins import ADDED_SECTIONS

SPACES = Path(__file__).parents[2] / "search_spaces"
TEXT = """name: t
data:
  source: typefaces
  views: {views}
  augment: {{scale: {{choice: [0.4, 0.7]}}}}
model:
  head: {head}
  pooling: {pooling}
  pooling_dim: {{choice: [512, 1024]}}
  groups:
    method: {method}
    count: {{int: [1, 9]}}
loss:
  center_rate: {{float: [0.1, 0.5]}}
training:
  head: {{epochs: {head_epochs}, momentum: {{float: [0, 0.9]}}, optimizer: {optimizer}}}
  finetune: {{epochs: {epochs}, learning_rate: {{float: [1e-4, 1e-2]}}}}
search: {{time_budget: {budget}}}
"""
USED = {
    "views": "0",
    "head": "gsfl",
    "pooling": "compact_bilinear",
    "method": "kmeans",
    "head_epochs": "3",
    "optimizer": "sgd",
    "epochs": "1",
    "budget": "null",
}
AUGMENT = "data.augment.scale"
FINETUNE = "training.finetune.learning_rate"
GROUPS = {"model.groups.count", "loss.center_rate"}


def idle(**settings: str) -> dict[str, str]:
    text = TEXT.format(**{**USED, **settings})
    return {each.path: str(each) for each in Experiment.parse(text, file="t.yaml").warnings}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, set()),
        ({"epochs": "0"}, {AUGMENT, FINETUNE}),
        ({"epochs": "0", "views": "2"}, {FINETUNE}),
        ({"epochs": "{choice: [0, 4]}"}, set()),
        ({"epochs": "auto"}, set()),
        ({"epochs": "auto", "budget": "1h"}, set()),
        ({"head": "plain"}, GROUPS),
        ({"head": "{choice: [plain, gsfl]}"}, set()),
        ({"method": "single"}, {"model.groups.count"}),
        ({"pooling": "average"}, {"model.pooling_dim"}),
        ({"pooling": "bilinear"}, {"model.pooling_dim"}),
        ({"optimizer": "adamw"}, {"training.head.momentum"}),
        ({"optimizer": "{choice: [adamw, sgd]}"}, set()),
        ({"head_epochs": "0"}, {"training.head.momentum"}),
    ],
)
def test_what_no_trial_needs_is_named(settings, expected):
    assert idle(**settings).keys() == expected


@pytest.mark.parametrize(
    ("method", "named"), [("single", True), ("rdrop", False), ("{choice: [single, rdrop]}", False)]
)
def test_settings_of_a_method_need_the_method(method, named):
    text = (
        "name: t\ndata: {source: typefaces}\n"
        f"training: {{method: {method}, rdrop: {{weight: {{float: [0, 2]}}}}}}\n"
    )
    found = [each.path for each in Experiment.parse(text).warnings]
    assert found == (["training.rdrop.weight"] if named else [])


def test_a_budget_may_give_epochs_that_the_file_leaves_out():
    text = TEXT.format(**{**USED, "budget": "1h"}).replace("epochs: 1, ", "")
    assert Experiment.parse(text).warnings == []
    text = TEXT.format(**USED).replace("epochs: 1, ", "")
    assert {each.path for each in Experiment.parse(text).warnings} == {AUGMENT, FINETUNE}


def test_the_message_has_the_line_and_what_is_missing():
    assert idle(epochs="0")[AUGMENT] == (
        "t.yaml:5: data.augment.scale: found choice of 0.4, 0.7, which has no effect: it needs "
        "training.finetune.epochs > 0 or data.views > 0, and training.finetune.epochs is 0, "
        "data.views is 0"
    )
    assert idle(head="plain", method="single")["model.groups.count"] == (
        "t.yaml:12: model.groups.count: found int 1 to 9, which has no effect: it needs model.head "
        "in gsfl, fsdg and model.groups.method in kmeans, spectral, agglomerative, random, and "
        "model.head is plain, model.groups.method is single"
    )


def test_alternatives_are_named_one_by_one():
    text = TEXT.format(**{**USED, "epochs": "0"}).replace(
        "learning_rate: {float: [1e-4, 1e-2]}",
        "learning_rate: [{float: [1e-4, 1e-2], when: {training.finetune.optimizer: adamw}},"
        " {float: [1e-2, 1], when: {training.finetune.optimizer: sgd}}],"
        " optimizer: {choice: [adamw, sgd]}",
    )
    found = {each.path for each in Experiment.parse(text).warnings}
    assert {f"{FINETUNE}@0", f"{FINETUNE}@1", "training.finetune.optimizer"} <= found


def test_in_a_configuration_values_without_effect_are_left_out():
    text = TEXT.format(**{**USED, "head": "{choice: [gsfl, linear]}", "epochs": "{choice: [0, 1]}"})
    text += "  # end\n"
    space = Experiment.parse(text.replace("loss:", "loss:\n  isda: {weight: {choice: [0, 1]}, "
                                          "strength: {float: [0.1, 1]}}")).space  # fmt: skip
    drawn = {each.name: each.distribution.default for each in space.parameters}
    always = {"model.head", "model.pooling_dim", "training.finetune.epochs",
              "training.head.momentum", "loss.isda.weight"}  # fmt: skip
    of_gsfl = {"model.groups.count", "loss.center_rate"}
    of_finetune = {AUGMENT, FINETUNE}

    def shown(**other: object) -> set[str]:
        return set(space.active_params(drawn | {k.replace("__", "."): v for k, v in other.items()}))

    assert shown() == always | of_gsfl
    assert shown(model__head="linear") == always
    assert shown(training__finetune__epochs=1) == always | of_gsfl | of_finetune
    assert shown(loss__isda__weight=1) == always | of_gsfl | {"loss.isda.strength"}


def test_the_name_of_a_mapping_is_shown_whatever_it_sets():
    space = Experiment.parse(
        "name: t\ndata: {source: typefaces}\ntraining: {finetune: {size: {choice: "
        "{none: {epochs: 0}, one: {epochs: 1}}}}}\n"
    ).space
    for name in ("none", "one"):
        assert space.active_params({"training.finetune.size": name}) == {
            "training.finetune.size": name
        }


def test_what_packages_add_may_always_have_an_effect():
    plain = {"model.head": "plain", "model.pooling": "of_a_package"}
    assert not is_idle("loss.terms.of_a_package", plain.__getitem__)
    assert not is_idle("model.gem_power", plain.__getitem__)
    assert is_idle("model.gem_power", {"model.pooling": "average"}.__getitem__)
    assert is_idle("loss.reconstruction", plain.__getitem__)


def test_what_the_reference_says_is_looked_for():
    searched = {path for path, leaf in leaves().items() if leaf.not_searched is None}
    said = {
        key
        for key in CONDITIONS
        if any(path == key or (key.endswith(".") and path.startswith(key)) for path in searched)
    }
    # Without plugins there is no loss term or transform to search.
    added = {f"{section}." for section in ADDED_SECTIONS}
    assert said - added == NEEDS.keys() - added


@pytest.mark.parametrize("file", sorted(SPACES.glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_files_search_nothing_idle(file, tmp_path):
    overrides = [] if "typefaces" in file.name else [f"data.path={tmp_path}"]
    if "unlabelled:" in file.read_text():
        overrides.append(f"data.unlabelled={tmp_path}")
    assert Experiment.load(file, overrides).warnings == []
