"""The process of a further rank: it ends with its input, and says why when it breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.search.workers.rank_pool import RankTask
from tests import warm
from tests.search.experiments import experiment

MAIN = "import runpy; runpy.run_module('gsfl_tune.search.workers.rank_main', run_name='__main__')"


@pytest.fixture
def rank() -> Iterator[warm.Started]:
    process = warm.start([], code=MAIN)
    yield process
    process.kill()
    process.communicate()


def _tell(process: warm.Started, message: dict[str, Any]) -> None:
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def _report(process: warm.Started) -> Any:
    return json.loads(process.stdout.readline())


def _task(directory: Path, cache_dir: Path, *overrides: str, **changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "rank": 1,
        "size": 2,
        "meeting": directory / "meeting",
        "config": experiment("model.head=plain", *overrides).defaults(),
        "seed": 1,
        "fit": "train",
        "directory": directory,
        "side": 32,
        "cache_dir": cache_dir,
        "threads": 1,
        "pieces": 1,
    }
    return RankTask(**{**known, **changes}).model_dump(mode="json")


def test_a_rank_without_a_task_ends_with_its_input(rank: warm.Started) -> None:
    output, _ = rank.communicate(timeout=60)
    assert (rank.returncode, output) == (0, "")


def test_a_rank_that_waits_for_the_others_ends_with_its_input(
    rank: warm.Started, tmp_path: Path, cache_dir: Path
) -> None:
    """Nobody else would end it: the worker that started it is gone, and never comes to meet it."""
    _tell(rank, {"train": _task(tmp_path, cache_dir)})
    assert _report(rank) == {"ready": True}
    assert rank.poll() is None
    output, _ = rank.communicate(timeout=60)
    assert (rank.returncode, output) == (0, "")


def test_a_rank_that_breaks_says_whose_fault_it_is(
    rank: warm.Started, tmp_path: Path, cache_dir: Path
) -> None:
    weights = tmp_path / "gone.pt"
    weights.touch()
    task = _task(tmp_path, cache_dir, f"model.weights={weights}")
    weights.unlink()  # it was there when the search began
    _tell(rank, {"train": task})
    broken = _report(rank)["broken"]
    assert broken["kind"] == "environment"
    assert "gone.pt" in broken["message"]
    assert rank.wait(60) == 1
