"""``gsfl-tune logs``: the output of a search on a cluster."""

from __future__ import annotations

import argparse

from gsfl_tune.cli._base import FINISHED, Command
from gsfl_tune.cli._cluster import add_address, add_job, follow, jobs_at


class Logs(Command):
    """Prints a job's log, and follows it on request."""

    name = "logs"
    help = "print the log of a search on a Ray cluster"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_job(parser, "the search that runs, else the newest")
        add_address(parser)
        parser.add_argument(
            "--follow",
            action="store_true",
            help="until the search ends, and return its exit code",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Prints the log."""
        jobs = jobs_at(args.address)
        job = jobs.choose(args.job, running=False)
        if args.follow:
            return follow(jobs, job.name)
        print(jobs.log(job.name), end="")
        return FINISHED
