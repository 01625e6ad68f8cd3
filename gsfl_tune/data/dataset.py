"""From a configuration to images that are listed, checked, divided and decoded."""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsfl_tune.activity import activity
from gsfl_tune.data.decoded import (
    BrokenImage,
    DecodedFile,
    DecodedImages,
    Geometry,
    Progress,
    decode_once,
)
from gsfl_tune.data.digests import Contents, read_contents
from gsfl_tune.data.exclude import leave_out
from gsfl_tune.data.grouping import Grouping, together
from gsfl_tune.data.held_out import belonging, find_grouping
from gsfl_tune.data.locking import cache_directory
from gsfl_tune.data.looks import looks_of
from gsfl_tune.data.near import near_duplicates
from gsfl_tune.data.single import Reading, natural_range, square_side
from gsfl_tune.data.sources import Source, create_source
from gsfl_tune.data.sources._base import some
from gsfl_tune.data.splits import (
    Duplicates,
    Split,
    divide,
    find_duplicates,
    missing_classes,
    size_problems,
)
from gsfl_tune.data.units import crowded
from gsfl_tune.experiment.config import DataConfig, SplitConfig
from gsfl_tune.experiment.errors import UserError

__all__ = ["Dataset", "prepare"]
_MOST_REASONS = 10


def prepare(
    config: DataConfig,
    *,
    side: int | None = None,
    cache_dir: Path | None = None,
    parts: Sequence[str] = ("pool", "test"),
    progress: Progress | None = None,
    reading: Reading | None = None,
) -> Dataset:
    """Makes the images of a configuration ready: lists, hashes, divides, checks and decodes them.

    What is decoded is cached for the node; of several processes that start together, one decodes.

    Args:
        config: The section ``data``.
        side: Side of the decoded squares in pixels; default `square_side` of ``config.image_size``.
        cache_dir: Where caches go; default `cache_directory`.
        parts: What to decode now, of ``pool`` (training and validation) and ``test``; the rest is
            decoded at its first use.
        progress: Called with (images done, images in all) now and then while decoding.
        reading: How a bundle's images were read; default: as the configuration says.

    Raises:
        UserError: With everything that is wrong with the data.
    """
    cache = Path(cache_dir) if cache_dir is not None else cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with activity("listing the images"):
            source = leave_out(create_source(config, cache), config)
            _settle_validation(source, config.split)
            contents = read_contents(source, cache)
    except OSError as error:
        raise _disk_error(error, cache) from error
    # Before anything is decoded, as if nothing were broken.
    split = _divide(source, contents.digests, config.split, range(len(source.samples)))
    problems = [*source.problems, *_size_problems(source, split)]
    twice = sorted(name for name, count in Counter(source.classes).items() if count > 1)
    if twice:
        problems.append(f"class names that appear more than once: {some(twice)}")
    if problems:
        # What was left out first: it may be why something is missing.
        raise UserError("\n".join([*source.told(), *problems]))
    if reading is None:
        reading = _reading(source, contents, config)
    else:
        reading = dataclasses.replace(reading, cut_bottom=source.cut_bottom)
    geometry = Geometry(side or square_side(config.image_size), config.fit, reading)
    dataset = Dataset(source, contents.digests, geometry, config, cache, progress)
    for part in parts:
        if part not in ("pool", "test"):
            raise ValueError(f"parts may name pool and test, not {part!r}")
        getattr(dataset, part)
    return dataset


class Dataset:
    """Images of a configuration; made by `prepare`.

    Attributes:
        name: What people call it: the last part of its path, else its source.
        classes: Names of the classes, in the order of the labels.
        known_groups: The true group of each class, where the source knows it.
        given_validation: Whether the source has a validation part of its own.
        given_test: Whether the source has a test part of its own.
    """

    def __init__(
        self,
        source: Source,
        digests: list[bytes],
        geometry: Geometry,
        config: DataConfig,
        cache: Path,
        progress: Progress | None = None,
    ) -> None:
        self.name = _name(config)
        self.classes = list(source.classes)
        self.known_groups = source.known_groups
        self.given_validation = any(sample.part == "validation" for sample in source.samples)
        self.given_test = any(sample.part == "test" for sample in source.samples)
        self._source = source
        self._digests = digests
        self._geometry = geometry
        self._config = config
        self._cache = cache
        self._progress = progress
        self._broken: dict[int, BrokenImage] = {}
        self._decoded_count = 0
        self._split_notices: list[str] = []
        self._files: dict[bool, tuple[DecodedFile, np.ndarray]] = {}

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def reading(self) -> Reading:
        """How the files are read."""
        return self._geometry.reading

    @functools.cached_property
    def split(self) -> Split:
        """Positions of the parts in the list of the source.

        Broken images have no part, so that none of them can be the only validation image of
        its class; those of a given test part are not known yet and keep theirs.
        """
        self._open(separate_test=False)
        samples = self._source.samples
        good = [
            position
            for position in range(len(samples))
            if position not in self._broken
            or (self.given_test and samples[position].part == "test")
        ]
        grouping = find_grouping(
            self._source,
            self._digests,
            good,
            self._config.split,
            self.reading,
            self._cache,
            self.name,
        )
        self._split_notices = [] if grouping is None else list(grouping.notices)
        split = _divide(self._source, self._digests, self._config.split, good, grouping)
        problems = _size_problems(self._source, split, self._crowded(good, grouping))
        if problems:
            skipped = f"after {len(self._broken)} broken image(s) were skipped: "
            lines = [f"{image.path}: {image.reason}" for image in self.broken[:_MOST_REASONS]]
            if len(self.broken) > _MOST_REASONS:
                lines.append(f"and {len(self.broken) - _MOST_REASONS} more broken images")
            raise UserError("\n".join([*lines, *(skipped + problem for problem in problems)]))
        return split

    def _crowded(self, positions: Sequence[int], grouping: Grouping | None) -> set[int]:
        """Classes of which nothing can be held out, as all their images belong together."""
        if grouping is None:
            return set()
        labels = np.array([self._source.samples[position].label for position in positions])
        return set(crowded(together(grouping.copies, grouping.units), labels))

    @functools.cached_property
    def pool(self) -> DecodedImages:
        """Training and validation images."""
        return self._view(self._pool_positions(), separate_test=False)

    @functools.cached_property
    def test(self) -> DecodedImages:
        """Test images; decoded or opened at the first access."""
        if not self.given_test:
            return self._view(self.split.test, separate_test=False)
        self._open(separate_test=True)
        positions = [
            position
            for position, sample in enumerate(self._source.samples)
            if sample.part == "test" and position not in self._broken
        ]
        return self._view(np.asarray(positions, dtype=np.int64), separate_test=True)

    @functools.cached_property
    def dropped(self) -> DecodedImages:
        """Images that are in no part, as a given part has the same ones."""
        return self._view(self.split.dropped, separate_test=False)

    @functools.cached_property
    def train_index(self) -> np.ndarray:
        """Positions of the training images in `pool`, ascending int64."""
        return np.searchsorted(self._pool_positions(), self.split.train).astype(np.int64)

    @functools.cached_property
    def validation_index(self) -> np.ndarray:
        """Positions of the validation images in `pool`, ascending int64."""
        return np.searchsorted(self._pool_positions(), self.split.validation).astype(np.int64)

    def class_of_path(self) -> dict[str, str]:
        """Name of the class of every image, by its path."""
        return {sample.path: self.classes[sample.label] for sample in self._source.samples}

    def belonging(self) -> tuple[list[str], Grouping]:
        """Paths of all images, and which of them are copies or of one group or burst.

        Reads every image once.
        """
        paths = [sample.path for sample in self._source.samples]
        found = belonging(self._source, self._digests, self.reading, self._cache, self.name)
        return paths, found

    @functools.cached_property
    def duplicates(self) -> Duplicates:
        """Byte-identical images of all parts."""
        samples = self._source.samples
        return find_duplicates(
            [sample.path for sample in samples],
            [sample.label for sample in samples],
            self._digests,
            self.split,
        )

    def near_duplicates(self) -> Duplicates:
        """Images that are the same but for size, compression and brightness, in all parts.

        Sets of byte-identical images are not named again. Reads every image once.
        """
        looks = looks_of(self._source, self._digests, self.reading, self._cache, self.name)
        numbers = near_duplicates(looks)
        samples = self._source.samples
        members: dict[int, list[int]] = {}
        for position, number in enumerate(numbers.tolist()):
            members.setdefault(number, []).append(position)
        sets = [
            positions
            for positions in members.values()
            if len({self._digests[position] for position in positions}) > 1
        ]
        named = [[samples[position].path for position in positions] for positions in sets]
        return Duplicates(
            groups=named,
            conflicting=[
                paths
                for paths, positions in zip(named, sets, strict=True)
                if len({samples[position].label for position in positions}) > 1
            ],
        )

    @functools.cached_property
    def digest(self) -> str:
        """Digest of images, labels, classes and split (not of the geometry)."""
        state = hashlib.blake2b(digest_size=16)
        state.update("\n".join(self.classes).encode())
        for part in (self.split.train, self.split.validation, self.split.test):
            state.update(b"part")
            for position in part.tolist():
                state.update(self._digests[position])
                state.update(self._source.samples[position].label.to_bytes(4, "little"))
        return state.hexdigest()

    @property
    def broken(self) -> list[BrokenImage]:
        """Images that could not be read, of what has been decoded so far."""
        return [self._broken[position] for position in sorted(self._broken)]

    @functools.cached_property
    def notices(self) -> list[str]:
        """What is no fault but must be known: one line each."""
        labels = self.pool.labels[self.validation_index]
        found: list[str | None] = [
            *self._source.told(),
            *self._split_notices,
            missing_classes(self.classes, "validation", labels, given=self.given_validation),
            missing_classes(self.classes, "test", self.test.labels, given=self.given_test),
        ]
        return [line for line in found if line is not None]

    def summary(self) -> dict[str, Any]:
        """Counts and findings, ready for JSON."""
        parts = {
            "train": self.pool.labels[self.train_index],
            "validation": self.pool.labels[self.validation_index],
            "test": self.test.labels,
        }
        counts = {
            part: np.bincount(labels, minlength=self.class_count) for part, labels in parts.items()
        }
        return {
            "classes": self.classes,
            "counts": {part: int(count.sum()) for part, count in counts.items()},
            "class_counts": {
                name: {part: int(count[label]) for part, count in counts.items()}
                for label, name in enumerate(self.classes)
            },
            "given_validation": self.given_validation,
            "given_test": self.given_test,
            "known_groups": self.known_groups,
            "notices": self.notices,
            "broken": [{"path": image.path, "reason": image.reason} for image in self.broken],
            "duplicates": {
                "groups": self.duplicates.groups,
                "dropped": self.duplicates.dropped,
                "conflicting": self.duplicates.conflicting,
            },
            "side": self._geometry.side,
            "fit": self._geometry.fit,
            "digest": self.digest,
        }

    def _pool_positions(self) -> np.ndarray:
        return np.sort(np.concatenate([self.split.train, self.split.validation]))

    def _view(self, positions: np.ndarray, *, separate_test: bool) -> DecodedImages:
        """Readable images at ascending positions of the list, all of them in one file."""
        file, listed = self._open(separate_test=separate_test)
        samples = [self._source.samples[position] for position in positions.tolist()]
        state = hashlib.blake2b(digest_size=16)
        state.update(f"{self._geometry.key} {self._source.revision}".encode())
        for position in positions.tolist():
            state.update(self._digests[position])
        return DecodedImages(
            file,
            np.searchsorted(listed, positions),
            [sample.label for sample in samples],
            [sample.path for sample in samples],
            state.hexdigest(),
            self.name,
        )

    def _open(self, *, separate_test: bool) -> tuple[DecodedFile, np.ndarray]:
        """A cache file, decoded if need be, and the positions of its rows.

        A test part of the source has a file of its own. One that we choose shares the
        file of the rest, so that another seed of the split decodes nothing again.
        """
        if separate_test not in self._files:
            is_test = np.asarray([sample.part == "test" for sample in self._source.samples])
            listed = np.flatnonzero(is_test if separate_test else ~is_test)
            try:
                file = decode_once(
                    self._source,
                    listed.tolist(),
                    self._digests,
                    self._geometry,
                    self._cache,
                    self._progress,
                    self.name,
                )
            except OSError as error:
                raise _disk_error(error, self._cache) from error
            self._files[separate_test] = (file, listed)
            self._note_broken(file, listed)
        return self._files[separate_test]

    def _note_broken(self, file: DecodedFile, listed: np.ndarray) -> None:
        for position, reason in zip(listed.tolist(), file.reasons, strict=True):
            if reason is not None:
                path = self._source.samples[position].path
                self._broken[position] = BrokenImage(path, reason)
        self._decoded_count += len(listed)
        limit = self._config.max_broken
        if len(self._broken) > limit * self._decoded_count:
            raise UserError(_broken_message(self.broken, self._decoded_count, limit))


def _name(config: DataConfig) -> str:
    path = config.path[0] if isinstance(config.path, list) and config.path else config.path
    return (Path(path).name if isinstance(path, str) else "") or config.source


def _reading(source: Source, contents: Contents, config: DataConfig) -> Reading:
    """How the images are read: deep grey ones all by one range, which is not that of test images.

    Where the configuration gives none and some images do not say what white is, their least and
    largest values do. A notice says so.
    """
    given = None if config.value_range is None else (config.value_range[0], config.value_range[1])
    deep, found = contents.extremes, None
    if given is None and deep:
        seen = [deep[i] for i in deep if source.samples[i].part != "test"] or list(deep.values())
        low, high = min(low for low, _ in seen), max(high for _, high in seen)
        found = natural_range(low, high)
        source.notices.append(
            f"{len(deep):,} grey image{'s' if len(deep) > 1 else ''} of 32 bits or floats, values "
            f"{low:.6g} to {high:.6g}: read from {found[0]:.6g} (black) to {found[1]:.6g} (white); "
            "data.value_range sets both"
        )
    return Reading(
        value_range=given,
        float_range=found,
        max_pixels=config.max_pixels,
        truncated=config.truncated == "accept",
        cut_bottom=source.cut_bottom,
    )


def _settle_validation(source: Source, config: SplitConfig) -> None:
    """Does with a given validation part what ``data.split.validation`` says."""
    given = sum(sample.part == "validation" for sample in source.samples)
    if config.validation == "given" and not given and source.samples:
        source.problems.append(
            "data.split.validation: found given, but the source has no validation part; allowed: a "
            "share such as 0.2"
        )
    elif config.validation == "resplit" and given:
        source.notices.append(
            f"the given validation part ({given:,} images) joins the training images, and another "
            "one is held out"
        )
        source.samples = [
            dataclasses.replace(each, part="train") if each.part == "validation" else each
            for each in source.samples
        ]


def _divide(
    source: Source,
    digests: Sequence[bytes],
    config: SplitConfig,
    positions: Sequence[int],
    grouping: Grouping | None = None,
) -> Split:
    """Divides some of the images of a source."""
    samples = [source.samples[position] for position in positions]
    split = divide(
        [sample.label for sample in samples],
        [sample.part for sample in samples],
        [digests[position] for position in positions],
        config,
        grouping,
    )
    place = np.asarray(positions, dtype=np.int64)
    return dataclasses.replace(
        split,
        train=place[split.train],
        validation=place[split.validation],
        test=place[split.test],
        dropped=place[split.dropped],
    )


def _size_problems(source: Source, split: Split, may_lack: Collection[int] = ()) -> list[str]:
    if not source.samples and source.problems:
        return []

    def labels(positions: np.ndarray) -> list[int]:
        return [source.samples[position].label for position in positions.tolist()]

    test = None if split.given_test else labels(split.test)
    problems = size_problems(
        source.classes,
        labels(split.train),
        labels(split.validation),
        test,
        given_validation=split.given_validation,
        may_lack=may_lack,
    )
    if split.given_validation and not len(split.validation):
        problems.append("the given validation part has no image that is not in the test part too")
    return problems


def _broken_message(broken: Sequence[BrokenImage], count: int, limit: float) -> str:
    lines = [
        f"{len(broken)} of {count} images are broken, more than data.max_broken "
        f"({limit:.2%}) allows:"
    ]
    lines += [f"  {image.path}: {image.reason}" for image in broken[:_MOST_REASONS]]
    if len(broken) > _MOST_REASONS:
        lines.append(f"  and {len(broken) - _MOST_REASONS} more")
    return "\n".join(lines)


def _disk_error(error: OSError, cache: Path) -> Exception:
    """Turns what a user can mend about disks into words; anything else stays what it is."""
    place = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (place and Path(place).is_relative_to(cache)):
        return UserError(
            f"the cache directory {cache} cannot be written: {error.strerror or error}; "
            "GSFL_TUNE_CACHE names another one"
        )
    if place and error.errno in (errno.EACCES, errno.EPERM):
        return UserError(f"{place} cannot be read: {error.strerror}")
    return error
