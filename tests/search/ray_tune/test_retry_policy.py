"""Which failures are counted, which halve the batch, and which end a trial."""

from __future__ import annotations

import pytest

from gsfl_tune.search.ray_tune.retry_policy import (
    NODES_PER_TRIAL,
    RAN_OUT,
    RetryPolicy,
    halved_notice,
)
from gsfl_tune.search.ray_tune.worker_losses import Failure

NODE = Failure("node", "its node was lost")
PROCESS = Failure("process", "the worker process died")
ERROR = Failure("error", "RuntimeError: no")
MEMORY = Failure("memory", "its node ran low on memory")
SPENT = Failure("spent", "300 MiB were not given back")


def test_want_of_memory_halves_the_batch_once_and_then_fails_with_its_reason() -> None:
    # Not one failure is allowed, and yet it is tried with half the batch.
    policy = RetryPolicy(max_failures=0)
    first = policy.decide(0, MEMORY)
    assert first.again
    assert first.halved == RAN_OUT
    second = policy.decide(0, MEMORY, pieces=2)
    assert not second.again
    assert second.halved is None
    assert second.failure.kind == "error"
    assert "at half the batch too" in second.failure.reason
    assert MEMORY.reason in second.failure.reason


@pytest.mark.parametrize("crash", [PROCESS, ERROR])
@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_crashes_are_counted_up_to_the_limit(crash: Failure, allowed: int) -> None:
    policy = RetryPolicy(max_failures=allowed)
    for count in range(1, allowed + 1):
        retry = policy.decide(0, crash)
        assert retry.again
        assert retry.notice is not None
        assert crash.reason in retry.notice
        assert f"({count} of at most {allowed} times)" in retry.notice
    last = policy.decide(0, crash)
    assert not last.again
    assert last.failure == crash
    assert last.notice is None


def test_every_trial_has_a_count_of_its_own() -> None:
    policy = RetryPolicy(max_failures=1)
    assert [policy.decide(number, ERROR).again for number in (0, 1, 2, 0)] == [
        True,
        True,
        True,
        False,
    ]


def test_neither_a_lost_node_nor_a_spent_process_nor_want_of_memory_is_counted() -> None:
    policy = RetryPolicy(max_failures=1)
    for _ in range(20):
        for failure in (NODE, SPENT, MEMORY):
            assert policy.decide(0, failure).again
    assert policy.decide(0, ERROR).again
    assert not policy.decide(0, ERROR).again


def test_a_trial_that_takes_every_node_down_fails_in_the_end() -> None:
    policy = RetryPolicy(max_failures=2)
    for _ in range(NODES_PER_TRIAL):
        retry = policy.decide(0, NODE)
        assert retry.again
        assert retry.notice == f"{NODE.reason}; it is started again"
    assert not policy.decide(0, NODE).again


def test_a_spent_process_is_started_anew_with_its_reason() -> None:
    retry = RetryPolicy(max_failures=0).decide(0, SPENT)
    assert retry.again
    assert retry.halved is None
    assert retry.notice == f"a worker process was started anew: {SPENT.reason}"


def test_two_silent_deaths_halve_the_batch() -> None:
    policy = RetryPolicy(max_failures=5)
    retries = [policy.decide(0, failure) for failure in (PROCESS, NODE, ERROR, PROCESS)]
    assert [retry.halved is not None for retry in retries] == [False, False, False, True]
    assert "perhaps for lack of memory" in halved_notice("trial 0", retries[-1].halved or "")
    # What trains in halves already is not halved again.
    assert policy.decide(0, PROCESS, pieces=2).halved is None


def test_an_error_is_no_silent_death() -> None:
    policy = RetryPolicy(max_failures=5)
    retries = [policy.decide(0, failure) for failure in (ERROR, ERROR, PROCESS)]
    assert all(retry.halved is None for retry in retries)


def test_the_notice_names_the_trial_and_what_it_goes_on_with() -> None:
    assert halved_notice("trial 4") == (
        "trial 4 ran out of memory: it continues with batches in two halves"
    )
