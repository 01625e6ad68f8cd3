"""Answers of ``gsfl-tune check`` that are kept in the cache: most of its time is loading PyTorch.

An answer is kept where it follows from what its key names: the file, the arguments, the code, the
installed packages, and this machine. So nothing is kept for experiments that name files or list
images, on a machine with a GPU, or where packages add extensions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsfl_tune.cache.entries import cache_directory
from gsfl_tune.cores import usable_cores

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment

_MOST = 100
# Variables that decide what libraries find, and where.
_VARIABLES = ("GSFL_TUNE", "HF_", "TORCH", "TIMM", "CUDA", "RAY_", "PYTHON")
_INSTALLED = (".dist-info", ".egg-info", ".egg-link", ".pth")


class KeptAnswer:
    """The place of one answer.

    In a process that has loaded PyTorch already, nothing is read or written: there is no time to
    save.

    Args:
        args: Arguments of the command.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._path: Path | None = None
        # A pipe can be read only once.
        whole = Path(args.file).is_file() and not args.measure
        if "torch" not in sys.modules and whole and _bare_cpu():
            with suppress(OSError):
                name = hashlib.blake2b(repr(_key(args)).encode(), digest_size=16).hexdigest()
                self._path = cache_directory() / "checks" / f"{name}.json"

    def read(self) -> dict[str, Any] | None:
        """Returns the answer; None if there is none."""
        if self._path is None:
            return None
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):  # none, or not written to its end
            return None
        with suppress(OSError):
            os.utime(self._path)
        return found if isinstance(found, dict) else None

    def write(self, experiment: Experiment, answer: dict[str, Any]) -> None:
        """Keeps an answer, if it follows from its key; a cache that cannot be written is left out.

        Args:
            experiment: The experiment, which is valid.
            answer: Plain values.
        """
        if self._path is None or not _follows(experiment, self._args):
            return
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(answer))
            os.replace(temporary, self._path)
            files = sorted(self._path.parent.iterdir(), key=lambda file: -file.stat().st_mtime_ns)
            for old in files[_MOST:]:
                old.unlink()


def _bare_cpu() -> bool:
    """Returns whether this machine surely has no GPU, without asking PyTorch."""
    if sys.platform != "linux":
        return False
    devices = (Path("/dev/kfd"), Path("/dev/dxg"), *Path("/dev").glob("nvidia*"))
    return not any(device.exists() for device in devices)


def _key(args: argparse.Namespace) -> tuple[object, ...]:
    given = {name: repr(value) for name, value in vars(args).items() if name != "run"}
    variables = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    return (
        Path(args.file).read_bytes(),
        sorted(given.items()),
        sorted(variables.items()),
        sys.version,
        tuple(_code()),
        tuple(_installed()),
        (usable_cores(), os.sysconf("SC_PHYS_PAGES"), _processor()),
    )


def _code() -> Iterator[tuple[str, int, int]]:
    """Yields path, size and time of every file of this package."""
    for folder, _, names in sorted(os.walk(Path(__file__).parents[1])):
        for name in sorted(names):
            if name.endswith(".py"):
                file = os.path.join(folder, name)
                about = os.stat(file)
                yield file, about.st_size, about.st_mtime_ns


def _installed() -> Iterator[tuple[str, str, int]]:
    """Yields the names, with versions, and times of what is installed."""
    for folder in sys.path:
        with suppress(OSError):
            for entry in sorted(os.scandir(folder or "."), key=lambda entry: entry.name):
                if entry.name.endswith(_INSTALLED):
                    yield folder, entry.name, entry.stat().st_mtime_ns


def _processor() -> str:
    """Returns the lines about what the CPU can do."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    wanted = ("model name", "flags", "Features")
    return repr(sorted({line for line in lines if line.startswith(wanted)}))


def _follows(experiment: Experiment, args: argparse.Namespace) -> bool:
    """Returns whether nothing but the key decides what an experiment costs."""
    from importlib.metadata import entry_points

    import yaml

    from gsfl_tune.plugins import GROUPS

    if experiment.values("data.source") != ["typefaces"]:  # the only one that lists no images
        return False
    if any(entry_points(group=group) for group in GROUPS.values()):
        return False
    texts = [*_texts(yaml.safe_load(Path(args.file).read_text()))]
    texts += [override.partition("=")[2] for override in args.overrides]
    return not any(_names_a_file(text) for text in texts)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def _names_a_file(text: str) -> bool:
    return any(letter in text for letter in "/\\~") or os.path.lexists(text)
