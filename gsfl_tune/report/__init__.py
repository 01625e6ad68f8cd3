"""The report of a run in a browser and a terminal, made from its files alone."""

from gsfl_tune.report.page import write_report
from gsfl_tune.report.results import RunResults, load_results
from gsfl_tune.report.tables import ResultsView, print_results
from gsfl_tune.report.watch import WatchServer, wait_for_run

__all__ = [
    "ResultsView",
    "RunResults",
    "WatchServer",
    "load_results",
    "print_results",
    "wait_for_run",
    "write_report",
]
