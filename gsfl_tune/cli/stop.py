"""``gsfl-tune stop``: the end of a search on a cluster, with its state saved."""

from __future__ import annotations

import argparse
import sys

from gsfl_tune.cli._base import FAILED, FINISHED, Command
from gsfl_tune.cli._cluster import add_address, add_job, conclude, jobs_at


class Stop(Command):
    """Stops a search so that it can be resumed."""

    name = "stop"
    help = "stop a search on a Ray cluster; it saves its state and can be resumed"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_job(parser, "the only search that runs")
        add_address(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Asks the search to stop, waits, prints how to resume it; returns 0 when it has ended."""
        jobs = jobs_at(args.address)
        job = jobs.choose(args.job, running=True)
        if job.over:
            print(f"{job.name} has already ended: {job.status.lower()}")
            return FINISHED
        if job.stop_seconds < 10:
            print(
                f"warning: Ray kills this job after {job.stop_seconds} s, trials may not save in "
                "time; those started with gsfl-tune submit get longer",
                file=sys.stderr,
            )
        print(f"stopping {job.name}: running trials come to the end of their epoch and save")
        job = jobs.stop(job)
        if not job.over:
            print(f"{job.name} has not ended", file=sys.stderr)
            return FAILED
        conclude(jobs, job)
        return FINISHED
