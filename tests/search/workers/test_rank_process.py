"""The process of a further rank, and why it is gone."""

from __future__ import annotations

import signal
import threading

from gsfl_tune.search.workers.rank_process import RankLost, RankProcess


def test_the_cause_of_its_end_is_told() -> None:
    ended = threading.Event()
    process = RankProcess(1, 1, ended.set)
    assert process.alive
    process._process.send_signal(signal.SIGKILL)
    assert ended.wait(60)
    assert not process.alive
    cause = process.cause()
    assert isinstance(cause, RankLost)
    assert str(cause) == "rank 1, a process of the trial, died (signal 9)"


def test_who_ends_it_is_not_told() -> None:
    ended = threading.Event()
    process = RankProcess(1, 1, ended.set)
    process.kill()
    assert not process.alive
    assert not ended.is_set()
