"""The price of a configuration relative to that of the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.search.costs.trial_costs import TrialCosts


class RelativePrice:
    """Prices configurations as multiples of the defaults, from the work that they do.

    Measured times are not used: they differ between machines and moments, and the proposals of a
    search must not.

    Args:
        experiment: The experiment.
        costs: Knows the images of the run.
    """

    def __init__(self, experiment: Experiment, costs: TrialCosts) -> None:
        self._experiment = experiment
        self._costs = costs.unmeasured()
        self._defaults: float | None = None

    def __call__(self, params: Mapping[str, Any]) -> float:
        """Returns seconds of a training with these values / seconds with the defaults.

        Args:
            params: Values by parameter name.

        Returns:
            1.0 for values that cannot be combined: their trial fails at once.
        """
        if self._defaults is None:
            self._defaults = self._costs.seconds(self._experiment.defaults())
        try:
            config = self._experiment.configure(params)
        except (UserError, ValueError):
            return 1.0
        return self._costs.seconds(config) / self._defaults
