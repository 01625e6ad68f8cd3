"""The number of threads of calculations on some thousand rows."""

from __future__ import annotations

from contextlib import AbstractContextManager


def one_thread() -> AbstractContextManager[object]:
    """Limits NumPy and scikit-learn to one thread in a block.

    On an idle machine of two cores a second thread saves a third of the time at best. If other
    processes use the cores, the threads wait for each other: a map of 2,000 images takes 81 s
    instead of 13. With one thread the result is the same on every machine, too.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)
