"""``gsfl-tune explain``: the regions of an image that a bundle uses."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import BAD_INPUT, FAILED, FINISHED, Command, showing

if TYPE_CHECKING:
    from gsfl_tune.explain import Explanation
    from gsfl_tune.export import ImageError


class Explain(Command):
    """Writes Grad-CAM overlays of images, with curves that say how faithful they are."""

    name = "explain"
    help = (
        "write Grad-CAM overlays of images: of the discriminative part, and of the shared part of "
        "a bundle that was exported --with-shared; an unreadable image is reported on stderr, and "
        "the exit code is 1 (2 if no image exists)"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, such as RUN/best")
        parser.add_argument("images", metavar="IMAGE", nargs="+", help="image file")
        parser.add_argument(
            "-o", "--out", metavar="DIR", type=Path, required=True, help="where the pictures go"
        )
        parser.add_argument(
            "--class",
            dest="explained",
            metavar="NAME",
            help="class to explain (default: the most probable one of each image)",
        )
        parser.add_argument(
            "--no-curves",
            action="store_true",
            help="leave out deletion and insertion curves, which take 136 passes per image",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Writes the pictures and prints their paths."""
        errors: list[ImageError] = []

        def on_error(error: ImageError) -> None:
            errors.append(error)
            display.say(str(error))

        with showing("loading PyTorch and the bundle", short=True) as display:
            from gsfl_tune.activity import activity
            from gsfl_tune.data.sources._names import as_utf8
            from gsfl_tune.explain import explain
            from gsfl_tune.export import load_bundle

            bundle = load_bundle(args.bundle)
            with activity(f"explaining {len(args.images):,} images"):
                explanations = explain(
                    bundle,
                    args.images,
                    args.out,
                    explained=args.explained,
                    curves=not args.no_curves,
                    on_error=on_error,
                )
        if args.json:
            content = [asdict(explanation) for explanation in explanations]
            print(as_utf8(json.dumps(content, indent=2, ensure_ascii=False)))
        elif explanations:
            print(as_utf8("\n\n".join(_text(explanation) for explanation in explanations)))
        if not bundle.has_shared:
            print(_why_no_shared(bool(bundle.groups)), file=sys.stderr)
        if len(errors) == len(args.images) and all(error.missing for error in errors):
            return BAD_INPUT
        return FAILED if errors else FINISHED


def _text(explanation: Explanation) -> str:
    predicted = explanation.prediction
    lines = [
        explanation.path,
        f"  predicted {predicted.classes[0]}, {100 * predicted.probabilities[0]:.1f} %",
    ]
    if explanation.explained != predicted.classes[0]:
        lines.append(f"  explained {explanation.explained}")
    lines += [f"  {part:<15} {file}" for part, file in explanation.files.items()]
    areas = explanation.faithfulness
    if areas is not None:
        verdict = "beats random maps" if areas["faithful"] else "does not beat random maps"
        lines.append(
            f"  {verdict}: deletion {areas['deletion']:.2f} (random {areas['random_deletion']:.2f},"
            f" lower is better), insertion {areas['insertion']:.2f} (random "
            f"{areas['random_insertion']:.2f}, higher is better)"
        )
    return "\n".join(lines)


def _why_no_shared(grouped: bool) -> str:
    if not grouped:
        return "no maps of the shared part: the bundle has a plain head, without one"
    return (
        "no maps of the shared part: the bundle was exported without it; export it again with\n"
        "  gsfl-tune export RUN OUT --with-shared"
    )
