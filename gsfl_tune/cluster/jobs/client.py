"""Searches as Ray jobs: start, watch, stop, and what they ended with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gsfl_tune.cluster.jobs.connection import Connection, explained
from gsfl_tune.experiment.errors import UserError, first_line

# Ray kills a job's driver this long after SIGTERM; its default, 3 s, is less than trials need to
# come to the end of an epoch and save.
STOP_SECONDS = 120
STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
_MARK = "gsfl_tune"
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_POLL_SECONDS = 0.5
_FINISHED, _FAILED, _INTERRUPTED = 0, 1, 3
_RECONNECT_SECONDS = (1, 2, 5, 10, 20, 40)


@dataclass(frozen=True)
class Job:
    """Holds a job of the cluster as it is now.

    Attributes:
        name: The id under which it was submitted.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        exit_code: Of the driver, where it came to its own end.
        message: What Ray says of it.
        entrypoint: The command.
        started: Seconds since 1970; 0 where unknown.
        ended: The same; 0 while it runs.
        metadata: What `submit` noted: ``file``, ``run_dir``, ``resume``.
        stop_seconds: How long after SIGTERM it is killed.
    """

    name: str
    status: str
    exit_code: int | None
    message: str
    entrypoint: str
    started: float
    ended: float
    metadata: Mapping[str, str]
    stop_seconds: int

    @property
    def over(self) -> bool:
        """Returns whether it has ended."""
        return self.status in _ENDED

    @property
    def is_search(self) -> bool:
        """Returns whether `gsfl-tune submit` started it."""
        return _MARK in self.metadata

    @property
    def resume(self) -> str:
        """Returns the command that continues its search; empty for other jobs."""
        return self.metadata.get("resume", "")

    @property
    def seconds(self) -> float:
        """Returns how long it ran, or runs."""
        return max(0.0, (self.ended or time.time()) - self.started) if self.started else 0.0

    def search_exit_code(self, log: str) -> int:
        """Returns what ``gsfl-tune search`` returned or would have returned: 0, 1, 2 or 3.

        Args:
            log: The end of its log. Ray keeps no exit code of a job that was stopped; the driver's
                last line tells whether there is something to resume.
        """
        if self.status == "SUCCEEDED":
            return _FINISHED
        if self.status == "STOPPED":
            last = log.strip().splitlines()[-1:]
            return _FAILED if last == ["interrupted"] else _INTERRUPTED
        return self.exit_code if self.exit_code in (1, 2, 3) else _FAILED

    def trouble(self) -> str:
        """Returns why a job failed that has no exit code of the search's; empty for all others."""
        if self.status != "FAILED" or self.exit_code in (1, 2, 3):
            return ""
        if self.exit_code == 127:
            return (
                "the head has no gsfl-tune on the PATH of its Ray: install it there, or use an "
                "image that has it (clusters/Dockerfile)"
            )
        if self.exit_code is not None and (self.exit_code < 0 or self.exit_code > 128):
            # A shell adds 128 to the number of the signal that ended its child.
            return f"the driver was killed by signal {abs(self.exit_code) % 128}"
        if self.exit_code is not None:
            return f"the driver ended with exit code {self.exit_code}"
        return self.message.strip() or "Ray does not say why"


class Jobs:
    """Holds the jobs of one cluster.

    Args:
        connection: To its dashboard.
    """

    def __init__(self, connection: Connection) -> None:
        self.address = connection.address
        self._client = connection.client()

    def submit(
        self,
        name: str,
        command: str,
        *,
        working_dir: str,
        notes: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> str:
        """Uploads a directory and starts a command in it, on the head.

        Args:
            name: Id of the job; must be new to the cluster.
            command: For a shell.
            working_dir: The directory.
            notes: Kept with the job, readable by all who reach the cluster.
            environment: Variables of the driver and of every worker.

        Returns:
            The job's id.
        """
        with self._explained(name):
            return str(
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=name,
                    runtime_env={
                        "working_dir": working_dir,
                        "env_vars": {STOP_VARIABLE: str(STOP_SECONDS), **environment},
                    },
                    metadata={_MARK: "search", **notes},
                )
            )

    def job(self, name: str) -> Job:
        """Returns one job.

        Raises:
            UserError: When there is none of this name.
        """
        with self._explained(name):
            return _job(self._client.get_job_info(name))

    def all(self) -> list[Job]:
        """Returns every job that was submitted, newest first."""
        with self._explained(""):
            found = [_job(entry) for entry in self._client.list_jobs() if entry.submission_id]
        return sorted(found, key=lambda job: -job.started)

    def choose(self, name: str | None, *, running: bool) -> Job:
        """Returns the job of a name, else the only search that fits.

        Args:
            name: What the user named, if anything.
            running: Look among running searches only; else the newest search is taken.

        Raises:
            UserError: When there is none, or more than one that could be meant.
        """
        if name is not None:
            return self.job(name)
        searches = [job for job in self.all() if job.is_search]
        under_way = [job for job in searches if not job.over]
        chosen = under_way if running else under_way or searches[:1]
        if len(chosen) == 1:
            return chosen[0]
        what = "running search" if running else "search"
        if not chosen:
            raise UserError(f"{self.address}: found no {what}; gsfl-tune status lists all jobs")
        names = ", ".join(job.name for job in chosen)
        raise UserError(f"{self.address}: found {len(chosen)} running searches, name one: {names}")

    def log(self, name: str) -> str:
        """Returns all that a job has printed."""
        with self._explained(name):
            return str(self._client.get_job_logs(name))

    def follow(self, name: str, write: Callable[[str], Any]) -> Job:
        """Passes on what a job prints until it ends.

        A connection that breaks is made again for more than a minute; nothing is printed twice.

        Raises:
            UserError: When the cluster does not come back.
        """
        follower = _Follower(self._client, name, write)
        tries = iter(_RECONNECT_SECONDS)
        while True:
            try:
                asyncio.run(follower.run())
                return self.wait(name, None)
            except Exception as error:
                if follower.alive:
                    tries = iter(_RECONNECT_SECONDS)
                seconds = next(tries, None)
                if seconds is None or not _is_transient(error):
                    with self._explained(name):
                        raise
                time.sleep(seconds)

    def wait(self, name: str, seconds: float | None) -> Job:
        """Waits for a job's end, at most so long.

        Returns:
            The job, ended or not.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            job = self.job(name)
            if job.over or (deadline is not None and time.monotonic() >= deadline):
                return job
            time.sleep(_POLL_SECONDS)

    def stop(self, job: Job) -> Job:
        """Asks a search to save and end (SIGTERM), and waits for it.

        Returns:
            The job, ended unless Ray did not do what it says.
        """
        with self._explained(job.name):
            self._client.stop_job(job.name)
        return self.wait(job.name, job.stop_seconds + 30)

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            with explained(self.address):
                yield
        except RuntimeError as error:
            text = str(error)
            if "does not exist" in text and name:
                raise UserError(
                    f"{self.address}: found no job {name}; gsfl-tune status lists them"
                ) from None
            raise UserError(f"{self.address}: {first_line(error)[:500]}") from None


def clock(seconds: float) -> str:
    """Returns the local date and time of a moment."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "-"


def table(jobs: Sequence[Job]) -> str:
    """Formats jobs as aligned text, one a line."""
    rows = [("JOB", "STATUS", "STARTED", "RAN", "RUN DIRECTORY")]
    for job in jobs:
        code = f" ({job.exit_code})" if job.exit_code else ""
        place = job.metadata.get("run_dir", "") if job.is_search else f"[{job.entrypoint[:60]}]"
        rows.append(
            (job.name, job.status + code, clock(job.started), _duration(job.seconds), place)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _job(entry: Any) -> Job:
    variables = (entry.runtime_env or {}).get("env_vars") or {}
    seconds = str(variables.get(STOP_VARIABLE, ""))
    metadata = entry.metadata or {}
    # Values of the environment may be blanked out in what the dashboard tells.
    default = STOP_SECONDS if _MARK in metadata else 3
    return Job(
        name=str(entry.submission_id or entry.job_id),
        status=str(getattr(entry.status, "value", entry.status)),
        exit_code=entry.driver_exit_code,
        message=entry.message or "",
        entrypoint=entry.entrypoint or "",
        started=(entry.start_time or 0) / 1000,
        ended=(entry.end_time or 0) / 1000,
        metadata=metadata,
        stop_seconds=int(seconds) if seconds.isdecimal() else default,
    )


@dataclass
class _Follower:
    """Passes on a job's log once, however often the connection is made anew."""

    client: Any
    name: str
    write: Callable[[str], Any]
    position: int = 0
    alive: bool = False

    async def run(self) -> None:
        """Until the log ends; Ray tells it from the beginning every time."""
        self.alive = False
        position = 0
        async with aclosing(self.client.tail_job_logs(self.name)) as stream:
            async for text in stream:
                self.alive = True
                start = max(self.position - position, 0)
                position += len(text)
                if start < len(text):
                    self.write(text[start:])
                self.position = max(self.position, position)


def _is_transient(error: Exception) -> bool:
    import aiohttp

    if isinstance(error, aiohttp.WSServerHandshakeError):
        return error.status >= 500
    if isinstance(error, RuntimeError):
        return "WebSocket" in str(error)
    return isinstance(error, (aiohttp.ClientError, OSError, UserError))
