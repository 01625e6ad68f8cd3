"""The table of an export says which of its times cannot be relied on."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from gsfl_tune.activity import current
from gsfl_tune.cli.export import _table
from gsfl_tune.export.card_export import export_section
from gsfl_tune.export.measure import Latency, Measurement, doubts, latency, text_table

STEADY = Latency(1, 58.2, 60.0, 40, spread=0.02, others=0.1, cores=2, reliable=True)
BUSY = Latency(32, 1907.3, 2900.1, 20, spread=1.4, others=1.8, cores=2, reliable=False)
ROWS = [
    Measurement("PyTorch fp32", 0.9, 0.8, 10, [STEADY, BUSY]),
    Measurement("onnx fp32", 0.9, 0.8, 10, [STEADY, replace(STEADY, batch=32)]),
]
INFO = {
    "format": "onnx", "precision": "fp32", "prune": 0.0, "input": "uint8", "output": "logits",
    "conditions": {"threads": 2, "cpu": "a CPU"}, "parity": {"images": 9, "probabilities": 1e-6},
}  # fmt: skip
WORDS = "PyTorch fp32, 32 images (medians differed by 140 %, other processes used 1.8 of 2 cores)"


def test_a_time_of_a_busy_machine_is_marked_wherever_it_is_shown():
    assert "1907.3 (2900.1) ?" in text_table(ROWS)
    assert "58.2 (60.0) ?" not in text_table(ROWS)
    assert WORDS in doubts(ROWS)
    card = export_section(INFO, ROWS)
    assert "1907.3 (2900.1) ?" in card
    assert WORDS in card
    info = {**INFO, "table": [row.to_json() for row in ROWS]}
    assert WORDS in " ".join(_table(info).split())


def test_steady_times_are_facts_and_so_are_those_of_earlier_versions():
    assert doubts(ROWS[1:]) == ""
    assert "?" not in export_section(INFO, ROWS[1:])
    old = asdict(ROWS[0])
    for each in old["latency"]:
        for name in ("spread", "others", "cores", "reliable"):
            del each[name]
    row = Measurement.from_json(old)
    assert "?" not in text_table([row])
    assert doubts([row]) == ""


def test_batches_that_are_timed_are_counted_aloud():
    """Measuring an ONNX file took minutes without a word."""
    said = []

    class Listening:
        """A network that hears what is said while it runs."""

        def logits(self, squares: np.ndarray) -> Any:
            if step := current():
                said.append(step.text())

    latency(Listening(), np.zeros((2, 8, 8, 3), np.uint8), batch=32, seconds=0.01)
    assert said[0] == "timing batches of 32: 0/20 at least"
    assert said[19] == "timing batches of 32: 19/20 at least"
    assert current() is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"precision": "fp16"}, None),
        ({"precision": "int8"}, "before it was rounded to int8: "),
        ({"prune": 0.3, "refined": {"pruned": 3}}, "before it was pruned and trained further: "),
    ],
)
def test_thresholds_of_another_network_are_called_so(changes, words):
    """Without a third of its channels it is another network than that of the thresholds."""
    info = INFO | {"refined": {}} | changes
    card = export_section(info, ROWS, calibrated=True)
    assert (words or "") in card
    assert ("what they reject of its errors is not known" in card) == (words is not None)
    assert "--threshold auto" not in export_section(info, ROWS)
