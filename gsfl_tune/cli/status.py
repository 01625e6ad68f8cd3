"""``gsfl-tune status``: the jobs of a cluster."""

from __future__ import annotations

import argparse

from gsfl_tune.cli._base import FINISHED, Command
from gsfl_tune.cli._cluster import add_address, add_job, conclude, jobs_at


class Status(Command):
    """Lists jobs, or shows one job."""

    name = "status"
    help = "list the jobs of a Ray cluster, or show the state of one"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_job(parser, "a table of all")
        add_address(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Prints the jobs; the exit code is 0 whatever the state of a job."""
        from gsfl_tune.cluster import table

        jobs = jobs_at(args.address)
        if args.job is None:
            found = jobs.all()
            print(table(found) if found else f"{jobs.address}: no jobs")
            return FINISHED
        job = jobs.job(args.job)
        print(table([job]))
        if job.over:
            conclude(jobs, job)
        else:
            print("\n".join(jobs.log(job.name).splitlines()[-5:]))
        return FINISHED
