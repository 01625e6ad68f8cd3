"""What training would give at any point of a space, learnt from the recorded curves.

Curves are written in their first principal components, and a Gaussian process (Matern 5/2, a
length per parameter) predicts each component: with these few hundred curves it fits far better
than trees or neighbours (`fit.py` measures them side by side). Its mean is the truth of
the simulation. What is predicted is the logit of accuracy as a share of a ceiling, the best value
recorded at that epoch and a tenth of the error that it left: without one, a smooth surface swings
far above everything that was recorded.

What a search observes has chance in it: whole difference curves of recorded pairs (one
configuration, two seeds), so that noise has the size that it has at each epoch and is
correlated over epochs as it is; half of a curve that the process could not explain, with which
early epochs tell the order at the end as well (and as badly) as they do in the recording
(`fit.early_ranks`); and the result is rounded to whole validation images.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit

from benchmarks.replay.simulate import Outcome
from benchmarks.replay.spaces import EPOCHS, VALIDATION_IMAGES, experiment
from benchmarks.replay.tables import Curves, Encoder

COMPONENTS = 6
_NEAREST = 12


@dataclass(frozen=True)
class Processes:
    """Gaussian processes from vectors to curves.

    Attributes:
        x: (N, D) vectors that were seen.
        mean: (epochs,) mean curve.
        components: (K, epochs) principal components.
        lengths: (K, D) lengths of the kernels.
        variances: (K,) variances of the kernels.
        weights: (K, N) weights of what was seen.
        residuals: (N, epochs) leave-one-out errors, lengths and variances held.
    """

    x: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    lengths: np.ndarray
    variances: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray) -> Processes:
        """Fits (N, epochs) curves `y` at (N, D) vectors `x`."""
        mean = y.mean(0)
        components = np.linalg.svd(y - mean, full_matrices=False)[2][:COMPONENTS]
        scores = (y - mean) @ components.T
        fits = [_fit_one(x, score) for score in scores.T]
        lengths, variances, weights, errors = (np.array(part) for part in zip(*fits, strict=True))
        rest = y - mean - scores @ components
        residuals = errors.T @ components + rest
        return cls(x, mean, components, lengths, variances, weights, residuals)

    def save(self, path: Path) -> None:
        """Writes a ``.npz`` file."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Processes:
        """Reads what `save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(M, D) vectors to (M, epochs) logit curves."""
        curves = np.tile(self.mean, (len(x), 1))
        parts = zip(self.lengths, self.variances, self.weights, self.components, strict=True)
        for length, variance, weight, component in parts:
            a, b = x / length, self.x / length
            squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
            distance = np.sqrt(5 * np.maximum(squared, 0))
            kernel = variance * (1 + distance + distance**2 / 3) * np.exp(-distance)
            curves += (kernel @ weight)[:, None] * component
        return curves


def _fit_one(x: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Lengths, variance, weights and leave-one-out errors of one process."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    spread = score.std()
    lengths = Matern(np.ones(x.shape[1]), (0.1, 30.0), nu=2.5)
    kernel = ConstantKernel(1.0, (0.01, 1000.0)) * lengths + WhiteKernel(0.1, (0.001, 10.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianProcessRegressor(kernel, random_state=0).fit(x, score / spread)
    inverse = np.linalg.inv(fitted.kernel_(x))
    weights = inverse @ score
    smooth = fitted.kernel_.k1
    return smooth.k2.length_scale, smooth.k1.constant_value, weights, weights / np.diag(inverse)


def _repeated(values: np.ndarray) -> np.ndarray:
    """Which entries were there before, (N,)."""
    found = np.ones(len(values), dtype=bool)
    found[np.unique(values, return_index=True)[1]] = False
    return found


class Scale:
    """Accuracies to the logits that are predicted, and back.

    Args:
        accuracy: (N, epochs) recorded accuracies.
        images: Validation images.
    """

    def __init__(self, accuracy: np.ndarray, images: int) -> None:
        highest = np.maximum.accumulate(accuracy.max(0))
        self.ceiling = highest + 0.1 * (1 - highest)
        self.floor = 0.5 / images

    def to_logits(self, accuracy: np.ndarray) -> np.ndarray:
        return logit(np.maximum(accuracy, self.floor) / self.ceiling)

    def to_accuracy(self, logits: np.ndarray) -> np.ndarray:
        return expit(logits) * self.ceiling


@dataclass(frozen=True)
class Noise:
    """Curves of chance, each with the curve that it was seen at.

    Attributes:
        at: (P, epochs) logit curves.
        curves: (P, epochs) differences of logits.
    """

    at: np.ndarray
    curves: np.ndarray

    def draw(self, curve: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One of the curves that were seen nearest, with a random sign."""
        distance = ((self.at - curve) ** 2).sum(1)
        nearest = np.argpartition(distance, min(_NEAREST, len(distance)) - 1)[:_NEAREST]
        return self.curves[rng.choice(nearest)] * rng.choice((-1.0, 1.0))


class Surrogate:
    """One recorded data set as something to search; see `simulate.Objective`.

    Args:
        name: One of `DATASETS`.
        curves: Its recorded curves.
        misfit: Share of the surrogate's leave-one-out errors that is added to what is observed.
        processes: Fitted before to the same curves.
    """

    def __init__(
        self,
        name: str,
        curves: Curves,
        misfit: float = 0.5,
        processes: Processes | None = None,
    ) -> None:
        found = experiment(name)
        self.name = name
        self.space = found.space
        self.defaults = found.default_params()
        self.encode = Encoder(self.space)
        self.images = VALIDATION_IMAGES[name]
        self._misfit = misfit
        once = np.flatnonzero(~_repeated(curves.index))
        x = np.array([self.encode(curves.params[row]) for row in once])
        # Several seeds of one configuration count as one curve.
        means = np.array([curves.accuracy[curves.index == curves.index[i]].mean(0) for i in once])
        self.scale = Scale(curves.accuracy, self.images)
        y = self.scale.to_logits(means)
        self.recorded = y
        self.recorded_params = [curves.params[row] for row in once]
        self.processes = processes or Processes.fit(x, y)
        first, second = (self.scale.to_logits(curves.accuracy[rows]) for rows in curves.pairs())
        self._seeds = Noise((first + second) / 2, (first - second) / np.sqrt(2))
        self._errors = Noise(y - self.processes.residuals, self.processes.residuals)
        self._time = _fit_time(x, curves.seconds[once].sum(1))
        self._typical = float(np.mean(self._time(x)))

    def truth(self, x: np.ndarray) -> np.ndarray:
        """(M, D) vectors to (M, epochs) accuracies without chance."""
        return self.scale.to_accuracy(self.processes(x))

    def trial(self, params: dict[str, Any], draw: tuple[int, int]) -> Outcome:
        """Looks a training up."""
        x = self.encode(params)[None]
        curve = self.processes(x)[0]
        rng = np.random.default_rng(draw)
        seen = curve + self._seeds.draw(curve, rng)
        if self._misfit:
            seen = seen + self._misfit * self._errors.draw(curve, rng)
        observed = np.round(self.scale.to_accuracy(seen) * self.images) / self.images
        epoch_time = float(self._time(x)[0]) / self._typical / EPOCHS
        return Outcome(observed, float(self.scale.to_accuracy(curve)[-1]), epoch_time)

    def best(self, random: int = 20_000, rounds: int = 30) -> tuple[float, float]:
        """The highest truth there is to find, and the median one.

        The best of many random points are moved in small steps for as long as they improve.
        """
        rng = np.random.default_rng(0)
        x = self._random(rng, random)
        values = _chunked(self.truth, x)
        median = float(np.median(values))
        top = np.argsort(-values)[:100]
        x, values = x[top], values[top]
        for number in range(rounds):
            step = 0.2 * 0.9**number
            near = np.clip(x.repeat(20, 0) + rng.normal(0, step, (20 * len(x), x.shape[1])), 0, 1)
            fixed = self._choices
            near[:, fixed] = x.repeat(20, 0)[:, fixed]
            found = _chunked(self.truth, near).reshape(len(x), 20)
            chosen = found.argmax(1)
            better = found.max(1) > values
            x[better] = near.reshape(len(x), 20, -1)[np.arange(len(x)), chosen][better]
            values = np.maximum(values, found.max(1))
        return float(values.max()), median

    @property
    def _choices(self) -> list[int]:
        return [i for i, name in enumerate(self.encode.names) if "=" in name]

    def _random(self, rng: np.random.Generator, count: int) -> np.ndarray:
        x = rng.random((count, len(self.encode.names)))
        choices = self._choices
        x[:, choices] = np.eye(len(choices))[rng.integers(len(choices), size=count)]
        return x


def _chunked(truth: Any, x: np.ndarray) -> np.ndarray:
    return np.concatenate([truth(part)[:, -1] for part in np.array_split(x, -(-len(x) // 2000))])


def _fit_time(x: np.ndarray, seconds: np.ndarray) -> Any:
    """Seconds of a training as a line in the latent size, fitted so that outliers count little."""
    size = _latent(x)

    def residuals(line: np.ndarray) -> np.ndarray:
        return (line[0] + line[1] * size) / np.median(seconds) - seconds / np.median(seconds)

    line = least_squares(residuals, [np.median(seconds), 0.0], loss="soft_l1", f_scale=0.1).x
    return lambda at: np.maximum(line[0] + line[1] * _latent(at), 0.1 * np.median(seconds))


def _latent(x: np.ndarray) -> np.ndarray:
    # The second entry of a vector: the latent size, from 32 to 256 on a log scale.
    return 32 * 8 ** x[:, 1]
