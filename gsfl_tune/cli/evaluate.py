"""``gsfl-tune evaluate``: a bundle on labelled images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import FINISHED, Command, add_overrides, showing

if TYPE_CHECKING:
    from gsfl_tune.data.evaluation import EvaluationData
    from gsfl_tune.export import Bundle

_PARTS = {
    "test": "the test part of the data",
    "all": "all images (the data has no test part of its own)",
}


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
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Evaluates and prints the metrics."""
        with showing("loading PyTorch and the bundle", short=True) as display:
            from gsfl_tune.activity import activity
            from gsfl_tune.export import load_bundle

            bundle = load_bundle(args.bundle)
            data = _open(args.data, args.overrides, bundle)
            for notice in data.notices:
                display.say(notice)
            for image in data.broken:
                display.say(f"{image.path}: left out ({image.reason})")
            with activity(f"scoring {len(data.images):,} images"):
                metrics = bundle.evaluate(data.images, data.classes)
        if args.json:
            content = {
                "part": data.part,
                "images": len(data.images),
                "classes": len(data.classes),
                "broken": len(data.broken),
                "notices": data.notices,
                "metrics": metrics,
            }
            print(json.dumps(content, indent=2))
            return FINISHED
        print(f"{len(data.images)} images of {len(data.classes)} classes: {_PARTS[data.part]}")
        for name, value in metrics.items():
            shown = f"{value:.4f}" if name in ("nll", "ece") else f"{100 * value:.2f} %"
            print(f"  {name.replace('_', ' '):<20} {shown:>9}")
        return FINISHED


def _open(path: str, overrides: list[str], bundle: Bundle) -> EvaluationData:
    from gsfl_tune.data.evaluation import EvaluationData, open_for_evaluation
    from gsfl_tune.experiment import UserError

    side, fit = bundle.preprocessing.side, bundle.preprocessing.fit
    reading = bundle.preprocessing.reading
    if not path.endswith((".yaml", ".yml")):
        if overrides:
            raise UserError(f"--set: found {path}, allowed with an experiment file (.yaml) only")
        trained = bundle.config["data"]
        margin = trained["crop_margin"] if trained.get("crop") == "box" else None
        return open_for_evaluation(path, side, fit, reading=reading, margin=margin)
    from gsfl_tune.data import prepare
    from gsfl_tune.experiment import Experiment

    config = Experiment.load(path, overrides).defaults().data.model_copy(update={"fit": fit})
    dataset = prepare(config, side=side, parts=("test",), reading=reading)
    return EvaluationData(dataset.test, dataset.classes, "test", dataset.broken, dataset.notices)
