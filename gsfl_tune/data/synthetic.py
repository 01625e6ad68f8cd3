"""Synthetic images of ``data.synthetic``: they join the training part, and no other."""

from __future__ import annotations

import functools
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import ImageOps

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.digests import Contents, read_contents
from gsfl_tune.data.exclude import Rest
from gsfl_tune.data.image_file import load_image
from gsfl_tune.data.looks import Looks
from gsfl_tune.data.marks import MADE
from gsfl_tune.data.near import near_duplicates
from gsfl_tune.data.sources import FileSource, Reader, Source
from gsfl_tune.data.sources._base import expand
from gsfl_tune.data.sources._names import counted
from gsfl_tune.data.splits import Split
from gsfl_tune.experiment.data_config import SYNTHETIC_MANIFEST, DataConfig
from gsfl_tune.experiment.errors import UserError

MANIFEST_FORMAT = 1
_KEY = "data.synthetic"


@dataclass(frozen=True)
class SyntheticImage:
    """Describes one image of a manifest.

    Attributes:
        file: Its file.
        name: Name of its class.
        made_from: Digests of the files of the images that it was made from.
    """

    file: Path
    name: str
    made_from: frozenset[bytes]


def read_manifest(folder: Path) -> list[SyntheticImage]:
    """Reads which images a folder of ``gsfl-tune synthesize`` holds.

    Args:
        folder: The folder.

    Raises:
        UserError: If it has no manifest, or one that cannot be read.
    """
    file = folder / SYNTHETIC_MANIFEST
    allowed = f"allowed a folder that `gsfl-tune synthesize` wrote, with {SYNTHETIC_MANIFEST}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != MANIFEST_FORMAT:
            raise UserError(
                f"{_KEY}: {file}: found format {content['format']}, allowed {MANIFEST_FORMAT}: it "
                "is of another version"
            )
        images = [
            SyntheticImage(
                folder / each["file"],
                str(each["class"]),
                frozenset(bytes.fromhex(source["digest"]) for source in each["sources"]),
            )
            for each in content["records"]
            if each["file"] is not None
        ]
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{_KEY}: {file} cannot be read ({reason}), {allowed}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{_KEY}: {file} is damaged ({error!r}), {allowed}") from error
    root = folder.resolve()
    for each in images:
        if not each.file.resolve().is_relative_to(root) or not each.made_from:
            raise UserError(
                f"{_KEY}: {file}: {each.file}: found a file outside the folder, or without the "
                "images that it was made from"
            )
    return images


def synthetic_folders(config: DataConfig) -> list[Path]:
    """Returns the folders of ``data.synthetic``."""
    given = config.synthetic or []
    return [Path(expand(each)) for each in ([given] if isinstance(given, str) else given)]


def without_marked(source: Source, contents: Contents) -> tuple[Source, Contents]:
    """Leaves out marked images of ``data.path``, and counts them.

    Their sources may be in another part of the split. ``data.synthetic`` knows the sources.

    Args:
        source: All images.
        contents: What was read from them.

    Raises:
        UserError: If a given validation or test part has marked images, or there are no others.
    """
    if not contents.marked:
        return source, contents
    marked = sorted(contents.marked)
    first = source.samples[marked[0]].path
    parts = Counter(str(source.samples[position].part) for position in marked)
    lines = [
        f"data.path: found {parts[part]:,} synthetic images in the given {part} part, such as "
        f"{next(source.samples[p].path for p in marked if source.samples[p].part == part)}; "
        f"allowed are other images: {_KEY} takes synthetic ones, for training alone"
        for part in ("validation", "test")
        if parts[part]
    ]
    if not lines and len(marked) == len(source.samples):
        lines = [
            f"data.path: found synthetic images alone, such as {first}; allowed are other images, "
            f"with these in {_KEY}"
        ]
    if lines:
        raise UserError("\n".join(lines))
    source.left_out[f"{MADE} ({_KEY} takes them)"] += len(marked)
    source.marked = len(marked)
    kept = [place for place in range(len(source.samples)) if place not in contents.marked]
    return Rest(source, kept), contents.rows(kept)


def with_synthetic(
    source: Source, contents: Contents, config: DataConfig, cache: Path
) -> tuple[Source, Contents]:
    """Adds the images of ``data.synthetic`` behind those of a source.

    Args:
        source: All other images.
        contents: What was read from them.
        config: The section ``data``.
        cache: Root of the node's caches.

    Raises:
        UserError: If a folder or its manifest cannot be read, or no image can be used.
    """
    folders = synthetic_folders(config)
    if not folders:
        return source, contents
    known = {name: label for label, name in enumerate(source.classes)}
    own, left = FileSource(), Counter[str]()
    listed: list[frozenset[bytes]] = []
    for each in (image for folder in folders for image in read_manifest(folder)):
        if each.name not in known:
            left["of a class that the data does not have"] += 1
        elif not each.file.is_file():
            left["whose file is missing"] += 1
        else:
            own.add(each.file, known[each.name], "train")
            listed.append(each.made_from)
    found = read_contents(own, cache)
    kept = sorted(found.marked)
    if len(kept) < len(listed):
        left["without the mark of a synthetic image"] += len(listed) - len(kept)
    if left:
        source.notices.append(f"{_KEY}: left out: {counted(left.items(), 'image')}")
    if not kept:
        told = [line for line in source.notices if line.startswith(_KEY)]
        raise UserError("\n".join([*told, f"{_KEY}: found no image that can be used"]))
    own.samples = [own.samples[place] for place in kept]
    own.files = [own.files[place] for place in kept]
    joined = _Joined(source, own, [listed[place] for place in kept])
    digests = [*contents.digests, *(found.digests[place] for place in kept)]
    return joined, Contents(digests, contents.extremes)


class _Joined(Source):
    """Gives the images of a source, and synthetic ones behind them."""

    def __init__(
        self, whole: Source, own: FileSource, made_from: Sequence[frozenset[bytes]]
    ) -> None:
        super().__init__()
        # Parts, notices and other knowledge of the source.
        vars(self).update(vars(whole))
        self._whole, self._own, self._first = whole, own, len(whole.samples)
        self.samples = [*whole.samples, *own.samples]
        if self.cut_bottom:
            # Squares and features of before, with these rows, are not taken out of a cache.
            self.revision = f"{self.revision} synthetic 2".lstrip()
        self.synthetic = dict(enumerate(made_from, start=self._first))

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields the readers of the source, then those of synthetic images."""
        numbers = [int(position) for position in positions]
        yield from self._whole.readers([each for each in numbers if each < self._first])
        for each in numbers:
            if each >= self._first:
                file = self._own.files[each - self._first]
                yield each, functools.partial(_read, file, self.cut_bottom)

    def annotations(self) -> Annotations:
        """Returns the annotations of the source; nothing is known of synthetic images."""
        theirs, count = self._whole.annotations(), len(self._own.samples)
        none = Annotations.of(
            [None] * count,
            points=np.full((count, *theirs.points.shape[1:]), np.nan, dtype=np.float32),
            attributes=np.full((count, *theirs.attributes.shape[1:]), np.nan, dtype=np.float32),
        )
        return Annotations.joined([theirs, none])


def _read(file: Path, cut_bottom: int) -> bytes:
    content = file.read_bytes()
    if not cut_bottom:
        return content
    # These rows are cut off every file of the source; a synthetic image was made without them.
    # As a file again, in a format without loss, since nothing is cut off what is no file.
    padded = io.BytesIO()
    ImageOps.expand(load_image(content), (0, 0, 0, cut_bottom)).save(padded, "PPM")
    return padded.getvalue()


def join_training(
    split: Split,
    source: Source,
    digests: Sequence[bytes],
    broken: Collection[int],
    looks: Callable[[], Looks],
) -> tuple[Split, list[str]]:
    """Adds synthetic images to a training part, as far as they tell nothing of held-out images.

    An image is added if each image that it was made from is in the training part, and if it looks
    like none of the validation and test parts.

    Args:
        split: The split of all other images.
        source: All images.
        digests: Digests of their files.
        broken: Images that cannot be read.
        looks: Returns the looks of all images; called if there are synthetic ones.

    Returns:
        The split, and what people must know.
    """
    if not source.synthetic:
        return split, []
    fitting = np.array(made_within(source, digests, split.train.tolist()), dtype=np.int64)
    readable = fitting[[place not in broken for place in fitting.tolist()]]
    held = np.concatenate([split.validation, split.test])
    numbers = near_duplicates(looks().of(np.concatenate([held, readable])))
    kept = readable[~np.isin(numbers[len(held) :], numbers[: len(held)])]
    lines = [f"{_KEY}: {len(kept):,} synthetic images join the training part"]
    reasons = {
        "they were made from images that are not in the training part": len(source.synthetic)
        - len(fitting),
        "they cannot be read": len(fitting) - len(readable),
        "they are copies of validation or test images": len(readable) - len(kept),
    }
    lines += [
        f"{_KEY}: {count:,} of {len(source.synthetic):,} images are left out, as {why}"
        for why, count in reasons.items()
        if count
    ]
    return replace(split, train=np.sort(np.concatenate([split.train, kept]))), lines


def made_within(source: Source, digests: Sequence[bytes], positions: Sequence[int]) -> list[int]:
    """Returns the synthetic images of a source that were made from some of its images alone.

    Args:
        source: All images.
        digests: Digests of their files.
        positions: The images that may be the sources.
    """
    known = {digests[position] for position in positions if position not in source.synthetic}
    return [place for place, made_from in source.synthetic.items() if made_from <= known]
