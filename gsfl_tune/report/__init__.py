"""What a run shows, from its files alone."""

from gsfl_tune.report.results import RunResults, load_results
from gsfl_tune.report.tables import ResultsView, print_results

__all__ = ["ResultsView", "RunResults", "load_results", "print_results"]
