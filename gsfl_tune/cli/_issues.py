"""``gsfl-tune data --issues``: probable errors in the images and labels."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import FINISHED, showing
from gsfl_tune.cli._targets import refuse_file, refuse_folder, writing

if TYPE_CHECKING:
    from rich.console import Console

    from gsfl_tune.experiment.config import Config
    from gsfl_tune.issues import Found

_SHOWN = 3


def add_issue_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--issues",
        action="store_true",
        help="look for wrong labels, copies, outliers, dark, blurred and tiny images instead, and "
        "write a review page, issues.csv, and together.csv for data.split.together",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where --issues writes its three files (default: NAME-issues here)",
    )
    parser.add_argument(
        "--no-features",
        action="store_true",
        help="with --issues: skip the checks that need a backbone (labels and outliers)",
    )


def show_issues(args: argparse.Namespace, name: str, config: Config) -> int:
    """Looks for issues, writes the page and the table, and prints the counts.

    Args:
        args: Arguments of the command.
        name: Name of the experiment, or the path.
        config: Determines data and backbone.

    Raises:
        UserError: If the page or the table cannot be written.
    """
    from rich.console import Console

    folder = args.out or Path(f"{name}-issues")
    files = {"page": folder / "issues.html", "table": folder / "issues.csv"}
    files["together"] = folder / "together.csv"
    refuse_folder("--out", folder)
    for file in files.values():
        refuse_file("--out", file)
    with showing("opening the images"):
        from gsfl_tune.data import prepare
        from gsfl_tune.issues import find_issues, issues_csv, issues_json, issues_page, together_csv
        from gsfl_tune.run.atomic import write_text

        # All broken images are wanted here, and all others too: also those that a training on few
        # images per class would leave out.
        dataset = prepare(config.data.model_copy(update={"max_broken": 1.0, "shots": None}))
        found = find_issues(dataset, config, use_features=not args.no_features)
        page, table = issues_page(found, dataset), issues_csv(found)
        with writing("--out", folder):
            write_text(files["page"], page)
            write_text(files["table"], table)
            write_text(files["together"], together_csv(found))
    if args.json:
        places = {what: str(file.resolve()) for what, file in files.items()}
        print(json.dumps({**issues_json(found), "files": places}, indent=2, ensure_ascii=False))
        return FINISHED
    console = Console(highlight=False)
    _print_issues(console, found)
    for what, file in files.items():
        console.print(f"{what}: {file.resolve()}", markup=False, soft_wrap=True)
    return FINISHED


def _print_issues(console: Console, found: Found) -> None:
    from gsfl_tune.issues import KINDS

    def line(text: str, style: str = "") -> None:
        # Without markup (names may contain brackets) and without line breaks in paths.
        console.print(text, style=style, markup=False, soft_wrap=True)

    line(f"{found.name}: {found.image_count:,} images, {len(found.classes)} classes")
    for notice in found.notices:
        line(notice, "bold yellow")
    if not found.judged_by:
        line("labels and outliers were not checked (--no-features)")
    for kind, title in KINDS.items():
        issues = found.of(kind)
        line(f"{title}: {len(issues):,}", "bold" if issues else "")
        for issue in issues[:_SHOWN]:
            line(f"  {issue.score:.2f} {issue.path or issue.class_name}: {issue.reason}")
        if len(issues) > _SHOWN:
            line(f"  and {len(issues) - _SHOWN:,} more")
