"""The cache files of a source's images, decoded when they are first needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gsfl_tune.data.decoded import BrokenImage, DecodedFile, Geometry, Progress, decode_once
from gsfl_tune.data.disk_errors import disk_error
from gsfl_tune.data.messages import broken_message
from gsfl_tune.data.sources import Part, Source
from gsfl_tune.experiment.errors import UserError


class DecodedFiles:
    """Opens the files of a source, and knows which of its images are broken.

    A test part of the source has a file of its own. A test part that is chosen here shares the file
    of the rest, so that another split seed needs no new decoding.

    Args:
        source: The source of the images.
        identities: Identity of each of its images, see `Geometry.identities`.
        geometry: Geometry of the squares.
        cache: The cache directory.
        max_broken: Largest share of unreadable images, of those decoded so far.
        name: Name of the data set for people.
        progress: Called while images are decoded.

    Attributes:
        broken: Unreadable images by position in the source.
    """

    def __init__(
        self,
        source: Source,
        identities: Sequence[bytes],
        geometry: Geometry,
        cache: Path,
        max_broken: float,
        name: str,
        progress: Progress | None,
    ) -> None:
        self.broken: dict[int, BrokenImage] = {}
        self._source = source
        self._identities = identities
        self._geometry = geometry
        self._cache = cache
        self._max_broken = max_broken
        self._name = name
        self._progress = progress
        # (broken, decoded) images after each file that was opened, of all files so far.
        self._counts: list[tuple[int, int]] = []
        self._open: dict[bool, tuple[DecodedFile, np.ndarray]] = {}

    @property
    def broken_images(self) -> list[BrokenImage]:
        """Returns the images that could not be read, in the order of the source."""
        return [self.broken[position] for position in sorted(self.broken)]

    def broken_of(self, part: Part) -> list[BrokenImage]:
        """Returns those of `broken_images` that the source has put into a part."""
        samples = self._source.samples
        return [self.broken[at] for at in sorted(self.broken) if samples[at].part == part]

    def exceeded(self, limit: float) -> tuple[int, int] | None:
        """Returns the numbers of broken and of all images where a search would have ended.

        A limit is tested after each file, so that an early end says what was decoded until then.

        Args:
            limit: Largest share of unreadable images.

        Returns:
            None if no file exceeds the limit.
        """
        return next((each for each in self._counts if each[0] > limit * each[1]), None)

    def open(self, *, separate_test: bool) -> tuple[DecodedFile, np.ndarray]:
        """Opens a file, decoding if needed; returns it and the positions of its rows.

        Args:
            separate_test: The file of the source's test part, or that of all other images.

        Raises:
            UserError: If too many images are broken, or the disk is full.
        """
        if separate_test not in self._open:
            is_test = np.asarray([sample.part == "test" for sample in self._source.samples])
            listed = np.flatnonzero(is_test if separate_test else ~is_test)
            try:
                file = decode_once(
                    self._source,
                    listed.tolist(),
                    self._identities,
                    self._geometry,
                    self._cache,
                    self._progress,
                    self._name,
                )
            except OSError as error:
                raise disk_error(error, self._cache) from error
            self._open[separate_test] = (file, listed)
            self._note_broken(file, listed)
        return self._open[separate_test]

    def _note_broken(self, file: DecodedFile, listed: np.ndarray) -> None:
        for position, reason in zip(listed.tolist(), file.reasons, strict=True):
            if reason is not None:
                self.broken[position] = BrokenImage(self._source.samples[position].path, reason)
        before = self._counts[-1][1] if self._counts else 0
        self._counts.append((len(self.broken), before + len(listed)))
        exceeded = self.exceeded(self._max_broken)
        if exceeded is not None:
            raise UserError(broken_message(self.broken_images, exceeded[1], self._max_broken))
