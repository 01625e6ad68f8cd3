"""A search as a job: what is uploaded, the command that runs there, the one that resumes it."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gsfl_tune.cluster.jobs.client import Jobs
from gsfl_tune.cluster.jobs.upload import (
    Package,
    missing_files,
    refuse_without,
    secret_files,
    survey,
)
from gsfl_tune.experiment import Experiment, ExperimentError, LeafCheck, Problem, edit, nodes
from gsfl_tune.experiment.errors import UserError

# A run directory that may be lost: the run is kept in a storage.
_HEADS_OWN = "/tmp/gsfl-tune-runs"
_SHADOW = "gsfl_tune/__init__.py"
# Names of secrets, among them those of the storages of docs/storage.md.
_SECRET = re.compile(
    "TOKEN(?!IZER)|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL|(ACCESS|ACCOUNT|API|PRIVATE)_?KEY"
    "|CONN(ECTION)?_?STR|(^|_)(KEY|PWD|SAS)$",
    re.IGNORECASE,
)
# Who reads the name of a file has not read the file.
_FILE = re.compile("_(FILE|PATH|DIR)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/\s@:]*:[^/\s]+@")


@dataclass(frozen=True)
class Submission:
    """Holds a search that is ready to be submitted.

    Attributes:
        file: The experiment file as the user named it.
        relative: The same inside of the upload.
        name: The experiment's.
        run_dir: The run directory, absolute, on the cluster.
        overrides: ``path=value`` each.
        resume: Whether to continue the run that is there.
        change_space: Whether it may go on with another space.
        package: What is uploaded.
        environment: Variables of driver and workers.
        warnings: What may go wrong on the cluster.
    """

    file: str
    relative: str
    name: str
    run_dir: str
    overrides: Sequence[str]
    resume: bool
    change_space: bool
    package: Package
    environment: Mapping[str, str]
    warnings: Sequence[str]

    @property
    def command(self) -> str:
        """Returns what the cluster runs."""
        words = ["gsfl-tune", "search", self.relative, "--run-dir", self.run_dir]
        changed = ["--change-space"] if self.change_space else []
        return shlex.join([*words, *changed, *self._options(resume=self.resume)])

    def resume_command(self, address: str) -> str:
        """Returns what continues the run after it was stopped, or the cluster was lost."""
        words = ["gsfl-tune", "submit", self.file, "--address", address, "--run-dir", self.run_dir]
        for name, value in self.environment.items():
            words += ["--env", f"{name}={value}"]
        return shlex.join([*words, *self._options(resume=True)])

    def start(self, jobs: Jobs) -> str:
        """Uploads and starts it.

        Returns:
            The job's id.
        """
        slug = re.sub(r"[^A-Za-z0-9-]+", "-", self.name).strip("-")[:40] or "search"
        return jobs.submit(
            f"{slug}-{secrets.token_hex(3)}",
            self.command,
            working_dir=str(self.package.root),
            notes={
                "file": self.relative,
                "run_dir": self.run_dir,
                "resume": f"cd {shlex.quote(str(self.package.root))} && "
                + self.resume_command(jobs.address),
            },
            environment=self.environment,
        )

    def _options(self, *, resume: bool) -> list[str]:
        words = ["--resume"] if resume else []
        for override in self.overrides:
            words += ["--set", override]
        return words


def load_for_cluster(
    file: str, overrides: Sequence[str], checks: Mapping[str, LeafCheck]
) -> Experiment:
    """Loads an experiment whose files may be on the cluster alone.

    Raises:
        ExperimentError: With every problem but those of files outside of the current directory.
    """
    try:
        return Experiment.load(file, overrides, checks)
    except ExperimentError as error:
        remaining = [problem for problem in error.problems if not _is_elsewhere(problem)]
        if remaining:
            raise ExperimentError(remaining) from None
    problems: list[Problem] = []
    root = nodes.read_yaml(Path(file).read_text("utf-8"), file, problems)
    assert root is not None, "it was read before"
    for override in overrides:
        edit.override(root, override, problems)
    return Experiment(root, file, problems, None)


def prepare(
    experiment: Experiment,
    file: str,
    *,
    run_dir: str | None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    resume: bool = False,
    change_space: bool = False,
) -> Submission:
    """Checks what can be checked from here; the current directory is what is uploaded.

    Args:
        experiment: What `file` holds.
        file: The experiment file.
        run_dir: Where the run goes, as the cluster's nodes see it; None for a directory of
            the head's own, where the experiment has a storage.
        overrides: ``path=value`` each, passed on.
        environment: Variables of driver and workers.
        resume: Continue the run that is there.
        change_space: It may go on with another space.

    Raises:
        UserError: When the upload is too large or lacks the file, `run_dir` or a storage that is
            a path is relative, or there is neither.
    """
    storage = experiment.space.constants.get("storage")
    if storage is not None and "://" not in storage and not PurePosixPath(storage).is_absolute():
        raise UserError(
            f"storage: found the relative path {storage}; allowed for a job: an absolute path that "
            "every node mounts, or a URL"
        )
    if run_dir is None and storage is None:
        raise UserError(
            "--run-dir is missing; allowed: an absolute path on storage that every node mounts, or "
            "none with --set storage=URL"
        )
    if run_dir is None:
        run_dir = f"{_HEADS_OWN}/{experiment.name}"
    if not PurePosixPath(run_dir).is_absolute():
        raise UserError(
            f"--run-dir {run_dir}: found a relative path; a job runs in a copy of the working "
            "directory that is thrown away with the cluster; allowed: an absolute path on storage "
            "that every node mounts"
        )
    package = survey(Path.cwd())
    warnings = [*missing_files(package, experiment), *secret_files(package)]
    if _SHADOW in package.sizes:
        warnings.append(
            "the upload holds a folder gsfl_tune: its code runs, not what the cluster has installed"
        )
    return Submission(
        file=file,
        relative=refuse_without(package, file),
        name=experiment.name,
        run_dir=run_dir,
        overrides=tuple(overrides),
        resume=resume,
        change_space=change_space,
        package=package,
        environment=dict(environment or {}),
        warnings=warnings,
    )


def _is_elsewhere(problem: Problem) -> bool:
    """Whether a complaint is of a file that the cluster may have though this machine has not."""
    if problem.path not in edit.FILES:
        return False
    found = re.search(r"found '(/[^']*)'", problem.message)
    return found is not None and (
        "$" in found[1] or not PurePosixPath(found[1]).is_relative_to(Path.cwd())
    )


def parse_environment(entries: Sequence[str]) -> dict[str, str]:
    """Parses ``NAME=VALUE``, or ``NAME`` alone for the value of this process.

    Raises:
        UserError: For what is neither, or looks like a secret that everybody could read.
    """
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UserError(f"--env {name}: found no name of a variable; allowed is NAME=VALUE")
        if _SECRET.search(name) and not _FILE.search(name):
            raise UserError(
                f"--env {name}: looks like a secret, and whoever sees the dashboard can read the "
                "variables of a job; give secrets to the nodes themselves"
            )
        if not equals and name not in os.environ:
            raise UserError(f"--env {name}: is not set here; allowed is NAME=VALUE")
        found[name] = value if equals else os.environ[name]
        if _PASSWORD_IN_URL.search(found[name]):
            raise UserError(
                f"--env {name}: found a URL with a password, allowed one without, as whoever sees "
                "the dashboard can read the variables of a job; give secrets to the nodes "
                "themselves"
            )
    return found
