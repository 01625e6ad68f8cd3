"""The contract of a source of labelled images."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gsfl_tune.data.sources import Reader, Source, SourceRequest, source_faults
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.testing._expect import Expect

_expect = Expect("the source")
# More would only take time.
_MOST = 64


def check_source(create: Callable[[], Source]) -> None:
    """Checks a source of labelled images.

    - It lists classes with names and images with labels, parts and paths of their own.
    - It lists the same, in the same order, when it is made again.
    - It reads the images that it is asked for, in that order, and nothing else; an image is the
      same whether it is read alone, with others, or a second time.

    Args:
        create: Makes the source, of data with at least two readable images.

    Raises:
        AssertionError: With what is wrong.
    """
    source = create()
    faults = source_faults(source)
    _expect(not faults, "; ".join(faults))
    _expect(len(source.samples) > 1, "lists fewer than two images")
    again = create()
    same = again.samples == source.samples and again.classes == source.classes
    _expect(same, "lists other images when it is made again, or in another order")
    step = max(1, len(source.samples) // _MOST)
    asked = list(range(0, len(source.samples), step))
    whole = _read(source, asked)
    for others in (asked[1::2], asked[:1], []):
        read = _read(again, others)
        for position in others:
            _expect(
                np.array_equal(read[position], whole[position]),
                f"reads another image at {source.samples[position].path} when asked for fewer",
            )


def source_request(path: str | list[str], cache: Path) -> SourceRequest:
    """Makes the request that a source of a package gets, other settings at their defaults.

    Args:
        path: ``data.path``.
        cache: Folder for copies of remote files.
    """
    config = DataConfig.model_validate({"source": "folder", "path": path})
    return SourceRequest(path, config, cache, scoring=False)


def _read(source: Source, asked: list[int]) -> dict[int, np.ndarray]:
    given: list[tuple[int, Reader]] = list(source.readers(asked))
    positions = [position for position, _ in given]
    _expect(positions == asked, f"reads the positions {positions}, asked for {asked}")
    # Readers are called later, in any order, by several threads.
    return {
        position: _pixels(source.samples[position].path, reader)
        for position, reader in reversed(given)
    }


def _pixels(path: str, reader: Reader) -> np.ndarray:
    content = reader()
    allowed = isinstance(content, bytes | Image.Image)
    _expect(allowed, f"gives {type(content).__name__} for {path}, allowed are bytes or an image")
    image = Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content
    return np.asarray(image.convert("RGB"))
