"""What both kinds of telemetry have in common: they hear all of a search, and let go of its end."""

from __future__ import annotations

import inspect
import socket

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.observers.telemetry import Telemetry, open_telemetry
from tests.search.experiments import experiment

EVENTS = [name for name in vars(Watcher) if not name.startswith("_")]


def test_one_that_overrides_nothing_takes_every_event(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    given = {
        "study": study, "budget": None, "slots": 2, "left": lambda: 1.0, "states": dict,
        "seconds": 0.1, "number": 0, "params": {}, "again": False, "k": 0, "value": 0.5,
        "result": {}, "text": "words", "interrupted": False, "title": "winner", "total": 1,
        "done": 0, "name": "winner", "found": [],
    }  # fmt: skip
    telemetry = Telemetry()
    for event in EVENTS:
        method = getattr(telemetry, event)
        method(**{name: given[name] for name in inspect.signature(method).parameters})
    telemetry.close()
    study.close()


def test_a_port_that_was_closed_is_free_for_the_next_search() -> None:
    (first,) = open_telemetry(metrics="0", run="tiny", notice=lambda text: None)
    port = int(first.url.split(":")[2].split("/")[0])  # type: ignore[attr-defined]
    first.close()
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", port)) != 0
    (second,) = open_telemetry(metrics=str(port), run="tiny", notice=lambda text: None)
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", port)) == 0
    second.close()
