"""Checks for probable problems with the images of a data set."""

from gsfl_tune.issues._base import KINDS, Found, Issue
from gsfl_tune.issues.find import find_issues
from gsfl_tune.issues.page import issues_page
from gsfl_tune.issues.table import issues_csv, issues_json, together_csv

__all__ = [
    "KINDS",
    "Found",
    "Issue",
    "find_issues",
    "issues_csv",
    "issues_json",
    "issues_page",
    "together_csv",
]
