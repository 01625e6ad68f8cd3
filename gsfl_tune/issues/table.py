"""The issues as CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from gsfl_tune.issues._base import Found, Issue

COLUMNS = ("path", "class", "part", "issue", "score", "suggestion", "reason")


def issues_csv(found: Found) -> str:
    """Returns the issues as CSV, one row per issue."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(found))
    return text.getvalue()


def together_csv(found: Found) -> str:
    """Returns the sets of copies and of like images as CSV, for ``data.split.together``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "class", "part", "set"))
    for each in found.issues:
        if each.set_number is not None:
            name = f"{each.issue} {each.set_number}"
            writer.writerow((each.path, each.class_name, each.part, name))
    return text.getvalue()


def issues_json(found: Found) -> dict[str, Any]:
    """Returns the issues ready for JSON, with counts by kind and notices."""
    return {
        "name": found.name,
        "images": found.image_count,
        "classes": len(found.classes),
        "judged_by": found.judged_by or None,
        "counts": found.counts,
        "notices": found.notices,
        "issues": list(_rows(found)),
    }


def _rows(found: Found) -> Iterator[dict[str, Any]]:
    for issue in found.issues:
        yield _row(issue)


def _row(issue: Issue) -> dict[str, Any]:
    return {
        "path": issue.path,
        "class": issue.class_name,
        "part": issue.part,
        "issue": issue.issue,
        "score": round(issue.score, 4),
        "suggestion": issue.suggestion,
        "reason": issue.reason,
    }
