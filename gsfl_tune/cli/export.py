"""``gsfl-tune export``: the winner of a run in a directory of its own."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path

from gsfl_tune.cli._base import FINISHED, Command, showing
from gsfl_tune.cli._targets import refuse_folder
from gsfl_tune.experiment.units import decimal_size


class Export(Command):
    """Exports the winner of a finished run, in the format that a deployment needs."""

    name = "export"
    help = (
        "export the winner of a finished run to a directory of its own: safetensors, ONNX, "
        "OpenVINO or torch.export, in fp32, fp16 or int8, pruned or not, measured before and after"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("run_dir", metavar="RUN", type=Path, help="run directory, or a bundle")
        parser.add_argument(
            "out", metavar="OUT", type=Path, help="where the bundle goes; new or empty"
        )
        parser.add_argument(
            "--format",
            default="safetensors",
            metavar="FORMAT",
            help="safetensors (default), onnx, torch-export or openvino",
        )
        parser.add_argument(
            "--precision", default="fp32", metavar="P", help="fp32 (default), fp16 or int8"
        )
        parser.add_argument(
            "--prune",
            type=float,
            default=0.0,
            metavar="RATIO",
            help="remove this share of the backbone's channels, and train the rest",
        )
        parser.add_argument(
            "--preprocess",
            action="store_true",
            help="put the preprocessing into the file: uint8 squares in, probabilities out",
        )
        parser.add_argument(
            "--pick",
            nargs=2,
            metavar=("RULE", "POINTS"),
            help="`fastest-within 0.5`: of the Pareto front, the fastest trial that is at most so "
            "many points of accuracy below the best",
        )
        parser.add_argument(
            "--best-of-all",
            action="store_true",
            help="instead of the winner, whichever of winner, control and linear probe is best on "
            "validation",
        )
        parser.add_argument(
            "--without-validation",
            action="store_true",
            help="the winner as it was trained on the training images alone: for training.teacher",
        )
        parser.add_argument(
            "--ensemble",
            action="store_true",
            help="all retrained seeds as one model: the mean of their probabilities",
        )
        parser.add_argument(
            "--flip",
            action="store_true",
            help="use every image mirrored too, and average the probabilities; only for a run "
            "with data.augment.flip",
        )
        parser.add_argument(
            "--flip-anyway",
            action="store_true",
            help="the same, although the run was not trained on mirrored images",
        )
        parser.add_argument(
            "--crops",
            action="store_true",
            help="use the four corners of every image too, and average the probabilities",
        )
        parser.add_argument(
            "--max-loss",
            type=float,
            default=0.5,
            metavar="POINTS",
            help="points of validation accuracy that int8 may lose before it is trained again "
            "(default 0.5)",
        )
        parser.add_argument(
            "--epochs",
            type=int,
            default=3,
            metavar="N",
            help="epochs of training after --prune, and for int8 if it costs more than --max-loss "
            "(default 3; 0: none)",
        )
        parser.add_argument(
            "--calibration",
            type=int,
            default=256,
            metavar="N",
            help="training images that int8 takes its ranges from (default 256)",
        )
        parser.add_argument(
            "--threads",
            type=int,
            metavar="N",
            help="CPU threads of the measurements (default: all cores)",
        )
        parser.add_argument(
            "--seconds",
            type=float,
            default=4.0,
            metavar="S",
            help="seconds of each latency measurement, with at least 20 runs (default 4)",
        )
        parser.add_argument(
            "--data", metavar="PATH", help="current path of the images, if they have moved"
        )
        parser.add_argument(
            "--with-shared",
            action="store_true",
            help="include shared encoder, decoder and class centres",
        )
        parser.add_argument(
            "--with-neighbours",
            action="store_true",
            help="include features and thumbnails of training images, so that `serve` can show "
            "those nearest to an image",
        )
        parser.add_argument(
            "--neighbours-per-class",
            type=int,
            metavar="N",
            help="so many training images of each class at most (default 100)",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Exports, prints the table and lists what was written."""
        refuse_folder("OUT", args.out)
        with showing("loading PyTorch and the run", stderr=False) as display:
            out = self._export(args, display.say)
        from gsfl_tune.bundles.reading import read_description

        info = read_description(out).get("export")
        if info:
            print(f"\n{_table(info)}\n")
        print(f"exported to {out}")
        for path in sorted(out.iterdir()):
            print(f"  {path.name:<20} {decimal_size(path.stat().st_size):>10}")
        return FINISHED

    def _export(self, args: argparse.Namespace, say: Callable[[str], None]) -> Path:
        from gsfl_tune.experiment import UserError
        from gsfl_tune.export import Options, export_run
        from gsfl_tune.export.neighbour_tensors import PER_CLASS
        from gsfl_tune.export.pick import parse_rule

        if args.neighbours_per_class is not None and not args.with_neighbours:
            raise UserError(
                "--neighbours-per-class: found without --with-neighbours, allowed with it"
            )
        per_class = PER_CLASS if args.neighbours_per_class is None else args.neighbours_per_class

        options = Options(
            format=args.format,
            precision=args.precision,
            prune=args.prune,
            preprocess=args.preprocess,
            max_loss=args.max_loss,
            epochs=args.epochs,
            calibration=args.calibration,
            threads=args.threads,
            seconds=args.seconds,
            data=args.data,
            ensemble=args.ensemble,
            flip=args.flip,
            flip_anyway=args.flip_anyway,
            crops=args.crops,
        )
        return export_run(
            args.run_dir,
            args.out,
            with_shared=args.with_shared,
            options=options,
            pick=None if args.pick is None else parse_rule(args.pick),
            say=say,
            best_of_all=args.best_of_all,
            without_validation=args.without_validation,
            neighbours=per_class if args.with_neighbours else None,
        )


def _table(info: dict) -> str:
    from gsfl_tune.export.measure import Measurement, doubts, legend, text_table

    rows = [Measurement.from_json(row) for row in info["table"]]
    conditions = info["conditions"]
    words = legend(conditions["threads"], conditions["cpu"])
    paragraphs = [textwrap.fill(each, 80) for each in (words, doubts(rows)) if each]
    return "\n".join([text_table(rows), *paragraphs])
