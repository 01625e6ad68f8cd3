"""Which work of Ray Tune is spared, on Ray's own registry.

That trials wait for their own processes is held by the searches of test_runner.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune import registry
from ray.tune.execution.tune_controller import TuneController

from gsfl_tune.search.ray_tune.spared_work import lean_ray

CATEGORY = registry.TRAINABLE_CLASS


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry of Ray that no head keeps, whatever other tests have started."""
    monkeypatch.setattr(registry, "_internal_kv_initialized", lambda: False)
    return registry._Registry(prefix="of a test")


class Trainable:
    pass


def test_the_head_is_asked_once_for_a_trainable_that_it_has(store: Any) -> None:
    with lean_ray():
        assert not store.contains(CATEGORY, "late")
        store.register(CATEGORY, "late", Trainable)
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
