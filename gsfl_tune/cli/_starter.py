"""The generated experiment for the images at a path, used by `init` and `search`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.data.survey import Survey
    from gsfl_tune.experiment import Experiment
    from gsfl_tune.experiment.data_config import DataConfig

# Keys of `data` that follow from the images.
_WRITTEN = ("image_size", "fit", "split", "views", "augment")


@dataclass(frozen=True)
class Starter:
    """Holds a generated experiment.

    Attributes:
        name: Name of the experiment.
        text: Text of the file.
        found: Facts about the images.
        image_size: Side in pixels that the backbone sees.
    """

    name: str
    text: str
    found: Survey
    image_size: int


def names_images(path: str) -> bool:
    """Returns whether a command's argument names images rather than an experiment file."""
    if path.endswith((".yaml", ".yml")):
        return False
    if os.path.isdir(path) or "://" in path or any(c in path for c in "*?["):
        return True
    if not os.path.exists(path):
        return False
    from gsfl_tune.data.sources import detect_source
    from gsfl_tune.experiment import UserError

    try:
        return bool(detect_source(path))
    except UserError:
        return False


def make_starter(
    path: str, overrides: Sequence[str], *, quick: bool = False, absolute: bool = False
) -> Starter:
    """Inspects images and writes an experiment for them.

    Args:
        path: Location of the images.
        overrides: ``PATH=VALUE`` each; those of ``data`` determine how the images are listed.
        quick: Whether the backbone stays frozen.
        absolute: Whether the file will be read from another directory than this one.

    Raises:
        UserError: If there are no images of two classes, or an override is wrong.
    """
    from gsfl_tune.data.survey import survey
    from gsfl_tune.experiment import UserError
    from gsfl_tune.experiment.starter import Facts, starter_text
    from gsfl_tune.models import PACKAGES, installed_packages
    from gsfl_tune.run import RunDirectory

    if RunDirectory(path).manifest_file.is_file():
        raise UserError(
            f"{path}: found a run directory, allowed are images; to continue the run, repeat "
            f"its own argument with --run-dir {path} --resume"
        )
    name, config = _described(path, overrides)
    found = survey(config)
    packages = installed_packages()
    where = os.path.abspath(path) if absolute and os.path.exists(path) else path
    facts = Facts(
        data={"source": found.source, "path": where, **_listed(config, overrides)},
        parts=found.parts,
        class_count=len(found.classes),
        short_side=found.short_side,
        class_ratio=found.largest_class / found.smallest_class,
        backbones=packages or list(PACKAGES),
        weights="package" if packages else "imagenet",
    )
    return Starter(name, starter_text(name, facts, quick=quick), found, facts.image_size)


def experiment_of_images(args: argparse.Namespace, notice: Callable[[str], None]) -> Experiment:
    """Returns the experiment of ``search PATH``: a new one, or the one in the run directory.

    Args:
        args: Arguments of `search`; ``file`` names images.
        notice: Receives messages on what was found and written.

    Raises:
        UserError: If there are no images of two classes, the run cannot be begun or continued, or
            it was begun with an experiment file.
    """
    from gsfl_tune.cli._base import load_experiment
    from gsfl_tune.experiment import UserError
    from gsfl_tune.run import RunDirectory, write_text
    from gsfl_tune.search import check_run

    name, _ = _described(args.file, args.overrides)
    run = RunDirectory(args.run_dir or Path("runs") / name)
    kept = run.starter_file
    # Before the file is written. A run in a storage is checked when the storage is open.
    if not any(text.startswith("storage=") for text in args.overrides):
        check_run(run, resume=args.resume)
    if args.resume is False or not kept.is_file():
        if args.resume is not False and run.manifest_file.is_file():
            raise UserError(
                f"{run.path}: the run was begun with an experiment file, found {args.file}; "
                "allowed is that file"
            )
        starter = make_starter(args.file, args.overrides, absolute=True)
        write_text(kept, starter.text)
        for line in [*said(args.file, starter), f"wrote the experiment: {kept}"]:
            notice(line)
    return load_experiment(argparse.Namespace(**{**vars(args), "file": str(kept)}))


def refuse_unwritten(overrides: Sequence[str]) -> None:
    """Refuses overrides that belong in the file that is about to be written.

    Raises:
        UserError: With a line for each.
    """
    from gsfl_tune.experiment import UserError

    wrong = [
        f"--set {text.partition('=')[0]}: allowed are keys of `data` that say how the images are "
        "listed (data.classes, data.config, ...); anything else is changed in the file"
        for text in overrides
        if not _lists(text)
    ]
    if wrong:
        raise UserError("\n".join(wrong))


def _lists(override: str) -> bool:
    section, _, key = override.partition("=")[0].partition(".")
    return section == "data" and "." not in key and key not in (*_WRITTEN, "path")


def _described(path: str, overrides: Sequence[str]) -> tuple[str, DataConfig]:
    """Returns the name of the experiment, and the section ``data`` that lists its images."""
    from gsfl_tune.experiment import Experiment, UserError
    from gsfl_tune.experiment.starter import name_of

    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path!r}: found a name that is not UTF-8; rename it") from error
    # JSON is valid YAML, whatever the path contains.
    content = json.dumps({"name": name_of(path), "data": {"path": path}}, ensure_ascii=False)
    ours = [text for text in overrides if text.startswith(("data.", "name="))]
    experiment = Experiment.parse(content, file=path, overrides=ours)
    return experiment.name, experiment.defaults().data


def _listed(config: DataConfig, overrides: Sequence[str]) -> dict[str, Any]:
    keys = [text.partition("=")[0].removeprefix("data.") for text in overrides if _lists(text)]
    return {key: getattr(config, key) for key in keys if key != "source"}


def said(path: str | Path, starter: Starter) -> list[str]:
    """Describes the images in lines for the user."""
    from gsfl_tune.data.messages import reasons_told

    found = starter.found
    parts = [f"{part} {count:,}" for part, count in found.parts.items() if part]
    loose = found.parts.get("")
    if loose and parts:
        parts.append(f"{loose:,} without a part")
    given = f" ({', '.join(parts)})" if parts else ", without parts of their own"
    looked = found.sampled + len(found.broken)
    unopened = reasons_told(found.broken)
    if unopened:
        unopened.append(f"{len(found.broken)} of {looked} images looked at cannot be opened")
    side = (
        f"shorter side {found.short_side} px (median of {found.sampled})"
        if found.short_side
        else "none of those looked at can be opened"
    )
    lines = [
        f"{path}: {len(found.classes):,} classes, {found.images:,} images{given}",
        f"read as {found.source}; {side}; image_size {starter.image_size}",
    ]
    # Reasons come before what is missing.
    return [*found.notices, *unopened, *lines] if unopened else [*lines, *found.notices]
