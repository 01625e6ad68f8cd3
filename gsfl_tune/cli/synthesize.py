"""``gsfl-tune synthesize``: synthetic training images, made by a diffusion pipeline."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsfl_tune.cli._base import (
    FAILED,
    FINISHED,
    Command,
    add_overrides,
    positive,
    showing,
)
from gsfl_tune.cli._interrupted import interrupted, resuming
from gsfl_tune.cli.search import stoppable

if TYPE_CHECKING:
    from gsfl_tune.experiment.data_config import DataConfig
    from gsfl_tune.synthesis import Settings, Synthesized

_NUMBERS: dict[str, tuple[Callable[[str], Any], float, str, str]] = {
    "strength": (float, 0.5, "S", "share of the noise that is added and removed: 1 forgets it"),
    "mix": (float, 0.3, "M", "share of a second image of the class; 0: none"),
    "steps": (positive, 30, "N", "denoising steps at strength 1"),
    "guidance": (float, 7.5, "G", "weight of the prompt"),
    "attempts": (positive, 3, "N", "most images that are made for one that is kept"),
    "seed": (int, 0, "N", "seed of the choice of images and of the noise"),
}
_CONFIDENCE = 0.5


class Synthesize(Command):
    """Makes synthetic images of the training part, for ``data.synthetic``."""

    name = "synthesize"
    help = (
        "make synthetic training images from the training part, with a diffusion pipeline on this "
        "disk (extra `diffusers`), for data.synthetic"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "data",
            metavar="DATA",
            help="experiment file (its images and split), or a data set as for `data`",
        )
        parser.add_argument(
            "--model",
            type=Path,
            metavar="PATH",
            required=True,
            help="directory of a Stable Diffusion pipeline that diffusers saved as safetensors",
        )
        parser.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="OUT",
            required=True,
            help="where the images go; new or empty",
        )
        add_overrides(parser, example="data.split.seed=1")
        parser.add_argument(
            "--per-class",
            type=positive,
            default=10,
            metavar="N",
            help="images of each class (default 10)",
        )
        parser.add_argument(
            "--classes",
            action="append",
            default=[],
            metavar="NAME",
            help="make images of this class alone; may be given many times",
        )
        parser.add_argument(
            "--bundle",
            metavar="BUNDLE",
            help="keep the images whose class is the answer of this bundle",
        )
        parser.add_argument(
            "--confidence",
            type=float,
            metavar="P",
            help=f"least probability of that answer (default {_CONFIDENCE})",
        )
        parser.add_argument(
            "--prompt",
            default="a photo of a {class}",
            metavar="TEXT",
            help="what the image shall show; {class} is the name (default: a photo of a {class})",
        )
        parser.add_argument(
            "--size", type=int, metavar="PX", help="side of the images (default: the pipeline's)"
        )
        for name, (kind, default, metavar, text) in _NUMBERS.items():
            parser.add_argument(
                f"--{name}",
                type=kind,
                default=default,
                metavar=metavar,
                help=f"{text} (default {default:g})",
            )
        parser.add_argument(
            "--device", default="auto", metavar="D", help="auto (default), cpu, cuda, or cuda:1"
        )
        parser.add_argument(
            "--resume",
            action="store_true",
            help="continue in OUT; --per-class may be larger than before",
        )
        parser.add_argument("--json", action="store_true", help="print JSON: all of it")

    def run(self, args: argparse.Namespace) -> int:
        """Makes the images, with a line per class on standard error."""
        shown = showing("loading PyTorch and reading the data")
        with shown as display, stoppable() as stop_if_asked:
            from gsfl_tune.experiment.data_config import SYNTHETIC_MANIFEST
            from gsfl_tune.synthesis import SynthesisFailed, synthesize

            stop_if_asked()
            found: Synthesized | None
            try:
                found = synthesize(
                    _data(args.data, args.overrides),
                    args.model,
                    args.output,
                    _settings(args),
                    bundle=args.bundle,
                    device=args.device,
                    resume=args.resume,
                    notice=display.say,
                )
            except SynthesisFailed as error:
                display.say(f"failed: {error}")
                return FAILED
            except KeyboardInterrupt:
                begun = args.output / SYNTHETIC_MANIFEST
                return interrupted(display, begun, "finished images", _resumed(args))
        if args.json:
            print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        else:
            _print(found)
        return FINISHED


def _settings(args: argparse.Namespace) -> Settings:
    from gsfl_tune.synthesis import Settings

    confidence = args.confidence
    if confidence is None and args.bundle is not None:
        confidence = _CONFIDENCE
    numbers: dict[str, Any] = {name: getattr(args, name) for name in _NUMBERS}
    return Settings(
        per_class=args.per_class,
        prompt=args.prompt,
        size=args.size,
        confidence=confidence,
        classes=tuple(args.classes),
        **numbers,
    )


def _data(path: str, overrides: list[str]) -> DataConfig:
    from gsfl_tune.experiment import Experiment, UserError
    from gsfl_tune.experiment.data_config import DataConfig

    if path.endswith((".yaml", ".yml")):
        return Experiment.load(path, overrides).defaults().data
    if overrides:
        raise UserError(f"--set: found {path}, allowed with an experiment file (.yaml) only")
    return DataConfig(path=path)


def _resumed(args: argparse.Namespace) -> str:
    return resuming(
        ["synthesize", args.data],
        {
            "--model": args.model,
            "--output": args.output,
            "--per-class": args.per_class,
            "--bundle": args.bundle,
            "--confidence": args.confidence,
            "--prompt": args.prompt,
            "--size": args.size,
            **{f"--{name}": getattr(args, name) for name in _NUMBERS},
            "--device": args.device,
        },
        flags={"--json": args.json},
        lists={"--classes": args.classes, "--set": args.overrides},
    )


def _print(found: Synthesized) -> None:
    kept, refused = sum(found.kept.values()), sum(found.refused.values())
    print(f"{kept:,} images of {len(found.kept):,} classes are there, {found.made:,} were made now")
    if refused:
        print(f"{refused:,} more were made and refused; {found.path}/synthetic.json says by whom")
    if found.short:
        print(f"fewer than {found.wanted:,} images: {', '.join(found.short)}")
    print(f"to train on them: data.synthetic: {found.path}")
