"""Where the time of a simulated cluster went, and what was found in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Ledger:
    """Where the workers' time went; worker-seconds but for the driver's.

    Attributes:
        paid: Workers that were there.
        training: Epochs, those that were lost included.
        lost: Epochs that were lost with a node.
        saving: Checkpoints.
        waiting: For the driver.
        starting: Processes and trials that start.
        driver: Seconds in which the driver was busy.
        duration: Seconds until the last trial ended.
        results: Results that were reported.
        deaths: Nodes that died.
        failed: Trials that died too often.
        ends: (time, paid until then, observed value, truth) of every trial that came to its end.
    """

    paid: float = 0.0
    training: float = 0.0
    lost: float = 0.0
    saving: float = 0.0
    waiting: float = 0.0
    starting: float = 0.0
    driver: float = 0.0
    duration: float = 0.0
    results: int = 0
    deaths: int = 0
    failed: int = 0
    ends: list[tuple[float, float, float, float]] = field(default_factory=list)

    @property
    def efficiency(self) -> float:
        """Share of the paid time in which something was trained that counted."""
        return (self.training - self.lost) / self.paid

    def incumbent(self, paid: np.ndarray) -> np.ndarray:
        """Truth of the trial with the best observed value after so many worker-seconds; NaN
        before there is one.
        """
        best = -np.inf
        steps, values = [-np.inf], [np.nan]
        for _, spent, observed, truth in self.ends:
            if observed > best:
                best = observed
                steps.append(spent)
                values.append(truth)
        return np.array(values)[np.searchsorted(steps, paid, side="right") - 1]

    def time_to(self, truth: float) -> float:
        """Seconds until the best observed trial was as good as this, or infinity."""
        best = -np.inf
        for time, _, observed, found in self.ends:
            if observed > best:
                best = observed
                if found >= truth:
                    return time
        return math.inf
