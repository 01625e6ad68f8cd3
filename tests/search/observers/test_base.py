from __future__ import annotations

import inspect
from typing import Any

import pytest

from gsfl_tune.search import Watcher
from gsfl_tune.search.observers.base import Watchers

EVENTS = [name for name in vars(Watcher) if not name.startswith("_")]


@pytest.mark.parametrize("event", EVENTS)
def test_each_watcher_is_told_of_everything_in_order(event: str) -> None:
    told: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class Listener(Watcher):
        def __init__(self, name: str) -> None:
            self.name = name

    def listen(self: Listener, *args: Any, **options: Any) -> None:
        told.append((self.name, args, options))

    setattr(Listener, event, listen)
    args: list[Any] = []
    options = {}
    for parameter in list(inspect.signature(getattr(Watcher, event)).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            options[parameter.name] = True
        else:
            args.append(parameter.name)
    getattr(Watchers(Listener("first"), Listener("second")), event)(*args, **options)
    assert told == [(name, tuple(args), options) for name in ("first", "second")]
