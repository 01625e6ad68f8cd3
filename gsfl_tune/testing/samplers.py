"""The contract of a sampler of a package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gsfl_tune.testing._expect import Expect

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from gsfl_tune.search import SamplerFactory

_expect = Expect("the sampler")
_TRIALS, _STARTUP = 12, 4


def check_sampler(
    create: Callable[[], SamplerFactory],
    *,
    parameters: Mapping[str, BaseDistribution] | None = None,
) -> None:
    """Checks a sampler.

    - It proposes values inside their ranges for integers, numbers and choices, before any trial
      ended, after some did, and where some were pruned or failed.
    - Proposals depend on the seed and on the trials of the study alone: the same search again
      proposes the same, and so does one that is interrupted after any trial and resumed.
    - Another seed proposes something else.

    Args:
        create: Makes the factory, without arguments.
        parameters: The space of the search, with two numbers at least; default: two ranges, one of
            integers and one of choices.

    Raises:
        AssertionError: With what is wrong.
    """
    space = dict(parameters or _space())
    whole = _proposals(create, space, seed=1)
    for number, params in enumerate(whole):
        for name, own in space.items():
            _expect(name in params, f"proposes no {name} in trial {number}")
            inside = own._contains(own.to_internal_repr(params[name]))
            _expect(inside, f"proposes {name} = {params[name]!r}, allowed is {own}")
    again = _proposals(create, space, seed=1)
    _expect(again == whole, "proposes something else in the same search again")
    resumed = _proposals(create, space, seed=1, interrupted=_TRIALS // 2)
    _expect(resumed == whole, "proposes something else after a search was interrupted and resumed")
    _expect(_proposals(create, space, seed=2) != whole, "proposes the same with another seed")


def _space() -> dict[str, Any]:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    return {
        "dropout": FloatDistribution(0.0, 0.7),
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "groups": IntDistribution(1, 20),
        "backbone": CategoricalDistribution(("small", "large", "other")),
    }


def _proposals(
    create: Callable[[], SamplerFactory],
    space: dict[str, BaseDistribution],
    *,
    seed: int,
    interrupted: int = 0,
) -> list[dict[str, Any]]:
    import optuna
    from optuna.trial import TrialState

    from gsfl_tune.search import SamplerRequest

    storage = optuna.storages.InMemoryStorage()
    maximize = optuna.study.StudyDirection.MAXIMIZE
    storage.create_new_study([maximize], study_name="contract")
    factory = create()
    for number in range(_TRIALS):
        if number == interrupted:
            factory = create()  # nothing that it remembered survives
        # A new sampler and a new view of the study for every proposal, as in a search.
        sampler = factory.create(
            SamplerRequest(
                seed=1000 * seed + number,
                study_seed=seed,
                number=number,
                startup_trials=_STARTUP,
                parameters=space,
            )
        )
        study = optuna.load_study(study_name="contract", storage=storage, sampler=sampler)
        trial = study.ask(space)
        value = _value(trial.params, space)
        if number % 4 == 3:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 4 == 2:
            trial.report(value, 0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
    return [dict(trial.params) for trial in study.get_trials(deepcopy=False)]


def _value(params: dict[str, Any], space: dict[str, BaseDistribution]) -> float:
    """Returns an objective of the first two numbers: one is to be large, the other small."""
    from optuna.distributions import CategoricalDistribution

    shares = [
        (params[name] - own.low) / (own.high - own.low)  # type: ignore[attr-defined]
        for name, own in space.items()
        if not isinstance(own, CategoricalDistribution)
    ]
    return float(shares[0] - 0.3 * shares[1])
