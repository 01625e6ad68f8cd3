"""Which work of Ray Tune is spared, on Ray's own registry and its choice of a process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import registry
from ray.tune.execution.tune_controller import TuneController

from gsfl_tune.search.ray_tune import spared_work
from gsfl_tune.search.ray_tune.spared_work import lean_ray

CATEGORY = registry.TRAINABLE_CLASS


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry of Ray that no head keeps, whatever other tests have started."""
    monkeypatch.setattr(registry, "_internal_kv_initialized", lambda: False)
    return registry._Registry(prefix="of a test")


class Trial:
    placement_group_factory = None


class Controller:
    """What Ray's controller knows of a trial, its process that starts, and no free one."""

    def __init__(self, *, started: bool = False, has_its_own: bool = True) -> None:
        self.trial = Trial()
        own = SimpleNamespace(actor_id="own")
        self.looked = 0
        self._resetting_trials: set[Trial] = set()
        self._trial_to_actor = {self.trial: own} if has_its_own else {}
        self._actor_manager = SimpleNamespace(is_actor_started=lambda actor: started)
        self._actor_cache = SimpleNamespace(has_cached_object=self._look)

    def _look(self, request: object) -> bool:
        self.looked += 1
        return False

    def reuse(self) -> bool:
        method: Any = TuneController._maybe_reuse_cached_actor
        return bool(method(self, self.trial))


def test_a_trial_waits_for_its_own_process_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = Controller()
    with lean_ray():
        assert not controller.reuse()
        assert controller.looked == 0
        monkeypatch.setattr(spared_work, "PATIENCE", 0.0)
        controller.reuse()
        assert controller.looked == 1


def test_a_process_that_is_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spared_work, "PATIENCE", 0.0)
    controller = Controller(started=True)
    with lean_ray():
        assert not controller.reuse()
    assert controller.looked == 0
    controller.reuse()
    assert controller.looked == 1, "Ray alone would look"


def test_a_trial_without_a_process_takes_a_free_one_at_once() -> None:
    controller = Controller(has_its_own=False)
    with lean_ray():
        controller.reuse()
    assert controller.looked == 1


def test_a_trial_that_is_being_handed_over_is_left_to_ray() -> None:
    controller = Controller()
    controller._resetting_trials.add(controller.trial)
    with lean_ray():
        assert controller.reuse()


def test_the_head_is_asked_once_for_a_trainable_that_it_has(store: Any) -> None:
    with lean_ray():
        assert not store.contains(CATEGORY, "late")
        store.register(CATEGORY, "late", Trial)
        assert store.contains(CATEGORY, "late")
        # It is not asked again: the answer stays though the head has lost it.
        store.unregister(CATEGORY, "late")
        assert store.contains(CATEGORY, "late")
        assert not store.contains(CATEGORY, "other")
    assert not store.contains(CATEGORY, "late")


def test_a_trainable_is_unpickled_once(store: Any) -> None:
    store.register(CATEGORY, "one", ["a list, as pickled again it is another"])
    store.register(CATEGORY, "other", ["of another name"])
    assert store.get(CATEGORY, "one") is not store.get(CATEGORY, "one")
    with lean_ray():
        assert store.get(CATEGORY, "one") is store.get(CATEGORY, "one")
        assert store.get(CATEGORY, "other") == ["of another name"]


def test_another_version_of_ray_is_left_alone_and_all_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(TuneController, "_maybe_reuse_cached_actor")
    before = registry._Registry.contains, registry._Registry.get

    def search() -> None:
        assert not hasattr(TuneController, "_maybe_reuse_cached_actor")
        assert registry._Registry.get is not before[1]
        raise RuntimeError("the search broke")

    with pytest.raises(RuntimeError, match="the search broke"), lean_ray():
        search()
    assert (registry._Registry.contains, registry._Registry.get) == before
