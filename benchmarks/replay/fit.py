"""How well the surrogate fits curves that it has not seen, beside trees and neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import spearmanr

from benchmarks.replay.surrogate import Processes, Surrogate

FOLDS = 5
EPOCHS_SHOWN = (1, 3, 9, 27)
Model = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _process(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    return Processes.fit(x, y)(at)


def _trees(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0).fit(x, y).predict(at)


def _neighbours(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(5, weights="distance").fit(x, y).predict(at)


MODELS: dict[str, Model] = {
    "Gaussian process": _process,
    "extremely randomised trees": _trees,
    "5 nearest neighbours": _neighbours,
}


def cross_validate(surrogate: Surrogate) -> Iterator[tuple[str, int, float, float, float, float]]:
    """Predicts every recorded curve from the other folds.

    Yields:
        Model, epoch, R2 and mean absolute error of accuracy, rank correlation, and that within the
        better half of the configurations.
    """
    x, y = surrogate.processes.x, surrogate.recorded
    recorded = surrogate.scale.to_accuracy(y)
    better = recorded[:, -1] > np.median(recorded[:, -1])
    fold = np.random.default_rng(0).permutation(len(x)) % FOLDS
    for name, model in MODELS.items():
        found = np.empty_like(y)
        for k in range(FOLDS):
            found[fold == k] = model(x[fold != k], y[fold != k], x[fold == k])
        predicted = surrogate.scale.to_accuracy(found)
        for epoch in EPOCHS_SHOWN:
            p, r = predicted[:, epoch - 1], recorded[:, epoch - 1]
            yield (
                name,
                epoch,
                1 - float(((p - r) ** 2).mean() / r.var()),
                float(np.abs(p - r).mean()),
                float(spearmanr(p, r)[0]),
                float(spearmanr(p[better], r[better])[0]),
            )


def early_ranks(surrogate: Surrogate, seed: int = 0) -> Iterator[tuple[int, float, float]]:
    """How well an early epoch tells the order at the end, recorded and simulated.

    Yields:
        Epoch, and its rank correlation with the last one within the better half: of the recorded
        curves, and of observations of the same configurations in the simulation.
    """
    recorded = surrogate.scale.to_accuracy(surrogate.recorded)
    params = surrogate.recorded_params
    simulated = np.array([surrogate.trial(p, (seed, i)).curve for i, p in enumerate(params)])
    for epoch in (1, 3, 5, 9, 18):
        pair = []
        for curves in (recorded, simulated):
            better = curves[:, -1] > np.median(curves[:, -1])
            pair.append(float(spearmanr(curves[better, epoch - 1], curves[better, -1])[0]))
        yield epoch, pair[0], pair[1]
