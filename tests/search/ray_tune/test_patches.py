"""What Ray Tune does otherwise during a search, and as before afterwards."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from ray.air.execution._internal import actor_manager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import class_cache, tune_controller
from ray.tune.execution.tune_controller import TuneController

from gsfl_tune.search.ray_tune import patches


def _state() -> tuple[Any, ...]:
    return (
        TuneController._get_trial_checkpoints,
        actor_manager.RayActorError,
        tune_controller.RayActorError,
        class_cache.ENV_VARS_TO_PROPAGATE,
        dict(os.environ),
        [logging.getLogger(name).level for name in ("ray", "ray.tune", "ray.train")],
    )


@pytest.mark.parametrize(
    "patch",
    [patches.light_snapshots, patches.memory_monitor, patches.own_credentials, patches.quiet],
)
def test_all_is_as_before_after_a_search_that_broke(
    patch: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that a user has set, and one that is not there.
    monkeypatch.setenv("TUNE_PRINT_ALL_TRIAL_ERRORS", "1")
    monkeypatch.delenv("TUNE_DISABLE_SIGINT_HANDLER", raising=False)
    before = _state()

    def search() -> None:
        assert _state() != before
        raise RuntimeError("the search broke")

    with pytest.raises(RuntimeError, match="the search broke"), patch():
        search()
    assert _state() == before


@pytest.mark.parametrize("module", [actor_manager, tune_controller])
@pytest.mark.parametrize("error", [OutOfMemoryError("low on memory"), RayActorError()])
def test_a_process_ended_for_want_of_memory_counts_as_dead(module: Any, error: Exception) -> None:
    with patches.memory_monitor():
        assert isinstance(error, module.RayActorError)
        assert not isinstance(ValueError("of a trial"), module.RayActorError)


def test_trials_do_not_get_the_drivers_keys_and_all_else_that_ray_passes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed_on = sorted(class_cache.ENV_VARS_TO_PROPAGATE)
    keys = [name for name in passed_on if name.startswith("AWS_")]
    assert "AWS_SECRET_ACCESS_KEY" in keys
    for name in passed_on:
        monkeypatch.setenv(name, "1")

    class Trial:
        pass

    def variables() -> set[str]:
        actor = class_cache._ActorClassCache().get(Trial)
        return set(actor._default_options["runtime_env"]["env_vars"])

    assert set(keys) < variables()
    with patches.own_credentials():
        given = variables()
    assert given.isdisjoint(keys)
    assert set(passed_on) - set(keys) <= given


def test_ray_says_nothing_below_a_disaster(caplog: pytest.LogCaptureFixture) -> None:
    with patches.quiet():
        for name in ("ray", "ray.tune", "ray.train"):
            assert not logging.getLogger(name).isEnabledFor(logging.ERROR)
        assert os.environ["TUNE_DISABLE_SIGINT_HANDLER"] == "1"
        assert os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] == "1"
    assert logging.getLogger("ray.tune").isEnabledFor(logging.ERROR)
