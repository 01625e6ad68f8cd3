"""``gsfl-tune adapt``: a bundle for images of another domain, learned without labels."""

from __future__ import annotations

import argparse
import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gsfl_tune.cli._base import (
    FAILED,
    FINISHED,
    Command,
    add_files_from,
    positive,
    showing,
)
from gsfl_tune.cli._interrupted import interrupted, resuming
from gsfl_tune.cli._targets import refuse_folder
from gsfl_tune.cli.search import stoppable

if TYPE_CHECKING:
    from gsfl_tune.adaptation import Adapted


class Adapt(Command):
    """Adapts a bundle to images without labels, and writes another bundle."""

    name = "adapt"
    help = (
        "adapt a bundle to images of another domain, without labels and without the images that "
        "it was trained on (SHOT)"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, such as RUN/best")
        parser.add_argument(
            "images",
            metavar="IMAGES",
            nargs="*",
            help="files, folders with all below them, patterns, Parquet files, or a data set as "
            "for `evaluate`; labels are not read",
        )
        parser.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="OUT",
            required=True,
            help="where the adapted bundle goes; new or empty",
        )
        add_files_from(parser)
        parser.add_argument(
            "--judge",
            metavar="DATA",
            help="labelled images that are not among IMAGES: accuracy before and after",
        )
        parser.add_argument(
            "--epochs", type=positive, default=10, metavar="N", help="epochs (default 10)"
        )
        parser.add_argument(
            "--learning-rate",
            type=float,
            default=3e-4,
            metavar="R",
            help="peak learning rate of AdamW (default 0.0003)",
        )
        parser.add_argument(
            "--batch-size",
            type=positive,
            default=32,
            metavar="N",
            help="images of a step (default 32)",
        )
        parser.add_argument(
            "--blocks",
            type=_blocks,
            metavar="N",
            help="last blocks of the backbone that are trained, 0 to `all` (default: those that "
            "were fine-tuned; none of a frozen backbone)",
        )
        parser.add_argument(
            "--freeze-encoder",
            action="store_true",
            help="do not train the discriminative encoder and the pooling",
        )
        parser.add_argument(
            "--beta",
            type=float,
            default=0.3,
            metavar="B",
            help="weight of the pseudo-labels (default 0.3)",
        )
        parser.add_argument(
            "--norms",
            choices=["auto", "new", "kept"],
            default="auto",
            help="batch norms of trained blocks: statistics of IMAGES, those of the bundle, or the "
            "ones with which answers are surer and more diverse (default auto)",
        )
        parser.add_argument(
            "--seed", type=int, default=0, metavar="N", help="seed of order and augmentation"
        )
        parser.add_argument(
            "--device", default="auto", metavar="D", help="auto (default), cpu, cuda, or cuda:1"
        )
        parser.add_argument(
            "--resume", action="store_true", help="continue an adaptation that was stopped"
        )
        parser.add_argument("--json", action="store_true", help="print JSON: all of it")

    def run(self, args: argparse.Namespace) -> int:
        """Adapts, with a line per epoch on standard error, and prints what was done."""
        refuse_folder("--output", args.output)
        shown = showing("loading PyTorch and the bundle")
        with shown as display, stoppable() as stop_if_asked:
            from gsfl_tune.adaptation import AdaptationFailed, adapt
            from gsfl_tune.adaptation.pipeline import state_directory
            from gsfl_tune.data.named_images import names_of_list
            from gsfl_tune.experiment.errors import UserError
            from gsfl_tune.training.out_of_memory import out_of_memory

            stop_if_asked()
            listed = chain.from_iterable(map(names_of_list, args.files_from))
            found: Adapted | None
            try:
                found = adapt(
                    args.bundle,
                    [*args.images, *listed],
                    args.output,
                    epochs=args.epochs,
                    learning_rate=args.learning_rate,
                    batch_size=args.batch_size,
                    blocks=args.blocks,
                    train_encoder=not args.freeze_encoder,
                    beta=args.beta,
                    norms=args.norms,
                    seed=args.seed,
                    device=args.device,
                    judge=args.judge,
                    resume=args.resume,
                    on_record=lambda record: display.say(_line(record)),
                    notice=display.say,
                )
            except AdaptationFailed as error:
                display.say(f"failed: {error}; nothing was written")
                return FAILED
            except KeyboardInterrupt:
                begun = state_directory(args.output) / "adapt.json"
                return interrupted(display, begun, "finished epochs", _resumed(args))
            except Exception as error:
                if isinstance(error, UserError) or not (complaint := out_of_memory(error)):
                    raise
                display.say(
                    f"failed: out of memory ({complaint}); a smaller --batch-size or fewer "
                    "--blocks need less"
                )
                if (state_directory(args.output) / "adapt.json").exists():
                    display.say(f"finished epochs are kept. Continue with:\n  {_resumed(args)}")
                return FAILED
        if args.json:
            print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        else:
            _print(found)
        return FINISHED


def _blocks(text: str) -> int | Literal["all"]:
    return "all" if text == "all" else int(text)


def _line(record: dict[str, Any]) -> str:
    parts = [f"epoch {record['epoch']:>3}"]
    if "train/loss" in record:
        parts.append(f"loss {record['train/loss']:.4f}")
    parts += [
        f"entropy {record['entropy']:.3f}",
        f"pseudo-labels agree {100 * record['agreement']:.1f} %",
        f"changed {100 * record['changed']:.1f} %",
    ]
    if "seconds" in record:
        parts.append(f"{record['seconds']:.1f} s")
    return "  ".join(parts)


def _resumed(args: argparse.Namespace) -> str:
    return resuming(
        ["adapt", args.bundle, *args.images],
        {
            "--output": args.output,
            "--judge": args.judge,
            "--epochs": args.epochs,
            "--learning-rate": args.learning_rate,
            "--batch-size": args.batch_size,
            "--blocks": args.blocks,
            "--beta": args.beta,
            "--norms": args.norms,
            "--seed": args.seed,
            "--device": args.device,
        },
        flags={"--freeze-encoder": args.freeze_encoder, "--json": args.json},
        lists={"--files-from": args.files_from},
    )


def _print(found: Adapted) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    content = found.to_json()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(f"{found.images:,} images")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    rows = [
        ("mean entropy of an answer, nats", content["entropy"], "{:.3f}"),
        ("pseudo-labels that agree with answers", content["agreement"], "{:.1%}"),
        ("classes, as if equally frequent", content["effective_classes"], "{:.1f}"),
    ]
    answers = content["answers"].values()
    counts = {when: sum(each[when] > 0 for each in answers) for when in ("before", "after")}
    rows.append(("classes that are answers", counts, "{}"))
    if found.judged is not None:
        both = {"before": found.judged.before, "after": found.judged.after}
        rows.append((f"accuracy on {found.judged.images:,} judged images", both, "{:.1%}"))
    for title, values, form in rows:
        table.add_row(title, *(form.format(values[when]) for when in ("before", "after")))
    Console(highlight=False).print(table)
    print(f"{100 * found.changed:.1f} % of the answers changed")
    which = "new, of these images" if found.records[0]["new_norms"] else "those of the source"
    print(f"statistics of batch norms: {which}")
    if found.judged is not None:
        print(found.judged.sentence)
    else:
        print("whether they are better is not known: --judge DATA needs labelled images")
    for line in found.warnings:
        print(f"warning: {line}")
    if found.removed:
        print(f"removed, as it does not hold any more: {', '.join(found.removed)}")
    if found.broken:
        print(f"{len(found.broken):,} images could not be read and were left out")
    print(f"adapted bundle: {found.path}")
