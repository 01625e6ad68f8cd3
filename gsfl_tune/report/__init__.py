"""What a run shows, from its files alone."""

from gsfl_tune.report.decomposition import load_evidence, print_evidence
from gsfl_tune.report.results import RunResults, load_results
from gsfl_tune.report.tables import ResultsView, print_results

__all__ = [
    "ResultsView",
    "RunResults",
    "load_evidence",
    "load_results",
    "print_evidence",
    "print_results",
]
