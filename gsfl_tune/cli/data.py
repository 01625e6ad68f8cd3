"""``gsfl-tune data``: the content of a data set and its problems."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import BAD_INPUT, FINISHED, Command, add_overrides, showing
from gsfl_tune.cli._issues import add_issue_arguments, show_issues
from gsfl_tune.cli._targets import refuse_file, refuse_folder, writing

if TYPE_CHECKING:
    from rich.console import Console

    from gsfl_tune.data import Dataset, Duplicates
    from gsfl_tune.experiment.config import Config

_MOST_LISTED = 20


class Data(Command):
    """Shows a data set."""

    name = "data"
    help = "show classes, counts, sizes, broken and duplicate images, and write a contact sheet"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "data",
            metavar="EXPERIMENT_OR_PATH",
            help="experiment file (.yaml), image folder, table (.csv, .tsv, .jsonl), COCO's JSON, "
            "CUB folder, Parquet (file, folder, URL)",
        )
        add_overrides(parser, example="data.fit=pad")
        parser.add_argument(
            "--sheet",
            type=Path,
            metavar="OUT.png",
            help="where the contact sheet goes (default: NAME-contact-sheet.png here)",
        )

        parser.add_argument(
            "--samples",
            type=Path,
            metavar="DIR",
            help="also write three images of the test part, as they are decoded, to DIR",
        )

        add_issue_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Prepares the images, prints their description and draws the sheet."""
        from rich.console import Console

        from gsfl_tune.data import prepare
        from gsfl_tune.data.annotations import Annotations
        from gsfl_tune.data.contact_sheet import contact_sheet
        from gsfl_tune.data.summary import classes_of

        name, whole = _config(args.data, args.overrides)
        if args.issues:
            return show_issues(args, name, whole)
        target = args.sheet or Path(f"{name}-contact-sheet.png")
        refuse_file("--sheet", target)
        if args.samples is not None:
            refuse_folder("--samples", args.samples)
        config = whole.data
        # All broken images are listed here; the limit is applied at the end.
        with showing("opening the images"):
            dataset = prepare(config.model_copy(update={"max_broken": 1.0}))
            sizes = _sizes(dataset)
        with showing("comparing the images", short=True):
            near = dataset.near_duplicates()
        with showing("reading annotations", short=True):
            parts = [dataset.annotations("pool"), dataset.annotations("test")]
            annotations = Annotations.joined(parts)
            texts = dataset.class_texts
        console = Console(highlight=False)
        if not args.json:
            _print_counts(console, name, dataset)
            _print_sizes(console, sizes, dataset.pool.side)
            for told in annotations.told():
                _line(console, told)
            if texts is not None:
                first = f"{dataset.classes[0]}: {texts[0]}"
                _line(console, f"descriptions of all classes, such as {first}")
            _print_findings(console, dataset, together=config.split.together is not None)
            _print_near_duplicates(console, near, dataset)
        with showing("drawing the contact sheet"):
            sheet, shown = contact_sheet(dataset)
        with writing("--sheet", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(target, format="PNG")
        if args.samples is not None:
            with writing("--samples", args.samples):
                _write_samples(args.samples, dataset)
        exceeded = dataset.too_broken(config.max_broken)
        refused = exceeded is not None
        if args.json:
            content = {
                "name": name,
                "path": config.path,
                **dataset.summary(),
                "sizes": sizes,
                "annotations": annotations.summary(),
                "near_duplicates": {
                    "groups": near.groups,
                    "classes": classes_of(near.groups, dataset),
                    "conflicting": near.conflicting,
                },
                "max_broken": config.max_broken,
                "refused": refused,
                "contact_sheet": {"path": str(target.resolve()), "classes": shown},
                "samples": None if args.samples is None else str(args.samples.resolve()),
            }
            print(json.dumps(content, indent=2, ensure_ascii=False))
            return BAD_INPUT if refused else FINISHED
        some = (
            "" if shown == dataset.class_count else f" ({shown} of {dataset.class_count} classes)"
        )
        _line(console, f"contact sheet: {target.resolve()}{some}")
        if args.samples is not None:
            _line(console, f"samples of the test part: {args.samples.resolve()}")
        if exceeded is not None:
            _line(
                console,
                f"{exceeded[0]} of {exceeded[1]} images are broken, more than data.max_broken "
                f"({config.max_broken:.2%}) allows: a search would refuse this data",
                "bold red",
            )
            return BAD_INPUT
        return FINISHED


def _config(data: str, overrides: list[str]) -> tuple[str, Config]:
    """Returns the name and the defaults of an experiment, or of one made for a path."""
    from gsfl_tune.experiment import Experiment

    if data.endswith((".yaml", ".yml")):
        experiment = Experiment.load(data, overrides=overrides)
        return experiment.name, experiment.defaults()
    from gsfl_tune.data.sources import detect_source
    from gsfl_tune.experiment.starter import name_of

    given = any(each.partition("=")[0].strip() == "data.source" for each in overrides)
    source = "auto" if given else detect_source(data)
    name = name_of(data)
    content = {
        "name": name,
        "data": {"source": source, "path": data},
        # Weights that need no network.
        "model": {"weights": "package"},
    }
    # JSON is valid YAML, whatever the path contains.
    experiment = Experiment.parse(json.dumps(content), file=data, overrides=overrides)
    return name, experiment.defaults()


def _write_samples(folder: Path, dataset: Dataset) -> None:
    """Writes one test image of the first, the middle and the last class."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    labels = dataset.test.labels
    for label in sorted({0, dataset.class_count // 2, dataset.class_count - 1}):
        position = np.flatnonzero(labels == label)[:1]
        if position.size:
            words = "".join(c if c.isalnum() else "-" for c in dataset.classes[label])
            Image.fromarray(dataset.test.gather(position)[0]).save(folder / f"{words}.png")


def _print_counts(console: Console, name: str, dataset: Dataset) -> None:
    from rich.table import Table
    from rich.text import Text

    summary = dataset.summary()
    counts = summary["counts"]
    table = Table(title=Text(f"{name}: {dataset.class_count} classes"), title_justify="left")
    table.add_column("class", overflow="fold")
    for part in counts:
        table.add_column(part, justify="right")
    if dataset.known_groups is not None:
        table.add_column("group", overflow="fold")
    for label, class_name in enumerate(dataset.classes):
        row = [Text(class_name)]
        row += [Text(str(count)) for count in summary["class_counts"][class_name].values()]
        if dataset.known_groups is not None:
            row.append(Text(dataset.known_groups[label]))
        table.add_row(*row)
    table.add_section()
    table.add_row(Text("all"), *[Text(str(count)) for count in counts.values()])
    console.print(table)
    origin = {True: "given", False: "chosen by data.split"}
    _line(
        console,
        f"validation part: {origin[dataset.given_validation]}; "
        f"test part: {origin[dataset.given_test]}",
    )


def _sizes(dataset: Dataset) -> dict[str, list[int]]:
    """Returns [width, height] in pixels of the smallest, median and largest image, by area."""
    import numpy as np

    sizes = np.concatenate([dataset.pool.sizes, dataset.test.sizes])
    order = np.argsort(sizes.astype(np.int64).prod(axis=1), kind="stable")
    named = {"smallest": 0, "median": len(order) // 2, "largest": -1}
    return {what: sizes[order[place]].tolist() for what, place in named.items()}


def _print_sizes(console: Console, sizes: dict[str, list[int]], side: int) -> None:
    text = ", ".join(f"{what} {width} x {height}" for what, (width, height) in sizes.items())
    _line(console, f"image sizes (width x height): {text}")
    _line(console, f"decoded to {side} x {side}")


def _print_findings(console: Console, dataset: Dataset, *, together: bool) -> None:
    for notice in dataset.notices:
        _line(console, notice, "bold yellow")
    broken = [f"{image.path}: {image.reason}" for image in dataset.broken]
    _print_list(console, f"broken images: {len(broken)}", broken)
    duplicates = dataset.duplicates
    twins = [" = ".join(group) for group in duplicates.groups]
    _print_list(console, f"sets of byte-identical images: {len(twins)}", twins)
    if duplicates.conflicting:
        conflicts = _with_classes(duplicates.conflicting, dataset)
        _print_list(console, f"of them with different labels: {len(conflicts)}", conflicts)
    if duplicates.dropped:
        count = len(duplicates.dropped)
        sets = ", or one of its set" if together else ""
        title = f"left out, as the test or validation part has the same image{sets}: {count}"
        _print_list(console, title, duplicates.dropped)
    if duplicates.strayed:
        count = len(duplicates.strayed)
        title = f"left out, as the test or validation part has others of their group: {count}"
        _print_list(console, title, duplicates.strayed)


def _print_near_duplicates(console: Console, near: Duplicates, dataset: Dataset) -> None:
    twins = _with_classes(near.groups, dataset)
    title = (
        f"sets of near-duplicates (resized, re-encoded, brightened, mirrored, cut): {len(twins)}"
    )
    _print_list(console, title, twins)
    if near.conflicting:
        # Again, as the list above may be cut.
        conflicts = _with_classes(near.conflicting, dataset)
        _print_list(console, f"of them with different labels: {len(conflicts)}", conflicts)


def _with_classes(groups: list[list[str]], dataset: Dataset) -> list[str]:
    """Returns a line for each set: its paths, each with its class."""
    from gsfl_tune.data.summary import classes_of

    sets = zip(groups, classes_of(groups, dataset), strict=True)
    return [
        " = ".join(f"{path} ({name})" for path, name in zip(group, names, strict=True))
        for group, names in sets
    ]


def _print_list(console: Console, title: str, items: list[str]) -> None:
    _line(console, title, "bold yellow" if items else "")
    for item in items[:_MOST_LISTED]:
        _line(console, f"  {item}")
    if len(items) > _MOST_LISTED:
        _line(console, f"  and {len(items) - _MOST_LISTED} more")


def _line(console: Console, text: str, style: str = "") -> None:
    """Prints without markup (names may contain brackets) and without line breaks in paths."""
    console.print(text, style=style, markup=False, soft_wrap=True)
