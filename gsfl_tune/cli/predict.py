"""``gsfl-tune predict``: the classes of images."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import (
    BAD_INPUT,
    FAILED,
    FINISHED,
    Command,
    add_engine,
    add_files_from,
    positive,
    showing,
)

if TYPE_CHECKING:
    from gsfl_tune.activity import Activity
    from gsfl_tune.activity.display import Display
    from gsfl_tune.data.named_images import NotFound
    from gsfl_tune.export import Bundle, ImageError, LazyImage, Prediction
    from gsfl_tune.export.prediction_files import PredictionFile


class Predict(Command):
    """Predicts images with an exported bundle."""

    name = "predict"
    help = (
        "name the most probable classes of images; an unreadable image is reported on stderr, "
        "the others are predicted, and the exit code is 1 (2 if no image exists)"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, such as RUN/best")
        parser.add_argument(
            "images",
            metavar="IMAGE",
            nargs="*",
            help="image file, folder with all below it, pattern ('photos/**/*.jpg'), or URL",
        )
        add_files_from(parser)
        parser.add_argument(
            "--allow-url",
            action="store_true",
            help="fetch http and https URLs: at most 50 MB, 30 s and 3 redirects each",
        )
        parser.add_argument(
            "--top", type=positive, default=5, metavar="N", help="classes per image (default 5)"
        )
        parser.add_argument(
            "--threshold",
            metavar="P",
            help="answer `unknown` if the most probable class is below this: a probability, "
            "`auto` (half of the validation errors were), or `auto:0.8` (that share of them)",
        )
        add_engine(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        for kind in ("csv", "parquet"):
            parser.add_argument(
                f"--{kind}",
                type=Path,
                metavar="OUT",
                help=f"write a {kind} file, one row per image; then only --json is printed too",
            )

    def run(self, args: argparse.Namespace) -> int:
        """Predicts and prints."""
        with showing("loading PyTorch and the bundle", short=True) as display, ExitStack() as stack:
            from gsfl_tune.activity import activity
            from gsfl_tune.data.arriving import as_they_come
            from gsfl_tune.data.named_images import NamedImages, names_of_list
            from gsfl_tune.experiment import UserError
            from gsfl_tune.export.engine import Engine, load_for
            from gsfl_tune.export.quicken import quickened

            if not args.images and not args.files_from:
                raise UserError(
                    "no image is named: give files, folders, patterns, URLs, or --files-from"
                )
            engine = Engine.of(args.engine, args.precision)
            bundle = load_for(engine, args.bundle)
            threshold = None
            if args.threshold is not None:
                threshold = bundle.threshold(args.threshold, "--threshold")
            names = chain(args.images, chain.from_iterable(map(names_of_list, args.files_from)))
            named = NamedImages(names, allow_url=args.allow_url, any_name=True)
            tables = _tables(args, bundle, threshold, stack)
            total = None
            # A list may still be written, so its images are predicted as they come.
            runs: Iterable[Iterable[str | NotFound]] = as_they_come(named)
            if not args.files_from:
                with activity("listing the images"):
                    found = list(named)
                runs, total = [found], len(found)
                # Before what is missing, which they may explain.
                for line in named.told():
                    display.say(line)
            size = bundle.preprocessing.image_size
            with (
                quickened(bundle.networks, size, total, bundle.device, engine=engine),
                activity("predicting", total, "images") as progress,
            ):
                task = _Task(display, progress)
                predict = partial(
                    bundle.stream, top=args.top, on_error=task.fail, threshold=threshold
                )
                _write(_answers(runs, predict, task), args, tables, threshold)
            for line in named.told() if args.files_from else []:
                display.say(line)
            if task.failed:
                total = task.failed + task.done
                display.say(f"{task.failed:,} of {total:,} could not be read")
        for table in [] if args.json else tables:
            print(f"wrote {table.rows:,} predictions to {table.target}")
        if task.failed and not task.done and task.missing == task.failed:
            return BAD_INPUT
        return FAILED if task.failed else FINISHED


class _Task:
    """Counts images, reports problems with them, and shows the progress."""

    def __init__(self, display: Display, progress: Activity) -> None:
        self._display = display
        self._progress = progress
        self.done = 0
        self.failed = 0
        self.missing = 0

    def images(self, named: Iterable[str | NotFound]) -> Iterator[str | LazyImage]:
        """Yields paths and URLs; reports and counts names without an image."""
        from gsfl_tune.data.fetch import fetch, is_url
        from gsfl_tune.data.named_images import NotFound
        from gsfl_tune.export import ImageError, LazyImage

        for item in named:
            if isinstance(item, NotFound):
                self.fail(ImageError(f"{item.name}: {item.reason}", missing=True))
            elif is_url(item):
                yield LazyImage(item, partial(fetch, item))
            else:
                yield item

    def fail(self, error: ImageError) -> None:
        """Counts and reports an image that cannot be read."""
        self.failed += 1
        self.missing += error.missing
        self._show()
        self._display.say(str(error))

    def count(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Counts predictions and passes them on."""
        for prediction in predictions:
            self.done += 1
            self._show()
            yield prediction

    def _show(self) -> None:
        self._progress.done = self.done + self.failed
        if self._progress.total is None:
            self._progress.what = f"predicting, {self._progress.done:,} images so far"


def _answers(
    runs: Iterable[Iterable[str | NotFound]],
    predict: Callable[[Iterator[str | LazyImage]], Iterator[Prediction]],
    task: _Task,
) -> Iterator[Prediction]:
    """Yields the predictions of each run, and shows them before it waits for the next one."""
    for run in runs:
        yield from task.count(predict(task.images(run)))
        sys.stdout.flush()


def _tables(
    args: argparse.Namespace, bundle: Bundle, threshold: float | None, stack: ExitStack
) -> list[PredictionFile]:
    from gsfl_tune.export.prediction_files import CsvFile, ParquetFile

    kinds: list[tuple[type[PredictionFile], Path | None]] = [
        (CsvFile, args.csv),
        (ParquetFile, args.parquet),
    ]
    top = min(args.top, len(bundle.classes))
    return [
        stack.enter_context(kind(target, top, threshold=threshold is not None))
        for kind, target in kinds
        if target is not None
    ]


def _write(
    predictions: Iterator[Prediction],
    args: argparse.Namespace,
    tables: list[PredictionFile],
    threshold: float | None,
) -> None:
    """Prints each prediction as it comes, or writes it into the tables."""
    from gsfl_tune.data.sources._names import as_utf8

    number = -1
    for number, prediction in enumerate(predictions):
        for table in tables:
            table.add(prediction)
        if args.json:
            item = as_utf8(json.dumps(prediction.to_json(), indent=2, ensure_ascii=False))
            print("[" if number == 0 else ",")
            print(textwrap.indent(item, "  "), end="")
        elif not tables:
            print(as_utf8(("\n" if number else "") + _text(prediction, threshold)))
    if args.json:
        print("[]" if number < 0 else "\n]")
    sys.stdout.flush()


def _text(prediction: Prediction, threshold: float | None) -> str:
    rows = zip(prediction.classes, prediction.probabilities, strict=True)
    lines = [f"  {100 * probability:5.1f} %  {name}" for name, probability in rows]
    if prediction.unknown:
        lines.insert(0, f"  unknown: no class reaches {100 * (threshold or 0):.1f} %")
    return "\n".join([prediction.path, *lines])
