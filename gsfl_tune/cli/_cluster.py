"""The common parts of the commands that talk to a cluster."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import FAILED, FINISHED, INTERRUPTED

if TYPE_CHECKING:
    from gsfl_tune.cluster import Job, Jobs


def add_address(parser: argparse.ArgumentParser) -> None:
    """Adds --address for the address of the dashboard."""
    parser.add_argument(
        "--address",
        metavar="URL",
        help="address of the dashboard, http://HOST:8265 (default: RAY_API_SERVER_ADDRESS)",
    )


def add_job(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds JOB."""
    parser.add_argument("job", metavar="JOB", nargs="?", help=f"id of a job (default: {default})")


def jobs_at(address: str | None) -> Jobs:
    """Returns the jobs of the cluster at an address; prints its notices."""
    from gsfl_tune.cluster import Jobs, connect

    connection = connect(address)
    for warning in connection.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return Jobs(connection)


def follow(jobs: Jobs, name: str) -> int:
    """Prints a job's log until the job ends.

    Returns:
        The search's exit code; 1 when the user stopped the output.
    """
    try:
        job = jobs.follow(name, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(
            f"\nthe log is no longer followed; {name} continues. To follow or stop it:\n"
            f"  gsfl-tune logs --address {jobs.address} {name} --follow\n"
            f"  gsfl-tune stop --address {jobs.address} {name}"
        )
        return FAILED
    return conclude(jobs, job)


def conclude(jobs: Jobs, job: Job) -> int:
    """Prints how a job ended and what continues it; returns the search's exit code."""
    code = job.search_exit_code(jobs.log(job.name))
    if job.trouble():
        print(f"{job.name}: {job.trouble()}", file=sys.stderr)
    print(f"{job.name}: {job.status.lower()}, exit code {code}")
    if code != FINISHED and job.resume:
        when = "" if code == INTERRUPTED else "once that is fixed, "
        print(f"{when}continue with:\n  {job.resume}")
    return code
