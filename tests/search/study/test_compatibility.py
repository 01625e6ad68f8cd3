"""A study goes on only with the experiment that began it, or with what a resume may change."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.study.compatibility import CHANGEABLE, changeable, differences
from tests.search.experiments import experiment


def test_refuses_another_experiment_and_says_what_differs(run: RunDirectory) -> None:
    open_study(experiment(), run).ask()
    changed = experiment("model.latent_dim={int: [8, 64], step: 8}", "training.head.epochs=5")
    with pytest.raises(UserError) as error:
        open_study(changed, run)
    lines = str(error.value).splitlines()
    assert any("model.latent_dim" in line and "8 to 32" in line for line in lines)
    assert any("training.head.epochs: was 4, found 5" in line for line in lines)
    assert len(lines) == 4


def test_more_trials_and_other_resources_are_no_other_experiment(run: RunDirectory) -> None:
    open_study(experiment(), run).ask()
    more = experiment("search.trials=99", "search.resources.cpu=2", "search.final_seeds=1")
    assert open_study(more, run).created() == 1


def test_a_journal_of_another_format_is_refused(run: RunDirectory) -> None:
    open_study(experiment(), run)
    text = run.journal.read_text()
    assert '"format":1' in text
    run.journal.write_text(text.replace('"format":1', '"format":99'))
    with pytest.raises(UserError, match="99"):
        open_study(experiment(), run)


def test_what_may_change_is_there_and_includes_what_is_below_it() -> None:
    known = set(leaves())
    for path in CHANGEABLE:
        assert any(leaf == path or leaf.startswith(f"{path}.") for leaf in known), path
    assert changeable("search.resources")
    assert changeable("search.resources.cpu")
    # A name that only begins alike is another one.
    assert not changeable("search.trials_of_another")
    assert not changeable("search.seed")
    assert not changeable("search")


def test_every_difference_is_a_line_and_what_may_change_is_none() -> None:
    known = {"search.seed": "3", "search.trials": "8", "model.latent_dim": "8 to 32", "gone": "1"}
    found = {"search.seed": "4", "search.trials": "9", "model.latent_dim": "8 to 32"}
    assert differences(known, known) == []
    assert differences(known, found) == [
        "  gone: was 1, found nothing",
        "  search.seed: was 3, found 4",
    ]


def test_a_key_of_a_later_version_is_no_difference_while_it_has_its_default() -> None:
    default = str(leaves()["model.latent_dim"].default)
    known = {"search.seed": "3"}
    assert differences(known, known | {"model.latent_dim": default}) == []
    (line,) = differences(known, known | {"model.latent_dim": default + "0"})
    assert line == f"  model.latent_dim: was nothing, found {default}0"
    # Where the run knows the key, its default is a value like any other.
    assert differences(known | {"model.latent_dim": "8"}, known | {"model.latent_dim": default})
