"""What earlier checks found, so that the same one needs neither PyTorch nor timm.

Their import takes longer than all else that ``gsfl-tune check`` does. An answer is kept in the
folder `checks` of the cache. Its key has all that decides it: the experiment with its overrides,
the number of images and classes, files that it names, the code of this package, installed packages,
and the machine. Experiments that name weights, teachers, storages or earlier runs are checked anew
each time, and so is one with a problem, or one where packages with extensions are installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._check_answer import Answer
from gsfl_tune.cli._check_data import Described, describe_data, learns_parts

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment

# Part of every key; raise it when the content of a file changes its meaning.
_FORMAT = 2
_FOLDER = "checks"
# More files than these, the oldest, are removed.
_MOST = 200
# A folder for each GPU, with its name in a file `information`.
_GPUS = Path("/proc/driver/nvidia/gpus")
_WEIGHTS = {None, "imagenet", "package", "none"}


@dataclass(frozen=True)
class Known:
    """Holds what is known of an experiment before PyTorch is imported.

    Attributes:
        experiment: The experiment, of which models were not checked; None where nothing is known.
        told: Lines about its images.
        images: Their number; None if unknown.
        file: Where the answer is, or will be; None if it may not be kept.
        answer: What an earlier check found.
    """

    experiment: Experiment | None = None
    told: list[str] = field(default_factory=list)
    images: int | None = None
    file: Path | None = None
    answer: Answer | None = None

    def keep(self, answer: Answer) -> None:
        """Writes an answer for the next check; a cache that cannot be written changes nothing."""
        if self.file is None:
            return
        from gsfl_tune.run.atomic import write_json

        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, asdict(answer))
            others = sorted(self.file.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)
            for old in others[:-_MOST]:
                old.unlink(missing_ok=True)


def remembered(args: argparse.Namespace) -> Known:
    """Looks up what an earlier check found of the same experiment on this machine."""
    from gsfl_tune.experiment import Experiment, UserError

    if args.measure:
        return Known()
    try:
        experiment = Experiment.load(args.file, overrides=args.overrides, checks={})
        if not _stands_alone(experiment):
            return Known()
        described = Described() if args.json else describe_data(experiment)
        file = _file(args, experiment, described)
    except (UserError, OSError):
        return Known()  # the check itself says what is wrong
    return Known(experiment, described.told, described.images, file, _read(file))


def _stands_alone(experiment: Experiment) -> bool:
    """Returns whether nothing besides its data, this package and the machine decides."""
    from gsfl_tune.plugins import GROUPS, plugins

    defaults = experiment.defaults()
    weights = {*experiment.values("model.weights"), *experiment.values("model.weights_b")}
    return not (
        weights - _WEIGHTS
        or any(each is not None for each in experiment.values("training.teacher"))
        or defaults.search.warm_start
        or experiment.values("storage") != [None]
        or learns_parts(experiment)
        or any(plugins(kind) for kind in GROUPS)
    )


def _file(args: argparse.Namespace, experiment: Experiment, described: Described) -> Path:
    from gsfl_tune.cache.entries import cache_directory
    from gsfl_tune.data.sources import count_classes

    classes = described.classes
    if classes is None:
        classes = count_classes(experiment.defaults().data)
    parts = (
        _FORMAT, experiment.to_yaml(), sorted(experiment.automatic),
        args.json, args.slots, args.price, described.images, classes,
        _files(experiment), _code(), _machine(),
    )  # fmt: skip
    key = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
    return cache_directory() / _FOLDER / f"{key}.json"


def _files(experiment: Experiment) -> list[tuple[object, ...]]:
    """Returns size and time of the files that an experiment names, such as a taxonomy."""
    from gsfl_tune.experiment.fields import leaves

    found: list[tuple[object, ...]] = []
    for path in leaves():
        for value in experiment.values(path):
            for name in value if isinstance(value, list | tuple) else (value,):
                if isinstance(name, str) and os.path.isfile(name):
                    about = os.stat(name)
                    found.append((path, name, about.st_size, about.st_mtime_ns))
    return found


def _code() -> tuple[object, ...]:
    """Returns what changes with the code of this package, and with installed packages."""
    import site
    from importlib.metadata import version

    own = hashlib.blake2b(digest_size=16)
    package = Path(__file__).parent.parent
    for folder, _, names in sorted(os.walk(package)):
        for name in sorted(names):
            if name.endswith(".py"):
                found = os.stat(os.path.join(folder, name))
                own.update(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}".encode())
    installed = [
        os.stat(each).st_mtime_ns
        for each in (*site.getsitepackages(), site.getusersitepackages())
        if os.path.isdir(each)
    ]
    versions = [version(name) for name in ("timm", "torch", "torchvision")]
    return (own.hexdigest(), sys.version, versions, installed)


def _machine() -> tuple[object, ...]:
    """Returns what changes with the machine: an answer names its memory and its precision."""
    import psutil

    from gsfl_tune.cores import processor, usable_cores

    gpus = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    memory = psutil.virtual_memory().total
    return (processor(), usable_cores(), memory, sys.platform, gpus, visible, _gpu_models())


def _gpu_models() -> list[str]:
    """Returns the names of the GPUs, which tell their memory; not what differs by single GPU."""
    with suppress(OSError):
        return sorted(
            line
            for each in _GPUS.glob("*/information")
            for line in each.read_text(errors="replace").splitlines()
            if line.startswith("Model:")
        )
    return []


def _read(file: Path) -> Answer | None:
    """Returns the answer in a file; None if there is none, or it is damaged."""
    from gsfl_tune.run.atomic import read_json

    try:
        found = Answer(**read_json(file))
    except (OSError, ValueError, TypeError):
        return None
    texts = isinstance(found.notes, list) and isinstance(found.cost, dict)
    return found if texts and isinstance(found.rows, dict) else None
