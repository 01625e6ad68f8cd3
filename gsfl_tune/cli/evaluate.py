"""``gsfl-tune evaluate``: the score of a bundle on labelled images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import FINISHED, Command, add_engine, add_overrides, showing
from gsfl_tune.cli._targets import refuse_file, refuse_folder

if TYPE_CHECKING:
    from gsfl_tune.data.labelled_images import LabelledImages
    from gsfl_tune.evaluation import Evaluation
    from gsfl_tune.export import Bundle

_PARTS = {
    "test": "the test part of the data",
    "all": "all images (the data has no test part of its own)",
}

_MOST_LISTED = 5
_MOST_PICTURES = 60


class Evaluate(Command):
    """Scores an exported bundle on images with labels."""

    name = "evaluate"
    help = "score a bundle on labelled images; classes are matched by name"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, such as RUN/best")
        parser.add_argument(
            "data",
            metavar="DATA",
            help="experiment file (its test split), or class folders, a table, COCO's JSON, "
            "Parquet; of these the test part if there is one, else everything",
        )
        add_overrides(parser, example="data.path=/data/birds")
        add_engine(parser)
        parser.add_argument(
            "--cost-matrix",
            type=Path,
            metavar="FILE",
            help="also the mean cost of an answer, by a CSV file as for search.cost_matrix",
        )
        parser.add_argument("--json", action="store_true", help="print JSON: all of it")
        parser.add_argument(
            "--csv",
            type=Path,
            metavar="DIR",
            help="write classes.csv, confusion.csv and images.csv (every image) to DIR",
        )
        parser.add_argument(
            "--html", type=Path, metavar="FILE", help="write a page with the wrong images"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Evaluates, prints the metrics and writes the requested files."""
        with showing("loading PyTorch and the bundle", short=True) as display:
            from gsfl_tune.activity import activity
            from gsfl_tune.bundles import read_description
            from gsfl_tune.evaluation import evaluate, training_images_told
            from gsfl_tune.export.engine import Engine, load_for

            if args.html is not None:
                refuse_file("--html", args.html)
            if args.csv is not None:
                refuse_folder("--csv", args.csv)
            engine = Engine.of(args.engine, args.precision)
            bundle = load_for(engine, args.bundle)
            data = _open(args.data, args.overrides, bundle)
            told = training_images_told(read_description(bundle.path).get("trained_on", {}), data)
            data = replace(data, notices=[*data.notices, *told])
            for notice in data.notices:
                display.say(notice)
            for image in data.broken:
                display.say(f"{image.path}: left out ({image.reason})")
            with activity(f"scoring {len(data.images):,} images"):
                found = evaluate(bundle, data, args.cost_matrix, engine)
            written = [] if args.csv is None else found.write_csv(args.csv)
            if args.html is not None:
                with activity("making the page"):
                    _write_page(args.html, found, str(args.bundle), args.data)
                written.append(args.html)
        if args.json:
            print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
            return FINISHED
        for line in _lines(found):
            print(line)
        for file in written:
            print(f"wrote {file}")
        return FINISHED


def _write_page(target: Path, found: Evaluation, bundle: str, source: str) -> None:
    from gsfl_tune.evaluation import thumbnail
    from gsfl_tune.experiment import UserError
    from gsfl_tune.report.evaluation import evaluation_page
    from gsfl_tune.run import write_text

    pictures = [thumbnail(found.data.images, place) for place in found.wrong()[:_MOST_PICTURES]]
    page = evaluation_page(found.to_json(), bundle=bundle, source=source, pictures=pictures)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, page)
    except OSError as error:
        raise UserError(f"{target}: the page cannot be written ({error.strerror})") from error


def _lines(found: Evaluation) -> Iterator[str]:
    """Yields the metrics, then the largest errors."""
    from gsfl_tune.experiment.metrics import FURTHER_TITLES
    from gsfl_tune.report.evaluation import shown

    data = found.data
    without = f" ({data.unlabelled} more have no label)" if data.unlabelled else ""
    yield f"{len(data.images)} images of {len(data.classes)} classes: {_PARTS[data.part]}{without}"
    for name, value in found.metrics.items():
        yield f"  {FURTHER_TITLES.get(name, name.replace('_', ' ')):<33} {shown(name, value):>9}"
    yield from found.notices[len(data.notices) :]
    wrong = len(found.wrong())
    if not wrong:
        return
    yield f"{wrong} wrong; classes of the lowest recall"
    scores = [score for score in found.class_scores() if score.recall is not None]
    for score in sorted(scores, key=lambda score: score.recall or 0.0)[:_MOST_LISTED]:
        right = f"{100 * (score.recall or 0.0):.2f} %"
        yield f"  {right:>8} of {score.count:<5} {score.name}"
    yield "most confused"
    for pair in found.confused(_MOST_LISTED):
        yield f"  {sum(pair['counts']):>4} times  {' and '.join(pair['classes'])}"


def _open(path: str, overrides: list[str], bundle: Bundle) -> LabelledImages:
    from gsfl_tune.data.labelled_images import UNBOXED, as_trained, open_for_evaluation
    from gsfl_tune.experiment import UserError

    side, fit = bundle.preprocessing.side, bundle.preprocessing.fit
    reading = bundle.preprocessing.reading
    trained = bundle.config.get("data", {})
    if not path.endswith((".yaml", ".yml")):
        if overrides:
            raise UserError(f"--set: found {path}, allowed with an experiment file (.yaml) only")
        margin = trained["crop_margin"] if trained.get("crop") == "box" else None
        return open_for_evaluation(path, side, fit, reading=reading, margin=margin)
    from gsfl_tune.data.part_to_score import open_test_part
    from gsfl_tune.experiment import Experiment

    config = as_trained(Experiment.load(path, overrides).defaults().data, trained, fit)
    found = open_test_part(config, side, reading)
    if trained.get("crop") == "box" and config.crop == "none":
        found = replace(found, notices=[*found.notices, UNBOXED])
    return found
