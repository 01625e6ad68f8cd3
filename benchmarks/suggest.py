"""What a proposal costs, and how long a free worker waits for one: ours against plain Optuna.

All sides propose for the same space of 12 parameters after the same finished trials (a third
COMPLETE, two thirds PRUNED, as ASHA leaves them, four running), with the product's default, TPE of
each parameter alone with constant liar. Plain Optuna, with the same sampler, is timed as a user
asks it, `study.ask` and the suggestions, on a journal file and in memory. Ours is timed three
times: how long `Study.ask` takes when the next proposal has been computed ahead while the last
trial ran (what a free worker waits, journal written and synced to disk), how long it takes when the
driver has to ask itself, and the sampler's own time in the process that computes ahead. The sides
take turns.

Some five minutes on two cores; most of it is plain Optuna and the pauses in which a trial
would run.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import optuna
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from benchmarks._report import publish, table
from benchmarks._space import experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, open_study
from gsfl_tune.search.samplers.factory import whole_space
from gsfl_tune.search.study.prefetch_process import Proposer

RUNNING = 4


def history(count: int) -> list[FrozenTrial]:
    """Trials that a search would have left."""
    space = experiment().space
    whole = whole_space(space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    trials = []
    for number in range(count + RUNNING):
        params = space.suggest(study.ask())
        value = score(params) + float(rng.normal(0, 0.02))
        rungs = {0: value - 0.1, 1: value - 0.05, 2: value}
        if number >= count:
            state, value_of, rungs = TrialState.RUNNING, None, {}
        elif number % 3:
            rungs = dict(list(rungs.items())[: number % 3])
            state, value_of = TrialState.PRUNED, list(rungs.values())[-1]
        else:
            state, value_of = TrialState.COMPLETE, value
        trials.append(
            optuna.trial.create_trial(
                state=state,
                value=value_of,
                params=params,
                distributions={name: whole[name] for name in params},
                intermediate_values=rungs,
            )
        )
    return trials


def score(params: dict[str, Any]) -> float:
    """Something that a sampler can learn."""
    rate = np.log10(params["training.head.learning_rate"])
    return float(
        1 - (params["model.dropout"] - 0.3) ** 2 - 0.1 * (rate + 3) ** 2
        - abs(params["model.feature_scale"] - 12) / 64
    )  # fmt: skip


class Ours:
    """Our study, with or without a process that computes ahead."""

    def __init__(self, journal: Path, folder: Path, *, ahead: bool) -> None:
        run = RunDirectory(folder)
        run.path.mkdir()
        shutil.copy(journal, run.journal)
        self._study: Study = open_study(experiment(), run, ahead=ahead)

    def __call__(self) -> float:
        started = time.perf_counter()
        asked = self._study.ask()
        seconds = time.perf_counter() - started
        assert asked is not None
        self._study.complete(asked.number, score(asked.params), 2)
        return seconds

    def close(self) -> None:
        self._study.close()


class Plain:
    """A study as a user has it."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._space = experiment().space

    def __call__(self) -> float:
        started = time.perf_counter()
        trial = self._study.ask()
        params = self._space.suggest(trial)
        seconds = time.perf_counter() - started
        self._study.tell(trial, score(params))
        return seconds


class Sampler:
    """The sampler's own time, as in the process that computes ahead."""

    def __init__(self, journal: Path, number: int) -> None:
        self._journal = journal
        self._number = number
        self._proposer = Proposer(experiment().to_yaml(), str(journal), "search")

    def __call__(self) -> float:
        started = time.perf_counter()
        self._proposer.propose(self._number, self._journal.stat().st_size)
        self._number += 1
        return time.perf_counter() - started


def tpe(seed: int) -> optuna.samplers.TPESampler:
    return optuna.samplers.TPESampler(multivariate=False, constant_liar=True, seed=seed)


def sides(count: int, folder: Path) -> dict[str, Callable[[], float]]:
    """What is timed, by name."""
    trials = history(count)
    run = RunDirectory(folder / "history")
    open_study(experiment(), run)
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    optuna.load_study(study_name="search", storage=storage).add_trials(trials)
    shutil.copy(run.journal, folder / "plain.journal")
    on_file = optuna.load_study(
        study_name="search",
        storage=JournalStorage(JournalFileBackend(str(folder / "plain.journal"))),
        sampler=tpe(1),
    )
    in_memory = optuna.create_study(
        storage=InMemoryStorage(), direction=on_file.direction, sampler=tpe(1)
    )
    in_memory.add_trials(trials)
    return {
        "ours, computed ahead: a free worker waits": Ours(
            run.journal, folder / "ahead", ahead=True
        ),
        "ours, asked in the driver": Ours(run.journal, folder / "driver", ahead=False),
        "ours, the sampler alone": Sampler(run.journal, count + RUNNING),
        "Optuna, journal file": Plain(on_file),
        "Optuna, in memory": Plain(in_memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 1000, 3000])
    parser.add_argument("--asks", type=int, default=40, help="proposals a side and size")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds that a trial takes")
    parser.add_argument("--quick", action="store_true", help="few asks, nothing saved")
    options = parser.parse_args()
    sizes, asks = ([200], 4) if options.quick else (options.trials, options.asks)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    rows: dict[str, list[str]] = {}
    for count in sizes:
        with tempfile.TemporaryDirectory() as name:
            timed = sides(count, Path(name))
            seconds: dict[str, list[float]] = {side: [] for side in timed}
            for turn in range(asks + 1):
                for side, ask in timed.items():
                    took = ask()
                    # The first proposal has nothing that was looked up before.
                    if turn:
                        seconds[side].append(took)
                time.sleep(options.pause)
            for ask in timed.values():
                if isinstance(ask, Ours):
                    ask.close()
        for side, values in seconds.items():
            median, p95 = statistics.median(values), float(np.percentile(values, 95))
            rows.setdefault(side, [side]).append(f"{1000 * median:.1f} / {1000 * p95:.1f}")
    header = ["ms, median / 95th percentile", *(f"{count} finished" for count in sizes)]
    text = table(header, list(rows.values()))
    publish("suggest", "What a proposal costs", text, save=not options.quick)


if __name__ == "__main__":
    main()
