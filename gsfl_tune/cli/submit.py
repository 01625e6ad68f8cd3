"""``gsfl-tune submit``: a search on a cluster, started through its dashboard."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import (
    FINISHED,
    Command,
    add_budget,
    add_experiment_arguments,
    budget_overrides,
    refuse_change_without_resume,
)
from gsfl_tune.cli._cluster import add_address, follow, jobs_at

if TYPE_CHECKING:
    from gsfl_tune.cluster import Package


class Submit(Command):
    """Uploads the current directory and starts a search on a cluster."""

    name = "submit"
    help = "search on a Ray cluster: upload the current directory and start a job"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_experiment_arguments(parser)
        add_address(parser)
        parser.add_argument(
            "--run-dir",
            metavar="DIR",
            help="run directory on storage that every node mounts, an absolute path; not needed "
            "with --set storage=URL",
        )
        parser.add_argument(
            "--env",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a variable of the driver and the workers; may be given many times",
        )
        parser.add_argument(
            "--resume", action="store_true", help="continue the run that is in the directory"
        )
        parser.add_argument(
            "--change-space",
            action="store_true",
            help="with --resume: the file may have another space, see search",
        )
        add_budget(parser)
        parser.add_argument(
            "--follow",
            action="store_true",
            help="print the log until the search ends, and return its exit code",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="check everything, upload and start nothing"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Checks, uploads, starts and follows the search."""
        from gsfl_tune.cluster import load_for_cluster, parse_environment, prepare
        from gsfl_tune.models import backbone_problem
        from gsfl_tune.run.storage import storage_problem

        refuse_change_without_resume(args)
        args.overrides = [*args.overrides, *budget_overrides(args)]
        environment = parse_environment(args.env)
        jobs = jobs_at(args.address)
        submission = prepare(
            load_for_cluster(
                args.file,
                args.overrides,
                {"model.backbone": backbone_problem, "storage": storage_problem},
            ),
            args.file,
            run_dir=args.run_dir,
            overrides=args.overrides,
            environment=environment,
            resume=args.resume,
            change_space=args.change_space,
        )
        _show(submission.package)
        for warning in submission.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"command: {submission.command}")
        if args.dry_run:
            return FINISHED
        name = submission.start(jobs)
        print(f"job: {name}", flush=True)
        if args.follow:
            return follow(jobs, name)
        place = f"--address {jobs.address} {name}"
        print(f"to watch it:    gsfl-tune logs {place} --follow")
        print(f"to end it:      gsfl-tune stop {place}")
        print(f"to continue it: {submission.resume_command(jobs.address)}")
        return FINISHED


def _show(package: Package) -> None:
    from gsfl_tune.cluster import size

    print(f"upload: {len(package.sizes)} files, {size(package.total)}, from {package.root}")
    folders = package.folders()
    for name, files, length in folders[:10]:
        count = f"  {files} files" if name.endswith("/") else ""
        print(f"  {size(length):>9}  {name}{count}")
    if len(folders) > 10:
        rest = folders[10:]
        print(f"  {size(sum(row[2] for row in rest)):>9}  in {len(rest)} more")
