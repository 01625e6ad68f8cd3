"""Sources that installed packages add."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from PIL import Image

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.sources._base import Reader, Sample, Source
from gsfl_tune.data.sources._names import Part, normal, some
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.plugins import Plugin, PluginError, plugins

_DIGEST_SIZE = 16
Given = TypeVar("Given")


@dataclass(frozen=True)
class SourceRequest:
    """Holds the request for a source of a package.

    Attributes:
        path: ``data.path`` as in the experiment; may be anything that the source knows.
        config: The section ``data``.
        cache: Folder of this machine's caches, for copies of remote files.
        scoring: Whether nothing is trained: classes are then those of all parts, not only of
            training images.
    """

    path: str | list[str] | None
    config: DataConfig
    cache: Path
    scoring: bool


class _AddedSource(Source):
    """Wraps the source of a package, and names it in all errors."""

    def __init__(self, plugin: Plugin, inner: Source) -> None:
        super().__init__()
        self._plugin = plugin
        self._inner = inner
        self.classes = [normal(name) for name in inner.classes]
        self.samples = list(inner.samples)
        self.problems = [f"{plugin}: {problem}" for problem in inner.problems]
        self.notices = list(inner.notices)
        self.left_out = Counter(inner.left_out)
        self.kind = inner.kind
        self.known_groups = inner.known_groups
        self.revision = inner.revision
        self.cut_bottom = inner.cut_bottom

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields the readers of the package's source, in the requested order."""
        wanted = iter(positions)
        given = iter(_told(self._plugin, lambda: self._inner.readers(positions)))
        while True:
            pair = _told(self._plugin, lambda: next(given, None))
            position = next(wanted, None)
            if pair is None and position is None:
                return
            if pair is None or position is None or pair[0] != position:
                found = "nothing" if pair is None else str(pair[0])
                asked = "nothing" if position is None else str(position)
                raise UserError(
                    f"data.source: {self._plugin}: readers() gave {found} where position {asked} "
                    "was next; allowed are the positions that are asked for, in their order"
                )
            yield position, functools.partial(_read, pair[1])

    def annotations(self) -> Annotations:
        """Returns the annotations of the package's source."""
        found = _told(self._plugin, self._inner.annotations)
        if not isinstance(found, Annotations) or len(found) != len(self.samples):
            raise UserError(
                f"data.source: {self._plugin}: annotations() must give gsfl_tune Annotations of "
                f"each of the {len(self.samples):,} samples"
            )
        return found

    def known_digests(self) -> list[bytes] | None:
        """Returns digests of the package's source; another version of the package gives others."""
        digests = _told(self._plugin, self._inner.known_digests)
        if digests is None:
            return None
        if len(digests) != len(self.samples) or any(
            not isinstance(each, bytes) or len(each) != _DIGEST_SIZE for each in digests
        ):
            raise UserError(
                f"data.source: {self._plugin}: known_digests() must give {_DIGEST_SIZE} bytes for "
                f"each of the {len(self.samples):,} samples, or None"
            )
        self.revision = f"{self._inner.revision} {self._plugin.package}"
        return digests


def added_source(name: str, request: SourceRequest) -> Source:
    """Makes a source that a package adds.

    Args:
        name: Name of its entry point.
        request: The request for the source.

    Raises:
        UserError: If it cannot be loaded or made, or does not list samples; the message names the
            package.
    """
    plugin = plugins("source")[name]
    problem = source_problem(name)
    if problem is not None:
        raise UserError(f"data.source: {problem}")
    kind = plugin.load_class(Source)
    inner: Source = _told(plugin, lambda: kind(request))
    faults = source_faults(inner)
    if faults:
        raise UserError("\n".join(f"data.source: {plugin}: {fault}" for fault in faults))
    return _AddedSource(plugin, inner)


def source_problem(name: str) -> str | None:
    """Returns what is wrong with a package's source, or None; the source is imported, not made."""
    added = plugins("source").get(name)
    if added is None:
        return None
    try:
        added.load_class(Source)
    except PluginError as error:
        return str(error)
    return None


def _told(plugin: Plugin, call: Callable[[], Given]) -> Given:
    """Calls a function of a plugin; an error becomes one that names the plugin."""
    try:
        return call()
    except UserError as error:
        raise UserError(f"data.source: {plugin}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"data.source: {plugin} failed ({reason})") from error


def _read(reader: Reader) -> bytes | Image.Image:
    """Reads an image; an error makes it a broken one."""
    try:
        content = reader()
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not isinstance(content, bytes | Image.Image):
        raise ValueError(f"a reader gave {type(content).__name__}, allowed bytes or an image")
    return content


def source_faults(source: Source) -> list[str]:
    """Lists the faults in a source's lists."""
    if not isinstance(getattr(source, "samples", None), list):
        return ["has no list of samples (does its __init__ call super().__init__()?)"]
    faults = []
    wrong = [repr(name) for name in source.classes if not isinstance(name, str) or not name]
    if wrong:
        faults.append(f"classes: found {some(wrong, 3)}, allowed names")
    strangers = [repr(each)[:60] for each in source.samples if not isinstance(each, Sample)]
    if strangers:
        return [*faults, f"samples: found {some(strangers, 3)}, allowed gsfl_tune Samples"]
    count = len(source.classes)
    outside = [
        f"{each.path} ({each.label!r})"
        for each in source.samples
        if not isinstance(each.label, int) or not 0 <= each.label < count
    ]
    if outside:
        faults.append(f"labels outside the {count} classes: {some(outside, 3)}")
    parts = [
        f"{each.path} ({each.part!r})"
        for each in source.samples
        if each.part is not None and each.part not in get_args(Part)
    ]
    if parts:
        allowed = ", ".join(get_args(Part))
        faults.append(f"parts: found {some(parts, 3)}, allowed {allowed} or None")
    paths = Counter(each.path for each in source.samples)
    twice = [path for path, number in paths.items() if number > 1]
    if twice:
        faults.append(f"paths that several samples have: {some(twice, 3)}")
    groups = source.known_groups
    if groups is not None and len(groups) != count:
        faults.append(f"known_groups: found {len(groups)}, allowed one for each of {count} classes")
    return faults
