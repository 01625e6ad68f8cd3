"""Importances of the parameters by a random forest, and how reliable they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gsfl_tune.report.trials import TrialRecord

# With fewer trials, a forest explains noise.
FEWEST = 10
# More trials take longer and do not change the result visibly.
MOST = 1000
TREES = 128
# Out-of-bag R^2 from which importances are reliable, or usable as a hint.
RELIABLE, USABLE = 0.5, 0.15
# Opacity of bars that are a hint, or not reliable.
HINT, FAINT = 0.6, 0.3


@dataclass(frozen=True)
class Importances:
    """Holds how much of the trials' result each parameter explains.

    Attributes:
        trials: Trials that the forest was fitted on.
        explained: Out-of-bag R^2: the share of variance that the trees predict on trials they
            have not seen. 1 is all, 0 or less is none.
        shares: Parameter and the loss of R^2 when its values are shuffled, largest first.
    """

    trials: int
    explained: float
    shares: list[tuple[str, float]]

    @property
    def verdict(self) -> str:
        """Returns how reliable the importances are."""
        if self.explained >= RELIABLE:
            return "reliable"
        if self.explained >= USABLE:
            return "only a hint"
        return "not reliable: the forest cannot predict trials that it has not seen"

    @property
    def strength(self) -> float:
        """Returns the opacity at which bars may be drawn: none that means little looks strong."""
        if self.explained >= RELIABLE:
            return 1.0
        return HINT if self.explained >= USABLE else FAINT


def importances(
    trials: Sequence[TrialRecord], rung: int | None = None, *, seed: int = 0
) -> Importances | None:
    """Computes permutation importances on out-of-bag trials (Breiman 2001), one per parameter.

    Each tree of the forest predicts the trials that it was not grown from, with the true values
    and with one parameter's values shuffled among them. Inactive conditional parameters are
    missing values, on which a tree can split. The columns of a categorical parameter are
    shuffled together.

    Args:
        trials: Trials of one study.
        rung: Explain the value at this rung; default: the final value of finished trials.
        seed: Seed of the forest and the shuffling.

    Returns:
        None with fewer than 10 trials, or if all results or all parameters are equal.
    """
    pairs = [(trial, _target(trial, rung)) for trial in trials]
    known = [(trial, value) for trial, value in pairs if value is not None]
    if len(known) < FEWEST:
        return None
    random = np.random.default_rng(seed)
    if len(known) > MOST:
        known = [known[each] for each in sorted(random.choice(len(known), MOST, replace=False))]
    target = np.array([value for _, value in known])
    blocks = _encode([trial for trial, _ in known])
    if not blocks or np.ptp(target) == 0:
        return None
    return _measure(blocks, target, random, seed)


def _target(trial: TrialRecord, rung: int | None) -> float | None:
    return trial.value if rung is None else trial.rungs.get(rung)


def _encode(trials: Sequence[TrialRecord]) -> dict[str, NDArray[np.float32]]:
    """Maps each parameter to its (trials, columns); leaves out constant parameters."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    blocks: dict[str, NDArray[np.float32]] = {}
    for name in names:
        column = pd.Series([trial.params.get(name) for trial in trials], dtype=object)
        if column.map(str).nunique() < 2:
            continue
        numeric = column.dropna().map(lambda v: isinstance(v, int | float)).all() and not (
            column.dropna().map(lambda v: isinstance(v, bool)).any()
        )
        if numeric:
            block = pd.to_numeric(column).to_numpy(dtype=np.float32)[:, None]
        else:
            block = pd.get_dummies(column.map(str)).to_numpy(dtype=np.float32)
        blocks[name] = block
    return blocks


def _measure(
    blocks: dict[str, NDArray[np.float32]],
    target: NDArray[np.float64],
    random: np.random.Generator,
    seed: int,
) -> Importances:
    # The import takes a second, so it happens only when it is needed.
    from sklearn.ensemble import RandomForestRegressor

    features = np.ascontiguousarray(np.hstack(list(blocks.values())))
    starts = np.cumsum([0, *(block.shape[1] for block in blocks.values())])
    forest = RandomForestRegressor(
        TREES, min_samples_leaf=2, max_features=1 / 3, random_state=seed, n_jobs=1
    ).fit(features, target)
    rows = np.arange(len(target))
    plain = _Votes(len(target))
    shuffled = {name: _Votes(len(target)) for name in blocks}
    for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(rows, drawn)
        if not len(unseen):
            continue
        own = features[unseen]
        # One call per tree: the unchanged trials, then copies with each parameter shuffled.
        copies = np.tile(own, (1 + len(blocks), 1))
        for position in range(len(blocks)):
            columns = slice(starts[position], starts[position + 1])
            rows_of_copy = slice((1 + position) * len(unseen), (2 + position) * len(unseen))
            copies[rows_of_copy, columns] = own[random.permutation(len(unseen))][:, columns]
        predicted = tree.predict(copies, check_input=False).reshape(1 + len(blocks), -1)
        for votes, values in zip((plain, *shuffled.values()), predicted, strict=True):
            votes.add(unseen, values)
    explained = plain.explained(target)
    shares = [(name, explained - votes.explained(target)) for name, votes in shuffled.items()]
    return Importances(len(target), explained, sorted(shares, key=lambda each: -each[1]))


class _Votes:
    """Averages the predictions for each trial over the trees that have not seen it."""

    def __init__(self, trials: int) -> None:
        self._sum = np.zeros(trials)
        self._count = np.zeros(trials)

    def add(self, rows: NDArray[np.int64], predicted: NDArray[np.float64]) -> None:
        self._sum[rows] += predicted
        self._count[rows] += 1

    def explained(self, target: NDArray[np.float64]) -> float:
        """Returns R^2 over the trials that at least one tree has not seen."""
        known = self._count > 0
        truth = target[known]
        residual = truth - self._sum[known] / self._count[known]
        spread = float(np.square(truth - truth.mean()).sum())
        return 0.0 if spread == 0 else 1.0 - float(np.square(residual).sum()) / spread
