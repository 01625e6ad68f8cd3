"""``gsfl-tune predict``: the classes of single images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import BAD_INPUT, FAILED, FINISHED, Command, showing

if TYPE_CHECKING:
    from gsfl_tune.export import ImageError, Prediction


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
        parser.add_argument("images", metavar="IMAGE", nargs="+", help="image file")
        parser.add_argument(
            "--top", type=_positive, default=5, metavar="N", help="classes an image (default 5)"
        )
        parser.add_argument(
            "--threshold",
            metavar="P",
            help="answer `unknown` where the most probable class is less probable: a probability, "
            "`auto` (half of the validation errors were), or `auto:0.8` (that share of them)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Predicts and prints."""
        errors: list[ImageError] = []

        def on_error(error: ImageError) -> None:
            errors.append(error)
            display.say(str(error))

        with showing("loading PyTorch and the bundle", short=True) as display:
            from gsfl_tune.activity import activity
            from gsfl_tune.export import load_bundle

            bundle = load_bundle(args.bundle)
            threshold = None
            if args.threshold is not None:
                threshold = bundle.threshold(args.threshold, "--threshold")
            with activity(f"predicting {len(args.images):,} images"):
                predictions = bundle.predict(
                    args.images, top=args.top, on_error=on_error, threshold=threshold
                )
        if args.json:
            content = [prediction.to_json() for prediction in predictions]
            print(json.dumps(content, indent=2, ensure_ascii=False))
        else:
            print("\n\n".join(_text(prediction, threshold) for prediction in predictions))
        if len(errors) == len(args.images) and all(error.missing for error in errors):
            return BAD_INPUT
        return FAILED if errors else FINISHED


def _text(prediction: Prediction, threshold: float | None) -> str:
    rows = zip(prediction.classes, prediction.probabilities, strict=True)
    lines = [f"  {100 * probability:5.1f} %  {name}" for name, probability in rows]
    if prediction.unknown:
        lines.insert(0, f"  unknown: no class has {100 * (threshold or 0):.1f} %")
    return "\n".join([prediction.path, *lines])


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
