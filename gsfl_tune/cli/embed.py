"""``gsfl-tune embed``: features of images, as a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import FAILED, FINISHED, Command, add_engine, add_overrides, showing

if TYPE_CHECKING:
    from gsfl_tune.embed import Images, OnError
    from gsfl_tune.export import Bundle, ImageError


class Embed(Command):
    """Writes the features that a bundle computes from images."""

    name = "embed"
    help = (
        "write a Parquet file with the feature and its parts for every image; an unreadable image "
        "is reported on stderr, and the exit code is 1"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, such as RUN/best")
        parser.add_argument(
            "data",
            metavar="DATA",
            help="experiment file (all images, with its split), data set as for `evaluate` (all "
            "parts), or a folder or pattern of images without labels",
        )
        parser.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="FILE",
            required=True,
            help="where the table goes, features.parquet for one",
        )
        add_overrides(parser, example="data.path=/data/birds")
        add_engine(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Writes the table and describes it."""
        failed = 0

        def on_error(error: ImageError) -> None:
            nonlocal failed
            failed += 1
            display.say(str(error))

        with showing("loading PyTorch and the bundle", short=True) as display:
            from gsfl_tune.embed import embed
            from gsfl_tune.experiment import UserError
            from gsfl_tune.export.engine import Engine, load_for

            if args.output.is_dir():
                raise UserError(f"{args.output}: is a directory, allowed is the name of a file")
            engine = Engine.of(args.engine, args.precision)
            bundle = load_for(engine, args.bundle)
            # Limits of the bundle are reported before images are listed.
            _ = bundle.network
            images = _open(args.data, args.overrides, bundle, on_error)
            for notice in images.notices:
                display.say(notice)
            found = embed(bundle, images, args.output, engine)
            if failed:
                display.say(f"{failed:,} of {failed + found.rows:,} could not be read")
        sizes = ", ".join(f"{name} {size:,}" for name, size in found.sizes.items())
        print(f"wrote {found.rows:,} rows to {args.output} ({sizes} numbers each)")
        return FAILED if failed else FINISHED


def _open(path: str, overrides: list[str], bundle: Bundle, on_error: OnError) -> Images:
    from gsfl_tune.embed import UNBOXED, images_at, images_of_dataset
    from gsfl_tune.experiment import UserError
    from gsfl_tune.export import ImageError

    if not path.endswith((".yaml", ".yml")):
        if overrides:
            raise UserError(f"--set: found {path}, allowed with an experiment file (.yaml) only")
        return images_at(bundle, path, on_error)
    from gsfl_tune.data import prepare
    from gsfl_tune.data.labelled_images import as_trained
    from gsfl_tune.experiment import Experiment

    how, trained = bundle.preprocessing, bundle.config.get("data", {})
    config = as_trained(Experiment.load(path, overrides).defaults().data, trained, how.fit)
    dataset = prepare(config.model_copy(update={"shots": None}), side=how.side, reading=how.reading)
    for image in dataset.broken:
        on_error(ImageError(f"{image.path}: {image.reason}"))
    images = images_of_dataset(dataset)
    if trained.get("crop") == "box" and config.crop == "none":
        images.notices = [*images.notices, UNBOXED]
    return images
