"""Densities are Optuna's, add up to one, and what is drawn follows them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator

from gsfl_tune.search.samplers.tpe_density import density

KINDS: dict[str, BaseDistribution] = {
    "float": FloatDistribution(-2.0, 3.0),
    "log": FloatDistribution(1e-4, 1e2, log=True),
    "step": FloatDistribution(0.0, 1.0, step=0.125),
    "int": IntDistribution(1, 6),
    "log int": IntDistribution(8, 64, log=True),
    "int step": IntDistribution(0, 96, step=16),
    "choice": CategoricalDistribution(["a", "b", None, 4]),
}
COUNTS = (0, 1, 4, 40)


def _values(kind: Any, count: int) -> np.ndarray:
    """Values of a kind as numbers, more of them low than high."""
    shares = np.random.default_rng(count).random(count) ** 2
    if isinstance(kind, CategoricalDistribution):
        return np.floor(shares * len(kind.choices))
    if kind.log:
        found = np.exp(np.log(kind.low) + shares * np.log(kind.high / kind.low))
    else:
        found = kind.low + shares * (kind.high - kind.low)
    if kind.step:
        found = kind.low + np.round((found - kind.low) / kind.step) * kind.step
    return np.clip(found, kind.low, kind.high)


def _all_values(kind: Any) -> np.ndarray:
    """Every value of a kind that has a finite number of them."""
    if isinstance(kind, CategoricalDistribution):
        return np.arange(len(kind.choices), dtype=float)
    return np.arange(kind.low, kind.high + kind.step / 2, kind.step, dtype=float)


def _finite(kind: Any) -> bool:
    return isinstance(kind, CategoricalDistribution) or bool(kind.step)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", KINDS)
def test_a_density_is_the_one_of_optuna(name: str, count: int) -> None:
    kind = KINDS[name]
    values = _values(kind, count)
    parameters = TPESampler()._parzen_estimator_parameters
    theirs = _ParzenEstimator({"x": values}, {"x": kind}, parameters)
    ours = density(kind, values)
    assert ours is not None
    at = _values(kind, 200)
    assert ours.log_pdf(at) == pytest.approx(theirs.log_pdf({"x": at}), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", KINDS)
def test_a_density_adds_up_to_one(name: str, count: int) -> None:
    kind: Any = KINDS[name]
    found = density(kind, _values(kind, count))
    assert found is not None
    if _finite(kind):
        assert np.exp(found.log_pdf(_all_values(kind))).sum() == pytest.approx(1)
        return
    # Of a logarithm if the range has one.
    ends = np.log([kind.low, kind.high]) if kind.log else (kind.low, kind.high)
    at = np.linspace(*ends, 20_001)
    mass = np.trapezoid(np.exp(found.log_pdf(np.exp(at) if kind.log else at)), at)
    assert mass == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_draws_are_allowed_and_follow_the_density(name: str) -> None:
    kind: Any = KINDS[name]
    found = density(kind, _values(kind, 40))
    assert found is not None
    drawn = found.draw(np.random.RandomState(0), 20_000)
    assert all(kind._contains(value) for value in np.unique(drawn))
    if _finite(kind):
        at = _all_values(kind)
        shares = (drawn[:, None] == at).mean(axis=0)
        assert shares == pytest.approx(np.exp(found.log_pdf(at)), abs=0.015)
        return
    for share in (0.2, 0.5, 0.8):
        edge = np.quantile(drawn, share)
        ends = np.log([kind.low, edge]) if kind.log else (kind.low, edge)
        at = np.linspace(*ends, 4001)
        mass = np.trapezoid(np.exp(found.log_pdf(np.exp(at) if kind.log else at)), at)
        assert mass == pytest.approx(share, abs=0.015)


def test_old_trials_weigh_less_than_new_ones() -> None:
    kind = FloatDistribution(0.0, 1.0)
    # Half of the trials are low, half are high, in either order.
    low, high = np.full(40, 0.2), np.full(40, 0.8)
    at = np.array([0.2, 0.8])
    for first, last, better in ((low, high, 1), (high, low, 0)):
        found = density(kind, np.concatenate([first, last]))
        assert found is not None
        logs = found.log_pdf(at)
        assert logs[better] > logs[1 - better] + 0.3


def test_values_outside_the_range_have_no_density() -> None:
    for kind in (KINDS["float"], KINDS["int"], KINDS["log"]):
        assert density(kind, np.array([2.0])) is not None
        for outside in (-3.0, 1e3):
            assert density(kind, np.array([2.0, outside])) is None
