"""The issues as one HTML file, in which a person ticks the images to leave out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from importlib.resources import files as package_files

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from gsfl_tune.activity import activity
from gsfl_tune.data import Dataset
from gsfl_tune.issues._base import KINDS, Found, Issue
from gsfl_tune.issues.copies import BY_FEATURES, SAME_BYTES
from gsfl_tune.issues.find import listed_images
from gsfl_tune.report.embedding import jpeg_url
from gsfl_tune.report.page import policy, static

THUMBNAIL = 112
# Of labels, which a person judges by what is in the picture.
LARGE = 192
# Most issues shown per kind; the table has all.
MOST_SHOWN = 300
_QUALITY = 72
# Explanation of a kind, shown above its issues.
_ABOUT = {
    "label": "A logistic regression on frozen features predicts another class than the given one. "
    "It was fitted without the image and without images that belong to it. The score is the "
    "probability that the label is wrong. The class behind the arrow is the most probable other "
    "one, and may be wrong too. Rare views of a class are also listed. Check an image before you "
    "leave it out, above all in the test part: without its hard images every model seems better "
    "than it is.",
    "near_duplicate": "Copies of another size, compression or brightness, mirrored, cut, or "
    "byte-identical. "
    "Copies with different labels come first, then copies across parts: an image that a model was "
    "trained on cannot test it.",
    "alike": "Their features are almost equal: cropped or mirrored copies, photographs of one "
    "moment, or different things in one place. A set is a chain: each image is alike another one "
    "of it, not all of them. Leave out only what you see to be a copy. A split keeps them together "
    "if data.split.together names together.csv, which lies beside this page; without it, it may "
    "divide them.",
    "outlier": "The mean feature distance to the ten nearest images of the class is much larger "
    "than for most images of the class. Many are rare but correct views, which are worth keeping.",
    "dark": "Nearly all pixels are dark in every colour, and darker than in most images.",
    "bright": "Nearly all pixels are bright, and brighter than in most images of this data set.",
    "low_contrast": "The range from dark to bright is far narrower than in most images.",
    "blurred": "At the size to which images are decoded, edges are far softer than in most images.",
    "tiny": "Smaller than the input of the backbone, and than most images.",
    "aspect_ratio": "Much longer or wider than most images: data.fit defines what happens to it.",
    "few_images": "A class needs images to be learned and held out.",
    "imbalance": "Compare models by balanced accuracy, or collect more images of small classes.",
    "broken": "Training also skips these.",
}


@dataclass(frozen=True)
class _Group:
    """Holds issues that are shown together: a set of copies, or one image.

    Attributes:
        issues: Its issues; those of a set share one reason, which is in the title.
        title: Title of a set; empty for one image.
    """

    issues: list[Issue]
    title: str


@dataclass(frozen=True)
class _Section:
    """Holds the section of one kind of issue.

    Attributes:
        kind: Name of the kind.
        title: Heading of the section.
        about: What the kind means.
        groups: Groups shown.
        count: Number of issues.
        rest: Number of issues not shown.
        suggested: Number of shown issues that are suggested to be left out.
    """

    kind: str
    title: str
    about: str
    groups: list[_Group]
    count: int
    rest: int
    suggested: int


def issues_page(found: Found, dataset: Dataset) -> str:
    """Makes the page: sections by kind, the most certain first, with thumbnails and checkboxes.

    Args:
        found: The issues.
        dataset: The images.
    """
    sections = [_section(found, kind) for kind in KINDS if found.counts[kind]]
    shown = {
        issue.path
        for section in sections
        for group in section.groups
        for issue in group.issues
        if issue.path
    }
    large = {issue.path for issue in found.of("label")[:MOST_SHOWN]}
    script = _text("issues.js")
    folder = _common_folder(shown)
    return (
        _environment()
        .get_template("issues.html")
        .render(
            found=found,
            sections=sections,
            clean=[title for kind, title in KINDS.items() if not found.counts[kind]],
            folder=folder,
            short={path: path.removeprefix(folder) for path in shown},
            thumbnails=_thumbnails(dataset, shown, large),
            policy=policy(script),
            style=Markup(static("report.css") + _text("issues.css")),
            script=Markup(script),
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            version=version("gsfl-tune"),
        )
    )


def _section(found: Found, kind: str) -> _Section:
    issues = found.of(kind)
    # Sets of copies stay whole, so that every image is shown beside its copies.
    together: dict[tuple[str, int], list[Issue]] = {}
    for place, issue in enumerate(issues):
        key = ("image", place) if issue.set_number is None else ("set", issue.set_number)
        together.setdefault(key, []).append(issue)
    groups: list[_Group] = []
    count = 0
    for members in together.values():
        count += len(members)
        if groups and count > MOST_SHOWN:
            break
        title = "" if members[0].set_number is None else _title(members)
        groups.append(_Group(members[:MOST_SHOWN], title))
    shown = [issue for group in groups for issue in group.issues]
    return _Section(
        kind=kind,
        title=KINDS[kind],
        about=_ABOUT[kind],
        groups=groups,
        count=len(issues),
        rest=len(issues) - len(shown),
        suggested=sum(issue.suggestion == "leave out" for issue in shown),
    )


def _title(issues: Sequence[Issue]) -> str:
    reason, same = issues[0].reason, "look the same"
    if reason.startswith(SAME_BYTES):
        same = "the same bytes"
    elif reason.startswith(BY_FEATURES):
        same = "alike by their features"
    classes = sorted({issue.class_name for issue in issues})
    parts = sorted({issue.part for issue in issues if issue.part})
    title = f"{len(issues)} images, {same}"
    if len(classes) > 1:
        title += f"; different labels: {', '.join(classes)}"
    return title + (f"; in {', '.join(parts)}" if len(parts) > 1 else "")


def _common_folder(paths: Collection[str]) -> str:
    """Returns the common start of all paths, up to a slash, which is shown only once."""
    if len(paths) < 2:
        return ""
    # The common start of the first and last in sorted order is common to all.
    first, last = min(paths), max(paths)
    pairs = enumerate(zip(first, last, strict=False))
    end = next((place for place, (a, b) in pairs if a != b), len(first))
    return first[: first.rfind("/", 0, end) + 1]


def _thumbnails(dataset: Dataset, paths: set[str], large: set[str]) -> dict[str, str]:
    """Makes ``data:`` URLs of images, by path; of some they have more pixels."""
    found = {}
    with activity("drawing thumbnails", len(paths), "images") as step:
        for images, _ in listed_images(dataset).parts:
            for row, path in enumerate(images.paths):
                if path in paths:
                    square = images.squares(np.array([row]))[0]
                    found[path] = _thumbnail(square, LARGE if path in large else THUMBNAIL)
                    step.done += 1
    return found


def _thumbnail(square: np.ndarray, most: int) -> str:
    side = min(most, len(square))
    image = Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS)
    return jpeg_url(image, _QUALITY)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gsfl_tune.issues"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["thumbnail_side"] = THUMBNAIL
    return environment


@cache
def _text(name: str) -> str:
    return (package_files("gsfl_tune.issues") / "static" / name).read_text(encoding="utf-8")
