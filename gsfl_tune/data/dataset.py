"""The images of a configuration: listed, divided and decoded."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.class_embeddings import has_embeddings, read_class_embeddings
from gsfl_tune.data.class_text import read_class_texts
from gsfl_tune.data.decoded import BrokenImage, DecodedImages, Geometry, Progress
from gsfl_tune.data.decoded_files import DecodedFiles
from gsfl_tune.data.digests import digest_of_images
from gsfl_tune.data.duplicates import Duplicates, find_duplicates, near_sets
from gsfl_tune.data.grouping import Grouping, together
from gsfl_tune.data.held_out import belonging, find_grouping
from gsfl_tune.data.image_file import Reading
from gsfl_tune.data.looks import Looks, looks_of
from gsfl_tune.data.messages import shots_told, split_message
from gsfl_tune.data.naming import name_of
from gsfl_tune.data.near import near_duplicates
from gsfl_tune.data.parts import divide_source, labels_of_test, source_problems
from gsfl_tune.data.shots import with_shots
from gsfl_tune.data.sources import Source
from gsfl_tune.data.splits import Split, missing_classes
from gsfl_tune.data.summary import summary_of
from gsfl_tune.data.synthetic import join_training
from gsfl_tune.data.units import crowded
from gsfl_tune.data.unlabelled import Unlabelled, prepare_unlabelled
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError


class Dataset:
    """Holds the images of a configuration; made by `prepare`.

    Attributes:
        name: Name for people: the last part of its path, else its source.
        classes: Names of the classes, in the order of the labels.
        known_groups: The true group of each class, if the source knows it.
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
        self.name = name_of(config)
        self.classes = list(source.classes)
        self.known_groups = source.known_groups
        self.given_validation = any(sample.part == "validation" for sample in source.samples)
        self.given_test = any(sample.part == "test" for sample in source.samples)
        self._source = source
        self._digests = digests
        self._identities = geometry.identities(source, digests)
        self._geometry = geometry
        self._config = config
        self._cache = cache
        self._files = DecodedFiles(
            source, self._identities, geometry, cache, config.max_broken, self.name, progress
        )
        self.split_notices: list[str] = []
        self.split_measured: dict[str, float] = {}

    @property
    def class_count(self) -> int:
        """Returns the number of classes."""
        return len(self.classes)

    @property
    def reading(self) -> Reading:
        """Returns the settings for reading the files."""
        return self._geometry.reading

    @functools.cached_property
    def split(self) -> Split:
        """Returns the positions of each part in the list of the source.

        Broken images belong to no part. So no broken image can be the only validation image of its
        class. Broken images of a given test part are not known yet and stay in it.
        """
        good, grouping = self._grouped
        if grouping is not None:
            self.split_notices, self.split_measured = [*grouping.notices], {**grouping.measured}
        split = divide_source(self._source, self._digests, self._config.split, good, grouping)
        held, shots = self._crowded(good, grouping), self._config.shots
        problems = source_problems(self._source, split, held, shots)
        if problems:
            told = [*self._source.told(), *self.split_notices]
            raise UserError(split_message(problems, self.broken, told))
        if self._config.shots is not None:
            copies = None if grouping is None else (good, grouping.copies)
            split = with_shots(split, self._source.samples, self._identities, copies, self._config)
        broken = self._files.broken
        split, told = join_training(split, self._source, self._digests, broken, self._looks)
        self.split_notices += told
        return split

    @functools.cached_property
    def _grouped(self) -> tuple[list[int], Grouping | None]:
        """Returns the positions of readable images, and which of these belong together."""
        self._files.open(separate_test=False)
        samples = self._source.samples
        good = [
            position
            for position in range(len(samples))
            if position not in self._source.synthetic
            and (
                position not in self._files.broken
                or (self.given_test and samples[position].part == "test")
            )
        ]
        where = (self._config.split, *self._looked)
        return good, find_grouping(self._source, self._digests, good, *where)

    def _crowded(self, positions: Sequence[int], grouping: Grouping | None) -> set[int]:
        """Returns classes that can hold out no image, as all their images belong together."""
        if grouping is None:
            return set()
        labels = np.array([self._source.samples[position].label for position in positions])
        return set(crowded(together(grouping.copies, grouping.units), labels))

    @functools.cached_property
    def pool(self) -> DecodedImages:
        """Returns training and validation images."""
        return self.view(self._pool_positions(), separate_test=False)

    @functools.cached_property
    def test(self) -> DecodedImages:
        """Returns test images, which are decoded or opened at the first access."""
        return self.view(self._test_positions(), separate_test=self.given_test)

    @functools.cached_property
    def dropped(self) -> DecodedImages:
        """Returns images left out as a given part has copies of them, or others of their unit."""
        return self.view(self.split.dropped, separate_test=False)

    @functools.cached_property
    def train_index(self) -> np.ndarray:
        """Returns positions of the training images in `pool`, ascending int64."""
        return np.searchsorted(self._pool_positions(), self.split.train).astype(np.int64)

    @functools.cached_property
    def final_index(self) -> np.ndarray:
        """Returns positions in `pool` for a final retrain, ascending int64.

        These are training and validation images. With ``data.shots`` they are only the training
        images, as a k-shot model has seen no others.
        """
        if self._config.shots is not None:
            return self.train_index
        return np.arange(len(self.pool), dtype=np.int64)

    @functools.cached_property
    def validation_index(self) -> np.ndarray:
        """Returns positions of the validation images in `pool`, ascending int64."""
        return np.searchsorted(self._pool_positions(), self.split.validation).astype(np.int64)

    @functools.cached_property
    def unlabelled(self) -> DecodedImages | None:
        """Returns the images of ``data.unlabelled``, without copies of held-out ones; None without.

        Raises:
            UserError: If there are none, or they cannot be read.
        """
        return None if self._unlabelled is None else self._unlabelled.images

    @functools.cached_property
    def _unlabelled(self) -> Unlabelled | None:
        if self._config.unlabelled is None:
            return None
        held = np.concatenate([self.split.validation, self.split.test, self.split.dropped])
        digests = {self._digests[position] for position in held.tolist()}
        looks = self._looks().of(held)
        return prepare_unlabelled(self._config, self._geometry, self._cache, looks, digests)

    def annotations(self, part: Literal["pool", "test"]) -> Annotations:
        """Reads the source's annotations for the images of `pool` or `test`.

        Boxes and points are in pixels of the decoded squares; those of broken images are NaN.

        Raises:
            UserError: If the source has files of annotations that cannot be read.
        """
        if part == "pool":
            images, positions = self.pool, self._pool_positions()
        else:
            images, positions = self.test, self._test_positions()
        geometry = self._geometry
        return self._annotated.rows(positions).in_squares(
            images.sizes, geometry.side, geometry.fit, geometry.margin
        )

    @functools.cached_property
    def _annotated(self) -> Annotations:
        return self._source.annotations()

    @functools.cached_property
    def class_texts(self) -> list[str] | None:
        """Reads a description of each class from ``data.class_text``.

        Raises:
            UserError: If the file cannot be read, or does not describe every class.
        """
        file = self._config.class_text
        if file is None or has_embeddings(file):
            return None
        return read_class_texts(Path(file), self.classes)

    @functools.cached_property
    def class_embeddings(self) -> np.ndarray | None:
        """Reads an embedding of each class, (C, E) float32, from ``data.class_text``.

        Returns:
            None if that has texts, or there is none.

        Raises:
            UserError: If the file cannot be read, or lacks a class.
        """
        file = self._config.class_text
        if file is None or not has_embeddings(file):
            return None
        return read_class_embeddings(Path(file), self.classes)

    def class_of_path(self) -> dict[str, str]:
        """Returns the class name of every image, by its path."""
        return {sample.path: self.classes[sample.label] for sample in self._source.samples}

    def belonging(self) -> tuple[list[str], Grouping]:
        """Returns paths of all images, and which of them are copies or of one group or burst.

        Reads every image once.
        """
        paths = [sample.path for sample in self._source.samples]
        return paths, belonging(self._source, self._digests, *self._looked)

    @property
    def unlabelled_test(self) -> int:
        """Returns the number of images of a given test part that are left out without a label."""
        return self._source.unlabelled("test") if self.given_test else 0

    @functools.cached_property
    def duplicates(self) -> Duplicates:
        """Finds byte-identical images of all parts; with boxes, equal boxes in equal images."""
        samples = self._source.samples
        return find_duplicates(
            [sample.path for sample in samples],
            [sample.label for sample in samples],
            self._identities,
            self.split,
        )

    def near_duplicates(self) -> Duplicates:
        """Finds copies in all parts: of other size, compression, brightness, mirrored, or cut.

        Sets of byte-identical images are not named again. Reads every image once.
        """
        samples = self._source.samples
        return near_sets(
            [sample.path for sample in samples],
            [sample.label for sample in samples],
            self._identities,
            near_duplicates(self._looks(), np.array([sample.label for sample in samples])),
        )

    def _looks(self) -> Looks:
        return looks_of(self._source, self._digests, *self._looked)

    @property
    def _looked(self) -> tuple[Reading, Path, str, float | None]:
        """Returns how photographs are compared: the last arguments of `looks_of`."""
        return self.reading, self._cache, self.name, self._geometry.margin

    @functools.cached_property
    def digest(self) -> str:
        """Returns the digest of images, boxes, labels, classes and split (not of the geometry).

        Images of ``data.unlabelled`` count too.
        """
        state = hashlib.blake2b(digest_size=16)
        state.update("\n".join(self.classes).encode())
        for part in (self.split.train, self.split.validation, self.split.test):
            state.update(b"part")
            for position in part.tolist():
                state.update(self._identities[position])
                state.update(self._source.samples[position].label.to_bytes(4, "little"))
        if self._unlabelled is not None:
            state.update(b"unlabelled")
            for identity in self._unlabelled.identities:
                state.update(identity)
        return state.hexdigest()

    def trained_on(self, *, validation: bool) -> dict[str, Any]:
        """Says what a model has seen that was trained on these images, for its bundle.

        Args:
            validation: Whether it was trained on the validation images too.

        Returns:
            ``images``, ``test`` and ``held_out``: digests of all images but synthetic ones, of test
            and of validation images, in any order; ``count``, see `Source.listed`; ``validation``.
        """
        parts = {"images": self._source.originals, "test": self.split.test.tolist()}
        parts["held_out"] = self.split.validation.tolist()
        digests = {
            name: digest_of_images(self._identities[position] for position in positions)
            for name, positions in parts.items()
        }
        seen = validation and self._config.shots is None
        return {**digests, "count": self._source.listed, "validation": seen}

    @property
    def broken(self) -> list[BrokenImage]:
        """Returns the images that could not be read, of those decoded so far."""
        return self._files.broken_images

    @property
    def broken_test(self) -> list[BrokenImage]:
        """Returns those of `broken` that are of the test part; all of them where it is chosen."""
        return self._files.broken_of("test") if self.given_test else self.broken

    def too_broken(self, limit: float) -> tuple[int, int] | None:
        """Returns how many of how many images are broken, if a search with this limit refuses."""
        return self._files.exceeded(limit)

    @functools.cached_property
    def notices(self) -> list[str]:
        """Returns notices that are not errors but should be known, one line each."""
        labels = self.pool.labels[self.validation_index]
        tested = labels_of_test(self._source, self.split, self.__dict__.get("test"))
        counts = np.bincount(self.pool.labels[self.train_index], minlength=self.class_count)
        found: list[str | None] = [
            *self._source.told(),
            *self.split_notices,
            shots_told(self._config.shots, len(self.split.spare), counts),
            missing_classes(self.classes, "validation", labels, given=self.given_validation),
            missing_classes(self.classes, "test", tested, given=self.given_test),
            *([] if self._unlabelled is None else self._unlabelled.notices),
        ]
        return [line for line in found if line is not None]

    def summary(self) -> dict[str, Any]:
        """Counts images and lists findings, ready for JSON.

        Raises:
            UserError: If the file of ``data.class_text`` does not fit the classes.
        """
        return summary_of(self, self._geometry, self._config.shots)

    def _test_positions(self) -> np.ndarray:
        if not self.given_test:
            return self.split.test
        self._files.open(separate_test=True)
        positions = [
            position
            for position, sample in enumerate(self._source.samples)
            if sample.part == "test" and position not in self._files.broken
        ]
        return np.asarray(positions, dtype=np.int64)

    def _pool_positions(self) -> np.ndarray:
        return self._pooled

    @functools.cached_property
    def _pooled(self) -> np.ndarray:
        # Folds keep it: their parts may lack synthetic images, their `pool` has all.
        return np.sort(np.concatenate([self.split.train, self.split.validation]))

    @property
    def synthetic_count(self) -> int:
        """Returns the number of synthetic images in the training part."""
        return int(np.isin(self.split.train, list(self._source.synthetic)).sum())

    def view(self, positions: np.ndarray, *, separate_test: bool = False) -> DecodedImages:
        """Returns readable images at ascending positions of the list, all of them in one file."""
        file, listed = self._files.open(separate_test=separate_test)
        samples = [self._source.samples[position] for position in positions.tolist()]
        state = hashlib.blake2b(digest_size=16)
        state.update(f"{self._geometry.key} {self._source.revision}".encode())
        for position in positions.tolist():
            state.update(self._identities[position])
        return DecodedImages(
            file,
            np.searchsorted(listed, positions),
            [sample.label for sample in samples],
            [sample.path for sample in samples],
            state.hexdigest(),
            self.name,
        )
