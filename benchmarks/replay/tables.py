"""The recorded curves, and parameters as vectors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.replay.spaces import experiment
from gsfl_tune.experiment.space import Space
from gsfl_tune.search.samplers.factory import whole_space

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Curves:
    """Recorded curves of one data set; N rows.

    Attributes:
        index: (N,) number of the configuration, -1 for the defaults.
        seed: (N,) seed of its training.
        params: N dictionaries.
        accuracy: (N, epochs) validation accuracy.
        seconds: (N, epochs) processor seconds of each epoch.
    """

    index: np.ndarray
    seed: np.ndarray
    params: list[dict[str, Any]]
    accuracy: np.ndarray
    seconds: np.ndarray

    @classmethod
    def load(cls, name: str, tables: Path = TABLES) -> Curves:
        """Reads ``NAME.parquet``.

        A training that broke off (a loss that is not finite) is left out: a search gives it no
        value either.
        """
        table = pq.read_table(tables / f"{name}.parquet")
        whole = np.array([failed is None for failed in table["failed"].to_pylist()])
        params = [json.loads(text) for text in table["params"].to_pylist()]

        def stack(key: str) -> np.ndarray:
            return np.array(table[key].to_pylist(), dtype=np.float64)[whole]

        return cls(
            table["index"].to_numpy()[whole],
            table["seed"].to_numpy()[whole],
            [one for one, keep in zip(params, whole, strict=True) if keep],
            stack("accuracy"),
            stack("seconds"),
        )

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the same configuration with seeds 0 and 1."""
        rows = {(i, s): row for row, (i, s) in enumerate(zip(self.index, self.seed, strict=True))}
        found = [(rows[i, 0], row) for (i, s), row in rows.items() if s == 1 and (i, 0) in rows]
        first, second = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return first, second


class Encoder:
    """Parameters to vectors: numbers on [0, 1] (log where the space is), choices one-hot.

    A parameter that is not active has the value of its default.
    """

    def __init__(self, space: Space) -> None:
        self._whole = whole_space(space)
        self._defaults = {p.name: p.distribution.default for p in space.parameters}

    @classmethod
    def of(cls, name: str) -> Encoder:
        """Encoder of a recorded data set."""
        return cls(experiment(name).space)

    def __call__(self, params: dict[str, Any]) -> np.ndarray:
        """(D,) vector."""
        parts: list[float] = []
        for name, distribution in self._whole.items():
            value = params.get(name, self._defaults[name])
            if isinstance(distribution, CategoricalDistribution):
                parts += [float(value == choice) for choice in distribution.choices]
                continue
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            ends = np.array([distribution.low, distribution.high, value], dtype=np.float64)
            low, high, x = np.log(ends) if distribution.log else ends
            parts.append(float((x - low) / (high - low)))
        return np.array(parts)

    @cached_property
    def names(self) -> list[str]:
        """What each entry of a vector is."""
        found: list[str] = []
        for name, distribution in self._whole.items():
            if isinstance(distribution, CategoricalDistribution):
                found += [f"{name}={choice}" for choice in distribution.choices]
            else:
                found.append(name)
        return found
