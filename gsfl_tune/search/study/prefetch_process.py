"""The process that computes proposals ahead: ``python -m gsfl_tune.search.study.prefetch_process``.

It reads the study's journal and writes nothing. Each question is one line of JSON on standard
input, each answer one line on standard output. The process ends when standard input ends, which
also happens when the driver is killed. It imports Optuna and the search space, but neither torch
nor Ray.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TextIO

import optuna
from optuna.storages import JournalStorage

from gsfl_tune.search.samplers.spaces import unchecked
from gsfl_tune.search.study.journal import FollowedJournal
from gsfl_tune.search.study.proposals import Proposals


class Proposer:
    """Proposes the next trial of a study.

    Args:
        experiment: The experiment as YAML, its bounds clamped to the data.
        journal: File of the run's journal.
        study: Name of the study.
    """

    def __init__(self, experiment: str, journal: str, study: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        read = unchecked(experiment)
        search = read.defaults().search
        self._proposals = Proposals(search.sampler, read.space, search.seed)
        self._journal = FollowedJournal(Path(journal))
        self._storage = JournalStorage(self._journal)
        self._name = study
        self._study: optuna.Study | None = None

    def propose(self, number: int, until: int) -> dict[str, Any] | None:
        """Proposes parameters for trial `number` from the first `until` bytes of the journal.

        Returns:
            None when every configuration was tried.
        """
        self._journal.until = until
        if self._study is None:
            self._study = optuna.load_study(
                study_name=self._name,
                storage=self._storage,
                sampler=self._proposals.sampler(number),
            )
        found = self._proposals.new(self._study, number)
        return None if found is None else found.params


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answers questions until input ends; the first line describes the search."""
    proposer: Proposer | None = None
    for line in questions:
        question = json.loads(line)
        try:
            if proposer is None:
                proposer = Proposer(**question)
                continue
            answer = {"number": question["number"], "params": proposer.propose(**question)}
        except Exception as error:
            # Reported, not raised: the driver then proposes itself, and the user sees why.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
