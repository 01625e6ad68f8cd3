"""What installed packages add: backbones, poolings, loss terms, methods, samplers and so on.

A package lists what it adds in its metadata, as entry points of one group a kind. Names are read
from the metadata, so that checking a file imports nothing. The code is imported where it is used,
in every process that uses it: a worker finds it as the driver does. An experiment file can only
name what is installed; it cannot import anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Kind = Literal["backbone", "pooling", "loss_term", "transform", "method", "sampler", "source"]

GROUPS: dict[Kind, str] = {
    "backbone": "gsfl_tune.backbones",
    "pooling": "gsfl_tune.poolings",
    "loss_term": "gsfl_tune.loss_terms",
    "transform": "gsfl_tune.transforms",
    "method": "gsfl_tune.methods",
    "sampler": "gsfl_tune.samplers",
    "source": "gsfl_tune.sources",
}

BUILT_IN: dict[Kind, tuple[str, ...]] = {
    "backbone": (),  # timm's, which are asked for when they are used
    "pooling": ("average", "bilinear", "compact_bilinear"),
    "loss_term": (),
    "transform": ("trivial", "erasing"),
    "method": ("single", "rdrop", "two_views"),
    "sampler": ("tpe", "gp", "cmaes", "random", "sobol", "grid"),
    "source": (
        *("auto", "folder"),
        *("csv", "jsonl", "coco", "parquet", "arrow", "webdataset", "fiftyone"),
        *("cub", "nabirds", "aircraft", "flowers102", "pets", "cars"),
        *("dogs", "food101", "inaturalist", "typefaces"),
    ),
}

# Numbers of an epoch that are called so already, and what a section of a file cannot be called.
_SECTION = ("copy", "json", "dict", "construct", "schema", "validate")
_TAKEN: dict[Kind, tuple[str, ...]] = {
    "loss_term": (
        *("loss", "cross_entropy", "reconstruction", "class_center", "shared_center"),
        *("center", "isda", "disagreement", *_SECTION),
    ),
    # And a stream of random numbers.
    "transform": ("mixing", *_SECTION),
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


# Sections with a key for each thing that a package adds, which is left out at 0.
ADDED_SECTIONS = ("loss.terms", "data.augment.transforms")


def left_out(path: str, value: object) -> bool:
    """Tell whether a leaf is that of something that a package adds, and that takes no part."""
    return not value and path.rpartition(".")[0] in ADDED_SECTIONS


class PluginError(ValueError):
    """A plugin that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Plugin:
    """One thing that an installed package adds.

    Attributes:
        kind: What it is.
        name: What experiment files call it.
        package: The package with its version, such as ``my-poolings 1.2``. Part of the keys of
            what is cached: another version computes anew.
        entry: Where its code is.
    """

    kind: Kind
    name: str
    package: str
    entry: EntryPoint

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.name} of {self.package}"

    def load(self) -> Any:
        """Imports it.

        Raises:
            PluginError: When that fails, whatever the reason.
        """
        try:
            return self.entry.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{self} cannot be loaded ({reason})") from error

    def load_class(self, base: type[Any]) -> Any:
        """Imports it and sees that it is what its group is for.

        Raises:
            PluginError: When it cannot be loaded, or is no subclass of `base`.
        """
        found = self.load()
        if not (isinstance(found, type) and issubclass(found, base)):
            wanted = f"{base.__module__.partition('._')[0]}.{base.__name__}"
            raise PluginError(f"{self} is {self.entry.value}, which is no subclass of {wanted}")
        return found


def make(kind: Kind, name: str, base: type[Any], *arguments: object, made: str) -> Any:
    """Makes what a package adds.

    Args:
        kind: What it is.
        name: Of its entry point.
        base: What its class must be a subclass of.
        arguments: What it is made of.
        made: The same in words, for messages.

    Raises:
        PluginError: If it is not installed, cannot be loaded, or cannot be made.
    """
    added = plugins(kind).get(name)
    if added is None:
        raise PluginError(f"no installed package adds the {kind.replace('_', ' ')} {name!r}")
    found = added.load_class(base)
    try:
        return found(*arguments)
    except TypeError as error:
        raise PluginError(f"{added} cannot be made {made} ({error})") from error


def plugins(kind: Kind) -> dict[str, Plugin]:
    """What installed packages add of a kind, by name."""
    return _found()[0][kind]


def names(kind: Kind) -> tuple[str, ...]:
    """Every name of a kind: those that are built in, then those of packages."""
    return (*BUILT_IN[kind], *plugins(kind))


def complaints() -> tuple[tuple[str, str], ...]:
    """Plugins that were left out: the package with its version, and what is wrong."""
    return _found()[1]


def packages() -> tuple[str, ...]:
    """Names of the packages that add something."""
    found = {
        plugin.package.partition(" ")[0] for kind in GROUPS for plugin in plugins(kind).values()
    }
    return tuple(sorted(found))


@cache
def _found() -> tuple[dict[Kind, dict[str, Plugin]], tuple[tuple[str, str], ...]]:
    listed = entry_points()
    found: dict[Kind, dict[str, Plugin]] = {}
    wrong: list[tuple[str, str]] = []
    for kind, group in GROUPS.items():
        found[kind] = {}
        for entry in sorted(listed.select(group=group), key=lambda each: each.name):
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown 0"
            complaint = _complaint(kind, entry, found[kind])
            if complaint:
                wrong.append((package, f"entry point {group}: found {entry.name}, {complaint}"))
            else:
                found[kind][entry.name] = Plugin(kind, entry.name, package, entry)
    return found, tuple(wrong)


def _complaint(kind: Kind, entry: EntryPoint, others: dict[str, Plugin]) -> str | None:
    if not _NAME.fullmatch(entry.name):
        return "allowed are small letters, digits and _ (the first one a letter)"
    if entry.name in BUILT_IN[kind] or entry.name in _TAKEN.get(kind, ()):
        return "a name that is taken; allowed is another one"
    if entry.name in others:
        return f"which {others[entry.name].package} adds too; allowed is one of them"
    return None
