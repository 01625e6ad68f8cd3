"""What workers do, on its way to the driver."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import ray

from gsfl_tune.activity import activity, current
from gsfl_tune.cluster import Slots
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Watcher
from gsfl_tune.search.observers.base import Said, States
from gsfl_tune.search.ray_tune import heartbeat as pulse
from gsfl_tune.search.ray_tune.heartbeat import Pulses, asked_of_workers, pulse_of
from tests.search.experiments import experiment, searched
from tests.search.trainables import Slow
from tests.waiting import wait_until


class Listener(Watcher):
    """Keeps what trials say, and tells them once they have said where they are."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.heard: dict[str, set[str]] = {}
        self.states: States = dict

    def hears(self, states: States) -> None:
        self.states = states

    def tick(self) -> None:
        for name, said in self.states().items():
            self.heard.setdefault(name, set()).add(said.text if said else "nothing")
            if said and said.text.startswith("finetune epoch 3/8"):
                directory = self.run.trial("search", int(name.removeprefix("trial ")))
                directory.mkdir(parents=True, exist_ok=True)
                (directory / "heard").touch()


@pytest.mark.slow
def test_running_trials_say_epoch_and_batch(
    ray_of_tests: None, run: RunDirectory, two_slots: Slots, cache_dir: Path
) -> None:
    listener = Listener(run)
    searched(
        experiment("search.trials=2"),
        run,
        resources=two_slots,
        cache_dir=cache_dir,
        watchers=[listener],
        trainable=Slow,
    )
    assert set(listener.heard) == {"trial 0", "trial 1"}
    for words in listener.heard.values():
        assert any(each.startswith("finetune epoch 3/8: 12/43 batches") for each in words), words
    assert listener.states() == {}, "trials that ended say nothing more"


def _work(channel: str, heard: Path) -> None:
    with pulse_of(channel, "slot 0"), activity("head steps", 10, "batches") as step:
        step.done = 4
        wait_until(heard.exists, "the driver has heard of it")


@pytest.mark.slow
def test_what_workers_do_for_the_driver_is_shown_with_what_it_waits_for(
    ray_of_tests: None, tmp_path: Path
) -> None:
    heard = tmp_path / "heard"

    def is_heard() -> bool:
        one = current()
        assert one is not None
        return "timing steps" in one.text() and "head steps: 4/10 batches" in one.text()

    with asked_of_workers("timing steps", ["slot 0"]) as channel:
        reference = ray.remote(_work).remote(channel, heard)
        wait_until(is_heard, "what the worker does is shown")
        heard.touch()
        ray.get(reference)
    assert current() is None
    wait_until(lambda: not pulse._read(channel), "nothing stays in the store")


def test_a_store_that_does_not_answer_costs_nothing_but_the_words(monkeypatch: Any) -> None:
    monkeypatch.setattr(pulse, "_SECONDS", 0.01)
    monkeypatch.setattr(pulse, "_PAUSE", 0.01)
    told: list[bytes] = []

    def say(key: bytes, words: bytes | None) -> None:
        told.append(words or b"")
        if len(told) < 3:
            raise ConnectionError

    asked: list[str] = []

    def ask(channel: str) -> Mapping[str, Said]:
        asked.append(channel)
        if len(asked) < 3:
            raise ConnectionError
        return {"trial 1": Said("training")}

    sender = pulse.Pulse(say)
    with activity("training"):
        sender.begin("channel", "trial 1")
        wait_until(lambda: len(told) >= 3, "it is said three times")
        sender.end()
    pulses = Pulses(lambda: ["trial 1"], ask)
    assert pulses.latest() == {"trial 1": "starting"}
    with pulses.listening():
        wait_until(lambda: pulses.latest() == {"trial 1": "training"}, "it is heard")


def test_a_training_says_where_it_is(run: RunDirectory, cache_dir: Path) -> None:
    """Stage, epoch, batch and validation, as another thread sees them."""
    from gsfl_tune.training import train

    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.0005):
            one = current()
            if one is not None:
                seen.append(one.text())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        tried = experiment(
            # Epochs of many steps, so that a thread that looks sometimes sees each of them.
            "training.head.epochs=2",
            "training.head.batch_size=2",
            "training.finetune.epochs=1",
            "training.finetune.batch_size=4",
            "data.typefaces.train=8",
        )
        train(tried, run.path, cache_dir=cache_dir / "said")
    finally:
        over.set()
        watcher.join()
    text = "\n".join(seen)
    for words in (
        "decoding images: ",
        "computing features (resnet10t",
        "head epoch 2/2: ",
        "finetune epoch 1/1: ",
        "validating: ",
    ):
        assert words in text, words
    batches = [int(each) for each in re.findall(r"finetune epoch 1/1: (\d+)/\d+ batches", text)]
    assert len(set(batches)) > 3
    assert batches == sorted(batches)
