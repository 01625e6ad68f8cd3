"""What a job takes along: the files of a directory as Ray would upload them, and what it leaves."""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from gsfl_tune.experiment import Experiment, edit
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.units import binary_size

# The dashboard refuses packages over 100 MiB; the archive's own headers need some of it.
MAX_BYTES = 90 * 1024**2
_SECRETS = (
    *(".env", ".env.*", ".netrc", ".pgpass", "auth_token", "credentials", "credentials.json"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "id_rsa", "id_ed25519", "id_ecdsa", "kubeconfig"),
)
_IGNORE_FILES = (".gitignore", ".rayignore")


@dataclass(frozen=True)
class Package:
    """Holds the upload of a job.

    Attributes:
        root: The directory, absolute.
        sizes: Bytes of every file that goes along, by path relative to `root`.
    """

    root: Path
    sizes: dict[str, int]

    @property
    def total(self) -> int:
        """Counts the bytes of all files; Ray stores them uncompressed."""
        return sum(self.sizes.values())

    def largest(self, count: int) -> list[tuple[str, int]]:
        """Returns the largest files, largest first."""
        return sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))[:count]

    def folders(self) -> list[tuple[str, int, int]]:
        """Lists what lies directly in `root`: name, number of files, bytes; largest first."""
        files: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for path, length in self.sizes.items():
            first, slash, _ = path.partition("/")
            files[first + slash] += 1
            size[first + slash] += length
        return sorted(
            ((name, files[name], size[name]) for name in files), key=lambda row: (-row[2], row[0])
        )


def survey(root: Path) -> Package:
    """Lists what Ray would upload of a directory, by Ray's own rules.

    Raises:
        UserError: When there is nothing to upload, a file cannot be read, or it is too much.
    """
    folder = root.absolute()
    package = Package(folder, _sizes(folder))
    if not package.sizes:
        rule = _rule_against(folder, folder)
        why = (
            f"a rule in {rule} matches the directory itself (`.*` does; `.[!.]*` does not)"
            if rule
            else "it is empty, or ignore rules leave everything out"
        )
        raise UserError(f"{root}: nothing would be uploaded: {why}")
    if package.total > MAX_BYTES:
        lines = [f"  {binary_size(length):>9}  {path}" for path, length in package.largest(10)]
        raise UserError(
            f"{root}: found {binary_size(package.total)} in {len(package.sizes)} files, "
            f"allowed are {binary_size(MAX_BYTES)}; data belongs on storage that the cluster "
            "reaches. Leave files out with lines in .rayignore. The largest:\n" + "\n".join(lines)
        )
    return package


def refuse_without(package: Package, file: str | Path) -> str:
    """Returns the experiment file's path in the upload.

    Raises:
        UserError: When it lies outside, or an ignore rule leaves it out.
    """
    path = Path(os.path.abspath(file))
    if not path.is_relative_to(package.root):
        raise UserError(
            f"{file}: lies outside of what is uploaded, the current directory {package.root}; "
            "allowed: a file below it"
        )
    relative = path.relative_to(package.root).as_posix()
    if relative not in package.sizes:
        raise UserError(
            f"{file}: is left out of the upload by {_rule_against(package.root, path)}; "
            "change the rule or move the file"
        )
    return relative


def missing_files(package: Package, experiment: Experiment) -> list[str]:
    """Lists what the experiment names and the upload does not hold, one line each."""
    return [
        f"{leaf}: {problem}"
        for leaf in edit.FILES
        for value in _named_files(experiment, leaf)
        if (problem := _problem(package, value))
    ]


def secret_files(package: Package) -> list[str]:
    """Lists files of the upload that look like secrets, one line each."""
    return [
        f"{path} looks like a secret and would be uploaded; leave it out with a line in .rayignore"
        for path in sorted(package.sizes)
        if any(fnmatch(path.rpartition("/")[2].lower(), pattern) for pattern in _SECRETS)
    ]


def _sizes(folder: Path) -> dict[str, int]:
    # Private, but the only place that knows; a test compares it with the archive that Ray makes.
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging

    found: dict[str, int] = {}

    def add(path: Path) -> None:
        kind = path.stat().st_mode if path.exists() else 0
        if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            # Ray reads whatever is not a directory: of these it would never see the end.
            raise UserError(
                f"{path}: found a named pipe or a device, allowed are files and directories; "
                "leave it out with a line in .rayignore"
            )
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
            if not os.access(path, os.R_OK):
                raise PermissionError(13, "Permission denied", str(path))

    silent = logging.getLogger(f"{__name__}.silent")
    silent.disabled = True
    excludes = packaging._get_excludes(folder, ray_constants.get_runtime_env_default_excludes())
    try:
        packaging._dir_travel(
            folder, [excludes], add, include_gitignore=_respects_gitignore(), logger=silent
        )
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror}; it would be uploaded: mend it or "
            "leave it out with a line in .rayignore"
        ) from error
    return found


def _respects_gitignore() -> bool:
    return os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"


def _rule_against(root: Path, path: Path) -> str:
    """Which ignore file leaves a path out, relative to the root."""
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging

    inside = path.relative_to(root)
    steps = [root, *(root / parent for parent in reversed(inside.parents[:-1])), path]
    for folder in dict.fromkeys(steps):
        for name in _IGNORE_FILES:
            if name == ".gitignore" and not _respects_gitignore():
                continue
            matches = packaging._get_ignore_file(folder, name) if folder.is_dir() else None
            if matches and any(matches(step) for step in steps if step.is_relative_to(folder)):
                return (folder / name).relative_to(root).as_posix()
    defaults = ray_constants.get_runtime_env_default_excludes()
    matches = packaging._get_excludes(root, defaults)
    return f"Ray's own rules ({', '.join(defaults)})" if any(map(matches, steps)) else ""


def _named_files(experiment: Experiment, leaf: str) -> Iterator[str]:
    for value in experiment.values(leaf):
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str) and entry not in edit.NOT_FILES.get(leaf, ()):
                yield entry


def _problem(package: Package, value: str) -> str | None:
    """What is wrong with an absolute path, as experiments make them."""
    path = Path(value)
    if "://" in value or "$" in value:
        return None
    if not path.is_relative_to(package.root):
        # What is not here either, only the cluster can know.
        there = "is not uploaded, the cluster must have it under this path"
        return f"{value} {there}" if path.exists() else None
    inside = path.relative_to(package.root).as_posix()
    pattern = glob.has_magic(value) and not path.exists()
    found = glob.glob(value, recursive=True) if pattern else [value]
    files = [file for name in found for file in _files(Path(name))]
    left_out = [
        file for file in files if file.relative_to(package.root).as_posix() not in package.sizes
    ]
    if not left_out:
        return None
    rule = _rule_against(package.root, left_out[0])
    count = f"{len(left_out)} of {len(files)} files are" if len(files) > 1 else "it is"
    return f"{inside}: {count} left out of the upload by {rule}"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [
        Path(folder) / name
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
    ]
