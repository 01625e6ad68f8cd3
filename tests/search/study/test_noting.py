"""What a study keeps of a trial beside its objective."""

from __future__ import annotations

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.study.goals import knn_by_epoch
from tests.search.experiments import experiment


def test_what_is_noted_first_stays_and_a_later_driver_reads_it(run: RunDirectory) -> None:
    tried = experiment("search.sampler.name=random")
    study = open_study(tried, run)
    number = study.ask().number
    study.note_pretraining(number, 25, 0.5)
    study.note_pretraining(number, 50, 0.75)
    # A trial that is run again measures the same; what the journal has counts.
    study.note_pretraining(number, 25, 0.1)
    study.close()
    again = open_study(tried, run)
    assert knn_by_epoch(again.trial(number)) == {25: 0.5, 50: 0.75}
